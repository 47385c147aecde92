"""Where each record is that was ever sent: in its table, in a file, in ``rejected_records``, or nowhere.

The rows that ought to be are made of what was sent by PostgreSQL's own casts, and compared with those of tables and
files text by text. Not here: who sends.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from event_archive.domain.dataset import Dataset
from event_archive.lake.protocol import Lake
from event_archive_tests.fixtures.pipeline import Pipeline
from event_archive_tests.fixtures.postgres import Database

Row = tuple[object, ...]

COLUMNS = {
    "events": ("id", "event_id", "event_type", "created_at", "processed_at", "payload"),
    "ingested_events": ("id", "event_type", "timestamp", "data"),
    "logs": ("timestamp", "message", "request_id", "raw_data"),
    "positions": ("device_id", "ts", "latitude", "longitude", "attributes", "stream_id"),
}
"""Of each dataset, what is compared: all that is made of what was sent."""

_MADE_OF = {
    "ingested_events": """
SELECT of ->> 'id', of ->> 'type', (of ->> 'timestamp')::timestamptz::text, of::text
FROM unnest(%s::text[]::jsonb[]) AS of""",
    "logs": """
SELECT to_timestamp((of::jsonb ->> 'time')::numeric / 1000)::text, of::jsonb ->> 'msg', of::jsonb #>> '{req,id}', of
FROM unnest(%s::text[]) AS of""",
    "positions": """
SELECT of ->> 'deviceId', (of ->> 'timestamp')::timestamptz::text, (of ->> 'latitude')::float8::text,
  (of ->> 'longitude')::float8::text, (of -> 'attributes')::text, of ->> 'streamId'
FROM unnest(%s::text[]::jsonb[]) AS of""",
}


@dataclass
class Books:
    """What was sent.

    Attributes:
        events: the rows of the application's table, by key, as they were written last.
        records: of the datasets that a source fills, what was sent as JSON.
        rejected: source and bytes of what cannot be a row.
    """

    events: dict[str, Row] = field(default_factory=dict)
    records: dict[str, list[str]] = field(default_factory=lambda: {name: [] for name in _MADE_OF})
    rejected: list[tuple[str, bytes]] = field(default_factory=list)

    @property
    def sent(self) -> int:
        """How many records."""
        return len(self.events) + sum(map(len, self.records.values())) + len(self.rejected)

    def faults(self, database: Database, lake: Lake, datasets: Iterable[Dataset]) -> list[str]:
        """What is wrong, a line each: of which dataset, how many rows are lost, doubled or were never sent."""
        found = []
        for dataset in datasets:
            ought = Counter(self._rows_of(dataset.name, database))
            found += _differences(
                dataset.name, ought, Counter(in_table(database, dataset)) + in_files(database, lake, dataset)
            )
        kept = database.execute("SELECT source, raw FROM rejected_records")
        return found + _differences("rejected_records", Counter(self.rejected), Counter(kept))

    def _rows_of(self, name: str, database: Database) -> Iterable[Row]:
        if name == "events":
            return self.events.values()
        return database.execute(_MADE_OF[name], self.records[name])


def in_table(database: Database, dataset: Dataset) -> list[Row]:
    """The rows of a dataset's table."""
    columns = ", ".join(f'"{name}"::text' for name in COLUMNS[dataset.name])
    return database.execute(f"SELECT {columns} FROM {dataset.table}")


def in_files(database: Database, lake: Lake, dataset: Dataset) -> "Counter[Row]":
    """The rows of a dataset's files, by Python's own reader."""
    pipeline = Pipeline(database, lake, dataset)
    days = [day for file in lake.list(dataset.folder) if (day := dataset.day_of(file.path))]
    return Counter(
        tuple(record[name] or None for name in COLUMNS[dataset.name])
        for day in days
        for record in pipeline.records_of_file(day)
    )


def _differences(name: str, ought: "Counter[Row]", found: "Counter[Row]") -> list[str]:
    kinds = {
        "lost": ought - found,
        "there more than once": Counter({row: n - 1 for row, n in found.items() if row in ought and n > 1}),
        "there and never sent": Counter({row: n for row, n in found.items() if row not in ought}),
    }
    return [f"{name}: {of.total()} {kind}, like {next(iter(of))}" for kind, of in kinds.items() if of.total()]
