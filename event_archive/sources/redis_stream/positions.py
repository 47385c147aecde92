"""The table ``positions``: its columns, and how it is made. Not here: its partitions, how records become rows."""

from event_archive.domain.dataset import TableName
from event_archive.postgres.session import Session
from event_archive.sources.merge import Target

_COLUMNS = (
    ("device_id", "text"),
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


def target(schema: str) -> Target:
    """Where positions land: one row for each device and time, that of the highest stream id."""
    return Target(TableName(schema, "positions"), _COLUMNS, ("device_id", "ts"), "stream_id")


def make_table(session: Session, schema: str) -> bool:
    """Makes the table where it is missing: a hypertable where TimescaleDB is, else one of daily partitions.

    Returns:
        Whether it was missing.

    Raises:
        RefusedError: the role may not; the message holds the statements, for somebody who may.
    """
    raise NotImplementedError
