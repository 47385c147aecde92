"""``event-archive run`` is told to stop, at random instants: it ends in time, as stopped, and nothing is lost."""

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import Any

import pytest

from event_archive.cli.stop import GRACE_SECONDS, MESSAGE
from event_archive.domain.days import ONE_DAY
from event_archive_tests.faults.share import share_of
from event_archive_tests.faults.tally import survived
from event_archive_tests.faults.union import assert_good, by_key, in_file
from event_archive_tests.fixtures.installation import Installation, clean_environment
from event_archive_tests.fixtures.pipeline import DAY, Pipeline
from event_archive_tests.fixtures.webhook import Webhook

SIZES = {"60 days of one row": ([DAY + n * ONE_DAY for n in range(60)], 1), "one large day": ([DAY], 30_000)}
SIGNALS = {"local": share_of(30), "azure": share_of(20)}
"""For each size: 100 in all."""
WITHIN_SECONDS = GRACE_SECONDS + 2
COMPLETED_EVERY = 5
"""Every so many stopped runs, another run does the rest."""

Row = tuple[Any, ...]

FILL = """
INSERT INTO "Event" (event_id, event_type, created_at, payload)
SELECT day::text || n, 'order.created', day + n * interval '1 second', jsonb_build_object('n', n, 'text', 'a, "b"')
FROM unnest(%s::date[]) AS day, generate_series(1, %s) AS n
"""
EVERYTHING = """
SELECT id::text, event_id, event_type, created_at::text, processed_at::text, payload FROM "Event" ORDER BY "Event".id
"""


@dataclass
class Round:
    """The table filled anew, and a place in the lake where nothing lies yet."""

    pipeline: Pipeline
    variables: dict[str, str]
    days: list[date]
    rows: dict[str, Row]

    @contextmanager
    def started(self) -> "Iterator[subprocess.Popen[str]]":
        command = [sys.executable, "-m", "event_archive.cli", "run"]
        with subprocess.Popen(
            command,
            env=clean_environment(**self.variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def archived(self) -> list[Row]:
        days = {
            self.pipeline.dataset.day_of(file.path) for file in self.pipeline.lake.list(self.pipeline.dataset.folder)
        }
        return [row for day in self.days if day in days for row in in_file(self.pipeline, day)]

    def assert_nothing_is_lost(self) -> None:
        assert by_key(self.archived()) | by_key(self.pipeline.database.execute(EVERYTHING)) == self.rows

    def assert_another_run_does_the_rest(self) -> None:
        with self.started() as process:
            shown, said = process.communicate(timeout=120)
        assert process.returncode == 0, shown + said
        assert self.pipeline.count() == 0
        assert sorted(self.archived(), key=lambda row: int(row[0])) == list(self.rows.values())
        assert_good(self.pipeline, self.days[0])


def rounds(installation: Installation, days: list[date], rows: int) -> Iterator[Round]:
    for n in range(1000):
        prefix = f"round{n}"
        pipeline = installation.of(file_prefix=prefix)
        pipeline.database.execute('TRUNCATE "Event"')
        pipeline.database.execute(FILL, days, rows)
        everything = pipeline.database.execute(EVERYTHING)
        yield Round(pipeline, installation.variables | {"EVENT_FILE_PREFIX": prefix}, days, by_key(everything))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", SIGNALS)
@pytest.mark.parametrize("size", SIZES)
def test_a_run_that_is_told_to_stop_at_any_instant_ends_in_time_and_loses_nothing(
    request: pytest.FixtureRequest, webhook: Webhook, size: str, kind: str
):
    installation: Installation = request.getfixturevalue(f"{kind}_installation")
    installation.variables |= {"ALERT_WEBHOOK_URL": webhook.url}
    every_round = rounds(installation, *SIZES[size])
    whole_run_seconds = seconds_of_a_whole_run(next(every_round))
    stopped = 0
    while stopped < SIGNALS[kind]:
        this = next(every_round)
        if stop_at_random(this, whole_run_seconds):
            stopped += 1
            survived("signals: at a random instant")
            this.assert_nothing_is_lost()
            if stopped % COMPLETED_EVERY == 0:
                this.assert_another_run_does_the_rest()
    assert webhook.texts == []


def seconds_of_a_whole_run(this: Round) -> float:
    started = time.monotonic()
    this.assert_another_run_does_the_rest()
    return time.monotonic() - started


def stop_at_random(this: Round, longest_seconds: float) -> bool:
    """Tells a run to stop; False where it had done its work before."""
    number = random.choice([signal.SIGINT, signal.SIGTERM])
    with this.started() as process:
        time.sleep(random.uniform(0, longest_seconds))
        if process.poll() is not None:
            return False
        process.send_signal(number)
        told = time.monotonic()
        shown, said = process.communicate(timeout=WITHIN_SECONDS + 20)
    assert time.monotonic() - told < WITHIN_SECONDS
    outcomes = {json.loads(line)["outcome"] for line in shown.splitlines()}
    if "done" in outcomes:
        assert (outcomes, this.pipeline.count()) == ({"purged", "done"}, 0), shown
        return False
    # Before the command's handler stands, the interpreter ends as it likes: with 1 in the midst of its own start.
    if process.returncode < 0 or ("KeyboardInterrupt" in said and "in _handle" not in said):
        assert not outcomes, shown
        return True
    assert process.returncode == 128 + number, shown + said
    assert outcomes <= {"purged", "stopped"}, shown
    assert said.replace(MESSAGE, "").strip() == "", said
    return True
