"""PostgreSQL's system catalogue: all SQL that reads it, a function a question, by names and oids.

Every name is written ``pg_catalog.``, since an unqualified one is looked up in ``pg_temp`` first of all and wherever
``search_path`` leads. What follows from an answer is not here: ``table``, ``operations`` and ``doctor`` decide it.
"""
