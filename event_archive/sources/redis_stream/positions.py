"""The table ``positions``: its columns, and how it is made. Not here: its partitions, how records become rows."""

from psycopg import sql

from event_archive.domain.dataset import TableName
from event_archive.postgres.catalogue.relations import relation
from event_archive.postgres.catalogue.timescale import extension_schema
from event_archive.postgres.session import Session
from event_archive.sources.merge import Target
from event_archive.sources.tables import make, statement

_COLUMNS = (
    # As the table has it: equality of texts in different collations is an error.
    ("device_id", 'text COLLATE "C"'),
    ("ts", "timestamptz"),
    ("latitude", "double precision"),
    ("longitude", "double precision"),
    ("altitude", "double precision"),
    ("angle", "double precision"),
    ("satellites", "integer"),
    ("speed", "double precision"),
    ("priority", "integer"),
    ("attributes", "jsonb"),
    ("stream_id", "text"),
)
# Both parts are unsigned numbers of 64 bits.
_STREAM_ORDER = "pg_catalog.string_to_array({}, '-')::numeric[]"
_PARTITIONED = sql.SQL(" PARTITION BY RANGE (ts)")
_HYPERTABLE = sql.SQL(
    ";\nSELECT {extension}.create_hypertable({table}, {extension}.by_range('ts', interval '1 day'), "
    "create_default_indexes => false)"
)


def target(schema: str) -> Target:
    """Where positions land: one row for each device and time, that of the highest stream id."""
    return Target(TableName(schema, "positions"), _COLUMNS, ("device_id", "ts"), "stream_id", order=_STREAM_ORDER)


def make_table(session: Session, schema: str) -> bool:
    """Makes the table where it is missing: a hypertable where TimescaleDB is, else one of daily partitions.

    Returns:
        Whether it was missing.

    Raises:
        RefusedError: the role may not; the message holds the statements, for somebody who may.
    """
    table = TableName(schema, "positions")
    with session.transaction(str(table)) as connection:
        if relation(connection, table.schema, table.name) is not None:
            return False
        extension = extension_schema(connection)
    divided: sql.Composable = _PARTITIONED
    if extension is not None:
        name = sql.Identifier(table.schema, table.name).as_string()
        divided = _HYPERTABLE.format(extension=sql.Identifier(extension), table=sql.Literal(name))
    make(session, table, {table: statement(table, "positions.sql", divided=divided)})
    return True
