"""The first pass over a stream: until what it held at the beginning has landed, no record is too old.

Not here: which days are aged (``runs``).
"""

from typing import Any, LiteralString

from psycopg import Cursor, sql

from event_archive.config.sources import StreamSettings
from event_archive.domain.dataset import TableName
from event_archive.postgres.session import Connection, Session
from event_archive.sources.redis_stream.state import BEFORE_ALL, id_order, look_at_group

_BEGIN = "INSERT INTO {} (stream, group_name, first_pass_until) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING"
_READ = "SELECT first_pass_until, first_pass_at IS NOT NULL FROM {} WHERE stream = %s AND group_name = %s"
_END = "UPDATE {} SET first_pass_at = pg_catalog.now() WHERE stream = %s AND group_name = %s"


def table(schema: str) -> TableName:
    """``stream_groups``: how far the first pass of each consumer group goes, and when it came to its end."""
    return TableName(schema, "stream_groups")


class FirstPass:
    """The first pass of a consumer group, which outlives its consumers and the group itself."""

    def __init__(self, settings: StreamSettings, session: Session) -> None:
        """Looks at nothing yet.

        Args:
            settings: of the stream.
            session: with the database, where ``stream_groups`` is.
        """
        self._settings, self._session = settings, session
        self._is_over = False

    def is_over(self) -> bool:
        """Whether each entry that the stream had at the first look has been landed and acknowledged.

        A stream that never had an entry has not been passed over.

        Raises:
            StreamAwayError, ConfigurationError: as ``look_at_group``.
            UnreachableError, BusyError, RefusedError: as ``Postgres.transaction``.
        """
        if not self._is_over:
            self._is_over = self._look()
        return self._is_over

    def has_ended(self, connection: Connection) -> bool:
        """Whether some consumer has found it to be over."""
        row = self._execute(connection, _READ).fetchone()
        return bool(row and row[1])

    def _look(self) -> bool:
        group = look_at_group(self._settings)
        with self._session.transaction(str(table(self._settings.ingest_schema))) as connection:
            if group.last != BEFORE_ALL:
                self._execute(connection, _BEGIN, group.last.decode())
            row = self._execute(connection, _READ).fetchone()
            if row is None or row[1]:
                return row is not None
            # With a bracket, the range ends before it.
            until, settled = id_order(row[0]), id_order(group.settled.removeprefix(b"(").decode())
            if until > settled or (until == settled and group.settled.startswith(b"(")):
                return False
            self._execute(connection, _END)
            return True

    def _execute(self, connection: Connection, query: LiteralString, *values: str) -> Cursor[Any]:
        """A query of ``stream_groups``, for this group."""
        name = table(self._settings.ingest_schema)
        of = self._settings.stream_key, self._settings.stream_group
        return connection.execute(sql.SQL(query).format(sql.Identifier(name.schema, name.name)), (*of, *values))
