"""PostgreSQL as such: sessions, COPY, the catalogue, what its errors mean, replicas.

Days, datasets and the table that is archived are unknown here: ``table`` and ``operations`` know them.
"""
