"""Waiting until streaming replicas have caught up: a large DELETE gives them much to replay.

Only reads. Not here: how far behind a replica is (``postgres.catalogue.server``), the purge that waits.
"""

import logging
import time

from event_archive.errors import BusyError, RefusedError
from event_archive.postgres.catalogue.server import largest_replica_lag_bytes
from event_archive.postgres.session import Postgres

logger = logging.getLogger(__name__)

_SUBJECT = "streaming replicas"
# After this, the day is left to the next run.
_WAIT_SECONDS = 600.0
_LOOK_EVERY_SECONDS = 2.0


def await_replicas(
    postgres: Postgres, max_lag_bytes: int, *, setting: str = "MAX_REPLICA_LAG", wait_seconds: float = _WAIT_SECONDS
) -> None:
    """Returns as soon as no streaming replica has more than so many bytes of WAL to replay.

    Args:
        postgres: the primary.
        max_lag_bytes: how far behind they may be.
        setting: that says so, for messages.
        wait_seconds: how long to wait for them.

    Raises:
        BusyError: they did not catch up in time.
        RefusedError: the role may not see how far they are.
        UnreachableError: as PostgreSQL says.
    """
    until = time.monotonic() + wait_seconds
    waited = False
    while (behind := _lag_bytes(postgres, setting)) > max_lag_bytes:
        if time.monotonic() >= until:
            raise BusyError(
                f"A streaming replica has {behind} bytes of WAL to replay, for longer than {wait_seconds:g} s; "
                f"{setting} allows {max_lag_bytes}. Nothing was deleted; the next run tries again."
            )
        if not waited:
            waited = True
            logger.info("waiting: a streaming replica has %d bytes of WAL to replay", behind)
        time.sleep(_LOOK_EVERY_SECONDS)


def _lag_bytes(postgres: Postgres, setting: str) -> int:
    with postgres.transaction(_SUBJECT) as connection:
        lag_bytes = largest_replica_lag_bytes(connection)
    if lag_bytes is None:
        raise RefusedError(
            f"{setting} is set, but the role may not see how far replicas are. Nothing was deleted. "
            "GRANT pg_read_all_stats to it, or unset that."
        )
    return lag_bytes
