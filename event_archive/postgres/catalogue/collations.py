"""The collations by which a table's columns are sorted, and their versions. Not here: what an index does with them."""

from collections.abc import Sequence
from dataclasses import dataclass

from event_archive.postgres.session import Connection

# PostgreSQL 14 knows no version of a database's own collation.
_OUTDATED = """
WITH used_ AS (
  SELECT DISTINCT coalesce(nullif(attcollation, 0), 'pg_catalog."default"'::pg_catalog.regcollation) AS oid
  FROM pg_catalog.pg_attribute WHERE attrelid = %s AND attname = ANY (%s)),
versions_ (name_, kind_, made_, here_) AS (
  SELECT pg_catalog.format('%%I.%%I', nspname, collname), 'COLLATION', collversion,
         pg_catalog.pg_collation_actual_version(l.oid)
  FROM used_ JOIN pg_catalog.pg_collation AS l USING (oid) JOIN pg_catalog.pg_namespace AS n ON n.oid = collnamespace
  UNION ALL
  SELECT pg_catalog.quote_ident(datname), 'DATABASE', pg_catalog.to_jsonb(d) ->> 'datcollversion',
         {actual}
  FROM used_ JOIN pg_catalog.pg_collation AS l USING (oid) CROSS JOIN pg_catalog.pg_database AS d
  WHERE collprovider = 'd' AND datname = pg_catalog.current_database())
SELECT name_, kind_, made_, here_ FROM versions_ WHERE made_ <> here_ ORDER BY kind_, name_
"""
_ACTUAL = "pg_catalog.pg_database_collation_actual_version(d.oid)"
_KNOWS_OF_DATABASES_SINCE = 150000


@dataclass(frozen=True, slots=True)
class Outdated:
    """A collation whose order may have changed since indexes were made by it.

    Attributes:
        name: of the collation, or of the database whose own it is; quoted for SQL.
        is_databases: whether it is the database's own.
        made: the version by which it was made.
        here: the version of the library on the server.
    """

    name: str
    is_databases: bool
    made: str
    here: str

    @property
    def refresh(self) -> str:
        """The statement that says that all indexes have been made anew."""
        if self.is_databases:
            return f"ALTER DATABASE {self.name} REFRESH COLLATION VERSION;"
        return f"ALTER COLLATION {self.name} REFRESH VERSION;"


def outdated_collations(connection: Connection, oid: int, columns: Sequence[str]) -> list[Outdated]:
    """The collations of a table's columns whose version is another than the server's library has by now.

    Args:
        connection: in a transaction.
        oid: the catalogue's number for the table.
        columns: which; all hold texts. One without a collation of its own, as of ``jsonb``, goes by the database's.
    """
    actual = _ACTUAL if connection.info.server_version >= _KNOWS_OF_DATABASES_SINCE else "NULL"
    rows = connection.execute(_OUTDATED.format(actual=actual), (oid, list(columns))).fetchall()
    return [Outdated(name, kind == "DATABASE", made, here) for name, kind, made, here in rows]
