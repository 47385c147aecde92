"""Drops the partitions that a purge has left empty. Not here: those whose rows are dropped with them (``dropping``)."""

import logging
from datetime import date, timedelta

import psycopg

from event_archive.operations.drop_plan import PartitionStaysError, stays
from event_archive.operations.dropping import drop_locked, keep_writers_out
from event_archive.operations.site import Site
from event_archive.postgres.catalogue.partitions import Partition
from event_archive.postgres.catalogue.server import earlier_now
from event_archive.postgres.session import Connection
from event_archive.table.advice import CLEARING_ADVICE
from event_archive.table.holds import held_days
from event_archive.table.locks import lock_day
from event_archive.table.partitions import has_any_row, partitions_of, told, unfit
from event_archive.table.shape import Table, glance

logger = logging.getLogger(__name__)

_TRIED_FOR = timedelta(days=31)


def drop_empty(site: Site, day: date) -> list[str]:
    """Drops partitions of a day that are aged as a whole and hold no row; returns their names.

    Those of the month before that day are looked at, too: they stay where the table's lock was not to be had at once,
    and their own days have nothing left to purge. Each is proven empty under a lock that keeps writers out. What cannot
    be dropped stays, and the log says why.

    Raises:
        RefusedError, UnreachableError, BusyError: as PostgreSQL says.
    """
    dataset, dropped = site.dataset, list[str]()
    with site.postgres.transaction(f"{dataset.table}, {day}", advice=CLEARING_ADVICE) as connection:
        table = glance(connection, dataset, "delete")
        last_aged = dataset.retention.last_aged_day(earlier_now(connection))
        found = partitions_of(connection, table, day, since=day - min(_TRIED_FOR, day - date.min))
        aged = [of for of in found if of.last <= last_aged]
        # Who may not drop a partition may not have to read it by itself either.
        empty = [of for of in aged if of.is_owned and not has_any_row(connection, of)]
        for of in aged:
            if not of.is_owned:
                why_not, level = unfit(connection, table, of), logging.WARNING if of.last == day else logging.INFO
                logger.log(level, "%s: partition %s is not dropped, empty or not: %s", dataset.table, told(of), why_not)
    for partition in empty:
        # A transaction each: the lock on the table lasts until its end.
        with site.postgres.transaction(f"{dataset.table}, {day}", advice=CLEARING_ADVICE) as connection:
            try:
                with connection.transaction():
                    if _drop_if_empty(connection, site, glance(connection, dataset, "delete"), partition):
                        dropped.append(told(partition))
            except (PartitionStaysError, psycopg.Error) as error:
                why = stays(error) if isinstance(error, psycopg.Error) else error
                level = logging.WARNING if partition.last >= day else logging.INFO
                logger.log(level, "%s: empty partition %s is not dropped: %s", dataset.table, told(partition), why)
    return dropped


def _drop_if_empty(connection: Connection, site: Site, table: Table, partition: Partition) -> bool:
    # Neither in the way of another run that looks at it, nor of somebody who is about to restore a held day.
    if not lock_day(connection, site.dataset, partition.last) or any(
        (partition.first or day) <= day <= partition.last for day in held_days(connection, site.dataset)
    ):
        return False
    if why_not := unfit(connection, table, partition):
        raise PartitionStaysError(why_not)
    keep_writers_out(connection, [partition])
    if has_any_row(connection, partition):
        return False
    drop_locked(connection, site, table, partition.last, [partition], files=None)
    return True
