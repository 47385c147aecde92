"""Values compared as text, whatever their types: conditions for SQL. Not here: which values are compared, and why."""

from psycopg import sql

from event_archive.domain.manifest import Key


def digest(alias: sql.Identifier, names: Key) -> sql.Composable:
    """What stands for the values of columns where they are compared as text: a hash of 64 bits.

    A file's value may have been read as text, or into char(26): as COPY writes it, but for blanks at its end.
    """
    written = "CASE WHEN {0} IS DISTINCT FROM NULL THEN pg_catalog.rtrim(pg_catalog.format('%s', {0})) END"
    columns = (sql.SQL(written).format(sql.SQL("{}.{}").format(alias, sql.Identifier(name))) for name in names)
    row = sql.SQL(", ").join(columns)
    return sql.SQL('pg_catalog.hashtextextended(ROW({})::pg_catalog.text COLLATE pg_catalog."C", 0)').format(row)


def differ(alias: sql.Identifier, names: Key, others: Key) -> sql.Composable:
    """The condition that a row has other values in these columns than in those."""
    return sql.SQL("{} OPERATOR(pg_catalog.<>) {}").format(digest(alias, names), digest(alias, others))
