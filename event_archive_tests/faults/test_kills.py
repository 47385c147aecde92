"""The pipeline is killed with SIGKILL at every step and at random instants; one plain run puts everything right."""

import os
import random
import subprocess
import sys
from datetime import date, timedelta

import pytest

from event_archive.operations.verify import verify_day
from event_archive.table.shape import reflect
from event_archive_tests.faults.conftest import Zygote
from event_archive_tests.faults.share import share_of
from event_archive_tests.faults.tally import survived
from event_archive_tests.faults.victim import POINTS
from event_archive_tests.fixtures.installation import clean_environment
from event_archive_tests.fixtures.waiting import until

ROWS = 250
LATE = 60
RANDOM_DAYS = share_of(90)
RANDOM_PARTS = 6
"""Each part is a test with a time limit of its own."""
COMMAND_LINE_KILLS = share_of(24)

_days = iter(date(2015, 1, 2) + timedelta(days=n) for n in range(3000))

EVERYTHING = (
    "SELECT id::text, event_id, event_type, created_at::text, coalesce(processed_at::text, ''), payload::text "
    "FROM \"Event\" WHERE created_at >= '{day}' AND created_at < '{day}'::date + 1 ORDER BY id"
)
Rows = list[tuple[object, ...]]


def in_table(zygote: Zygote, day: date) -> Rows:
    return zygote.pipeline.database.execute(EVERYTHING.format(day=day))


def in_file(zygote: Zygote, day: date) -> Rows:
    if zygote.pipeline.lake.stat(zygote.pipeline.dataset.path(day)) is None:
        return []
    return [tuple(record.values()) for record in zygote.pipeline.records_of_file(day)]


def assert_that_nothing_is_lost(zygote: Zygote, day: date, rows: Rows) -> None:
    """Whatever happened, and before anything is put right: every row is in the table, in the file, or in both."""
    assert {*in_table(zygote, day), *in_file(zygote, day)} == set(rows)


def assert_that_all_is_right(zygote: Zygote, day: date, rows: Rows) -> None:
    """After one plain run: each row once, in the file; the file as its manifest says; no row of it in the table."""
    assert in_table(zygote, day) == []
    assert sorted(in_file(zygote, day)) == sorted(rows)
    with zygote.pipeline.postgres.transaction("test") as connection:
        table = reflect(connection, zygote.pipeline.dataset)
    found = verify_day(zygote.pipeline.dataset, day, table=table, lake=zygote.pipeline.lake)
    assert (found.rows, found.problems) == (len(rows), ())


def a_day(zygote: Zygote, *, late: bool) -> tuple[date, Rows]:
    """A day with rows to archive; with ``late``, one that has a file already."""
    day = next(_days)
    zygote.pipeline.add(ROWS, day=day)
    rows = in_table(zygote, day)
    if late:
        assert zygote.run(day) == 0
        zygote.pipeline.add(LATE, day=day, prefix="late")
        rows += in_table(zygote, day)
    return day, rows


@pytest.mark.parametrize("late", [False, True], ids=["first file", "append"])
@pytest.mark.parametrize(
    ("point", "nth"), [(point, nth + 1) for point, times in POINTS.items() for nth in range(times)]
)
def test_a_kill_at_any_step_costs_only_work(zygote: Zygote, point: str, nth: int, late: bool):
    day, rows = a_day(zygote, late=late)
    status = zygote.run(day, point=point, nth=nth)
    assert_that_nothing_is_lost(zygote, day, rows)
    if os.WIFSIGNALED(status):
        survived(f"kills: {point}")
    else:
        # There is no such many-th time: then the run has ended well.
        assert (status, nth > 1) == (0, True)
    assert zygote.run(day) == 0
    assert_that_all_is_right(zygote, day, rows)


@pytest.mark.parametrize("part", range(RANDOM_PARTS))
def test_kills_at_random_instants_cost_only_work(zygote: Zygote, part: int):
    random.seed()
    for n in range(part, RANDOM_DAYS, RANDOM_PARTS):
        day, rows = a_day(zygote, late=n % 2 == 1)
        status = 0
        for _ in range(1 + n % 3):
            status = zygote.run(day, seconds=random.uniform(0.02, 0.5))
            assert_that_nothing_is_lost(zygote, day, rows)
            if os.WIFSIGNALED(status):
                survived("kills: at a random instant")
        assert zygote.run(day) == 0
        assert_that_all_is_right(zygote, day, rows)


def command_line(zygote: Zygote, day: date) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "event_archive.cli", "run", day.isoformat()],
        env=clean_environment(**zygote.variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_kills_of_the_command_line_cost_only_work(zygote: Zygote):
    """Most instants of such a process are its start; those that count begin about when it connects."""
    for n in range(COMMAND_LINE_KILLS):
        day, rows = a_day(zygote, late=n % 2 == 1)
        with command_line(zygote, day) as process:
            try:
                process.wait(random.uniform(0.3, 2.5))
            except subprocess.TimeoutExpired:
                process.kill()
                survived("kills: of the command line")
            process.communicate()
        assert_that_nothing_is_lost(zygote, day, rows)
        assert zygote.run(day) == 0
        assert_that_all_is_right(zygote, day, rows)


LONG_DELETE = """
CREATE TABLE it_takes_long (at timestamptz);
INSERT INTO it_takes_long VALUES (now());
CREATE FUNCTION take_long() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM pg_sleep(60) FROM public.it_takes_long; RETURN NULL; END $$;
CREATE TRIGGER take_long BEFORE DELETE ON "Event" EXECUTE FUNCTION take_long();
"""
FORMER = """
SELECT wait_event FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'event_archive'
"""


def test_a_delete_does_not_outlive_for_long_its_run_that_was_killed(zygote: Zygote):
    """Its session has the lock of the day, and a run that begins meanwhile says that another works on it."""
    database = zygote.pipeline.database
    day, rows = a_day(zygote, late=False)
    database.execute(LONG_DELETE)
    try:
        with command_line(zygote, day) as process:
            until(lambda: database.execute(FORMER) == [("PgSleep",)], seconds=30)
            process.kill()
            process.communicate()
        database.execute("DELETE FROM it_takes_long")
        until(lambda: database.execute(FORMER) == [], seconds=20)
        assert_that_nothing_is_lost(zygote, day, rows)
        assert zygote.run(day) == 0
        assert_that_all_is_right(zygote, day, rows)
    finally:
        database.execute('DROP TRIGGER take_long ON "Event"; DROP FUNCTION take_long(); DROP TABLE it_takes_long')
    survived("kills: amid a long DELETE")
