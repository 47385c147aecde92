"""What anybody who asks is told of a stream: its group, its table and its books, each looked at once.

Not here: how each is looked at (``state``, ``books``), who asks.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from event_archive.config.sources import StreamSettings
from event_archive.domain.dataset import Dataset
from event_archive.sources.redis_stream import books, state
from event_archive.sources.redis_stream.group import looking
from event_archive.sources.runs import aged_times


@dataclass(frozen=True, slots=True)
class Status:
    """A stream and what became of it.

    Attributes:
        group: what waits and what is under way.
        table: what has landed; None where there is no table yet, as before a consumer first ran.
        books: whether all has landed that was acknowledged; None likewise.
    """

    group: state.GroupState
    table: state.TableState | None
    books: books.Books | None


def status(settings: StreamSettings, datasets: Iterable[Dataset]) -> Status:
    """Looks at all of it.

    Args:
        settings: of the stream and the database.
        datasets: what is archived; of the table that positions land in, it says which of them may be gone.

    Raises:
        StreamAwayError: Redis cannot be reached, or cannot serve for a while.
        ConfigurationError: REDIS_URL is wrong, or Redis refuses.
        UnreachableError, BusyError, RefusedError: as ``Postgres.transaction``.
    """
    with looking(settings) as client:
        group = state.group_state(client, settings.stream_key, settings.stream_group)
        with settings.postgres.session() as session:
            aged = aged_times(session, datasets, settings.table, only_looks=True)
            table = state.table_state(session, settings.table)
            found = books.look(client, session, settings, group.settled, aged) if table else None
    return Status(group, table, found)
