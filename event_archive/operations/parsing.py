"""Keys that were read from a file as text become values of the table's types. Not here: why they were (``loading``)."""

from psycopg import sql

from event_archive.postgres.session import Connection
from event_archive.table.shape import Table

_INPUT_IS_VALID_SINCE = 160000
# For servers that cannot be asked whether a text parses: each row is tried. Not by a cast, which cuts a text that is
# too long for its type. To some types, as ltree, a text is a syntax error, or names what there is none of.
_DELETE_UNPARSED = """
#variable_conflict use_column
DECLARE
  rows_ CURSOR FOR SELECT {names} FROM {into};
BEGIN
  DELETE FROM {into} WHERE pg_catalog.num_nulls({names}) OPERATOR(pg_catalog.>) 0;
  FOR row_ IN rows_ LOOP
    BEGIN
      PERFORM FROM pg_catalog.jsonb_to_record(pg_catalog.to_jsonb(row_)) AS value_({values});
    EXCEPTION WHEN data_exception OR integrity_constraint_violation
      OR syntax_error OR undefined_object OR undefined_table OR undefined_function THEN
      DELETE FROM {into} WHERE CURRENT OF rows_;
    END;
  END LOOP;
END
"""


def parse_keys(connection: Connection, into: sql.Identifier, table: Table) -> None:
    """Gives keys that were read as text their types, by which alone it is told whether a later row has the same.

    A row whose key does not parse can be none of the table's: it is left out.
    """
    keys = [column for column in table.columns if column.name in table.key]
    if connection.info.server_version >= _INPUT_IS_VALID_SINCE:
        valid = sql.SQL(" AND ").join(
            sql.SQL("pg_catalog.pg_input_is_valid({}, {})").format(
                sql.Identifier(column.name), sql.Literal(column.sql_type.as_string(None))
            )
            for column in keys
        )
        connection.execute(sql.SQL("DELETE FROM {} WHERE ({}) IS NOT TRUE").format(into, valid))
    else:
        names = sql.SQL(", ").join(sql.Identifier(column.name) for column in keys)
        values = sql.SQL(", ").join(
            sql.SQL("{} {}").format(sql.Identifier(column.name), column.sql_type) for column in keys
        )
        one_by_one = sql.SQL(_DELETE_UNPARSED).format(into=into, names=names, values=values)
        connection.execute(sql.SQL("DO {}").format(sql.Literal(one_by_one.as_string(connection))))
    alter = sql.SQL("ALTER COLUMN {0} TYPE {1} USING {0}::{2}")
    types = sql.SQL(", ").join(alter.format(sql.Identifier(of.name), of.definition, of.sql_type) for of in keys)
    connection.execute(sql.SQL("ALTER TABLE {} {}").format(into, types))
