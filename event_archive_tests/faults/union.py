"""What must hold whatever happens: each row in the table or in the file; in the end, once, in the file."""

from dataclasses import dataclass
from datetime import date
from typing import Any

from event_archive.operations.verify import verify_day
from event_archive.postgres.session import Postgres
from event_archive.table.shape import reflect
from event_archive_tests.faults.wire import Wire, alone
from event_archive_tests.fixtures.pipeline import DAY, Pipeline, as_row

Row = tuple[Any, ...]

_ROWS = """
SELECT id::text, event_id, event_type, created_at::text, processed_at::text, payload
FROM "Event" WHERE created_at >= '{day}' AND created_at < '{day}'::date + 1 ORDER BY "Event".id
"""


@dataclass
class ThroughWire(Pipeline):
    """A pipeline that reaches its database through the proxy."""

    wire: Wire | None = None
    connect_timeout: int = 10

    @property
    def postgres(self) -> Postgres:
        assert self.wire
        dsn = self.wire.dsn(self.database.name, connect_timeout=self.connect_timeout)
        return Postgres(dsn, lock_timeout_seconds=2)


def in_table(pipeline: Pipeline, day: date = DAY) -> list[Row]:
    """The day's rows in the table."""
    return pipeline.database.execute(_ROWS.format(day=day))


def in_file(pipeline: Pipeline, day: date = DAY) -> list[Row]:
    """The day's rows in the file, in its order; none where there is none."""
    if pipeline.lake.stat(pipeline.dataset.path(day)) is None:
        return []
    return [as_row(record) for record in pipeline.records_of_file(day)]


def by_key(rows: list[Row]) -> dict[str, Row]:
    """The last row of each key."""
    return {row[0]: row for row in rows}


def assert_nothing_lost(pipeline: Pipeline, before: list[Row], day: date = DAY) -> None:
    """Before anything is put right: each row is in the file or in the table, as it was."""
    union = by_key(in_file(pipeline, day)) | by_key(in_table(pipeline, day))
    assert union == by_key(before)


def assert_one_run_puts_it_right(pipeline: Pipeline, before: list[Row], day: date = DAY) -> None:
    """One plain run later: no row in the table, each exactly once in the file, the file equal to its manifest."""
    plain = Pipeline(pipeline.database, pipeline.lake)
    alone(plain.database.server, plain.database.name)
    assert_nothing_lost(plain, before, day)
    purged = plain.run(day)
    assert (purged.outcome in ("purged", "nothing to do"), purged.left) == (True, 0), purged
    assert in_table(plain, day) == []
    assert sorted(in_file(plain, day), key=lambda row: int(row[0])) == before
    assert_good(plain, day)


def assert_good(pipeline: Pipeline, day: date = DAY) -> None:
    """The file is what its manifest says."""
    with pipeline.postgres.transaction("test") as connection:
        table = reflect(connection, pipeline.dataset)
    problems = verify_day(pipeline.dataset, day, table=table, lake=pipeline.lake).problems
    assert problems == (), problems
