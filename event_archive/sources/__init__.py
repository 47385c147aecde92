"""How events arrive in PostgreSQL: the landing that all sources share, and a room for each source.

What happens to rows afterwards is not here; a source knows no other source, and nothing of files in the lake.
"""
