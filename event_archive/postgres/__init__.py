"""PostgreSQL as such: connecting, sessions, COPY, the catalogue, what errors mean.

Days, datasets and the archived table are not known here, but in ``table`` and ``operations``.
"""
