"""A plain VACUUM (ANALYZE) after a purge, where one is asked for. Not here: what is deleted, autovacuum's settings."""

import logging
import time

from psycopg import sql

from event_archive.domain.dataset import quoted
from event_archive.operations.site import Site
from event_archive.postgres.catalogue.privileges import may_vacuum, to_vacuum
from event_archive.postgres.catalogue.relations import relation
from event_archive.postgres.catalogue.server import role_of
from event_archive.table.advice import VACUUM_ADVICE

logger = logging.getLogger(__name__)

_LOCKED = "55P03"


def vacuum(site: Site) -> float | None:
    """Vacuums and analyzes an ordinary table, so that the space of its deleted rows is used again.

    A partitioned table is left to autovacuum, and so is one that somebody else vacuums at this moment.

    Returns:
        How many seconds it took; None where there was none, and the log says why.

    Raises:
        RefusedError, UnreachableError, BusyError: as PostgreSQL says.
    """
    name = site.dataset.table
    with site.postgres.transaction(str(name), advice=VACUUM_ADVICE) as connection:
        found = relation(connection, name.schema, name.name)
        if found is None or found.kind != "r":
            return None
        if not may_vacuum(connection, found.oid):
            user, needs = quoted(role_of(connection)), to_vacuum(connection)
            logger.warning("%s: not vacuumed: %s may not, and needs %s", name, user, needs)
            return None
    started = time.monotonic()
    statement = sql.SQL("VACUUM (ANALYZE, SKIP_LOCKED) {}").format(sql.Identifier(name.schema, name.name))
    if _LOCKED in site.postgres.execute_alone(statement, str(name), advice=VACUUM_ADVICE):
        logger.warning("%s: not vacuumed: another session has it locked, to analyze it or to make an index, say", name)
        return None
    return time.monotonic() - started
