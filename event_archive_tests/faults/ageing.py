"""A table whose days come of age by a clock of the test's, and are archived and purged as at night.

Not here: what fills the table.
"""

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

from event_archive.domain.dataset import Dataset, TableName
from event_archive.domain.days import Retention, midnight, now_utc
from event_archive.lake.protocol import Lake
from event_archive_tests.fixtures.pipeline import Pipeline
from event_archive_tests.fixtures.postgres import Database


@dataclass
class Ageing:
    """A table, its files, and a clock.

    Attributes:
        table: its name.
        days: how many a row stays.
        now: the clock.
        gone: the keys of all rows that were purged.
    """

    database: Database
    lake: Lake
    table: str
    days: int
    now: Callable[[], datetime]
    gone: set[str] = field(default_factory=set)

    def __iter__(self) -> Iterator[Dataset]:
        """The dataset as it is at this moment: what the clock is behind, the retention is longer."""
        yield self._pipeline.dataset

    @property
    def _pipeline(self) -> Pipeline:
        behind = (now_utc().date() - self.now().date()).days
        return Pipeline(self.database, self.lake).of(
            table=TableName("public", self.table),
            time_column="timestamp",
            file_prefix="t",
            retention=Retention(months=0, days=self.days + behind),
        )

    @property
    def young_from(self) -> datetime:
        """Rows from before are aged."""
        return midnight(self.now().date() - timedelta(days=self.days))

    def aged_days(self) -> list[date]:
        """Those with rows in the table."""
        found = self.database.execute(
            f"SELECT DISTINCT (timestamp AT TIME ZONE 'UTC')::date FROM {self.table} WHERE timestamp < %s ORDER BY 1",
            self.young_from,
        )
        return [day for (day,) in found if isinstance(day, date)]

    def archive(self, day: date) -> None:
        self._pipeline.archive(day)

    def night(self, day: date) -> None:
        """Archives and purges a day: then it has no row any more."""
        first = datetime.combine(day, datetime.min.time(), UTC)
        keys = self.database.execute(
            f"SELECT id FROM {self.table} WHERE timestamp >= %s AND timestamp < %s", first, first + timedelta(days=1)
        )
        purged = self._pipeline.run(day)
        assert (purged.deleted, purged.left) == (len(keys), 0), purged
        self.gone |= {str(key) for (key,) in keys}

    def filed(self) -> list[dict[str, str]]:
        """All rows of all files."""
        dataset, rows = self._pipeline.dataset, list[dict[str, str]]()
        for file in self.lake.list(dataset.folder):
            if not file.path.endswith(".csv"):
                # The mark that says whose files they are.
                continue
            with self.lake.read(file) as blocks:
                text = b"".join(blocks).decode()
            rows += csv.DictReader(io.StringIO(text, newline=""))
        return rows
