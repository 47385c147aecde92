"""Whether a server that rows are exported from is a copy of the primary. Not here: asking servers who they are."""

from event_archive.errors import OtherSourceError
from event_archive.postgres.catalogue.server import Identity


class FormerTimelineError(OtherSourceError):
    """What a replica holds may have been lost with a former primary."""


def require_copy(original: Identity, copy: Identity, *, primary: str, replica: str) -> None:
    """Checks that a server holds the primary's rows, if perhaps late; ``primary`` and ``replica`` are settings.

    Raises:
        OtherSourceError: it is no standby of the primary, nor the primary itself.
        FormerTimelineError: it is a standby, and has not replayed anything of the primary's timeline.
    """
    same_rows = (copy.system, copy.database) == (original.system, original.database)
    follows = copy.is_standby and copy.timeline <= original.timeline
    if same_rows and follows and copy.timeline < original.timeline:
        raise FormerTimelineError(
            f"{replica} names a standby of {described(original)} on timeline {copy.timeline}, and {primary} names "
            f"timeline {original.timeline}: since a failover. It hears of that late, or it follows the former primary, "
            "and may have rows that were lost with that one."
        )
    if not same_rows or not (follows or copy.started == original.started):
        raise OtherSourceError(
            f"{replica} names {described(copy)}{'' if copy.is_standby else ', a primary'}, no standby of "
            f"{described(original)}, which {primary} names. "
            "Nothing was written or deleted. Let it name a streaming replica of that server, or unset it: the primary "
            "serves exports then."
        )


def described(database: Identity) -> str:
    """A database, for messages."""
    return f"database {database.database} of system {database.system or '(not told)'}"
