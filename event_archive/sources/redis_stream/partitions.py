"""The daily partitions of ``positions``: made ahead, and where a record comes for a day that has none.

Not here: the table itself; how partitions are dropped (``operations``).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

from event_archive.domain.dataset import TableName
from event_archive.postgres.session import Session


@dataclass(frozen=True, slots=True)
class Partitions:
    """The partitions of a table, by day (UTC). Of any other table, a hypertable among them, nothing is made.

    Attributes:
        table: the partitioned one.
    """

    table: TableName

    def ahead(self, session: Session, days: int) -> list[date]:
        """Makes those of today and of so many days to come, and returns the days that had none.

        Raises:
            As ``make``.
        """
        raise NotImplementedError

    def make(self, session: Session, days: Iterable[date]) -> list[date]:
        """Makes those that are missing, and returns their days. To be called before each landing: it asks anew.

        Raises:
            BusyError: others kept locks for too long.
            RefusedError: the role may not; the message says what it needs.
            UnreachableError: the connection broke.
        """
        raise NotImplementedError
