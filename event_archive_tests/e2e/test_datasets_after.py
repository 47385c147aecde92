"""Several datasets of which one comes after another, or has what another has."""

import json
from datetime import date

import pytest

from event_archive.domain.record import Record
from event_archive.errors import IntegrityError, OtherSourceError
from event_archive.nightly.backlog import Backlog
from event_archive_tests.fixtures.datasets import DAYS, FILE, Datasets, lines_of
from event_archive_tests.fixtures.installation import Commands
from event_archive_tests.fixtures.pipeline import DAY
from event_archive_tests.fixtures.postgres import insert_events

pytestmark = pytest.mark.slow


CHILDREN = """
CREATE TABLE app.details (id int PRIMARY KEY, at timestamptz NOT NULL, line bigint NOT NULL REFERENCES app.lines);
CREATE INDEX ON app.details (at);
INSERT INTO app.details VALUES (1, '2024-03-01', 1000), (2, '2024-03-02', 2000);
"""
AFTER = """
defaults: {retention: 1 year, start: 2024-01-01}
datasets:
  lines: {table: app.lines, time_column: at, after: [details]}
  details: {table: app.details, time_column: at}
"""


def test_a_day_is_purged_after_that_day_of_the_dataset_before_it(four: Datasets, command: Commands):
    four.here.execute(CHILDREN)
    four.write(AFTER)
    done = command("run")
    assert done.code == 0, done.said
    assert lines_of(done) == [
        ("details", DAYS[0], "purged"), ("lines", DAYS[0], "purged"),
        ("details", DAYS[1], "purged"), ("lines", DAYS[1], "purged"),
    ]  # fmt: skip


def test_days_wait_for_days_that_stay(four: Datasets, command: Commands):
    four.here.execute(CHILDREN)
    four.write(AFTER)
    command("hold", DAYS[1], "--reason", "audit", "--dataset", "details")
    planned = {line["dataset"]: line["waiting"] for line in command("run", "--plan").lines if "days" in line}
    assert planned == {"lines": 2, "details": 0}
    done = command("run")
    assert done.code == 0, done.said
    told = command("run", "--plan", LOG_FORMAT="console").stdout
    assert f"1 of these days waits for details (app.details), purged first: there are rows of {DAYS[1]}." in told
    assert {line for line in lines_of(done) if line[0] == "lines"} == {("lines", DAYS[0], "purged")}
    assert "lines (app.lines): 1 day waits for a dataset that is purged first." in done.end["message"]
    # Also where it is asked for by name, or alone.
    alone = command("run", DAYS[1], "--dataset", "lines")
    assert (lines_of(alone), "1 day waits" in alone.end["message"]) == ([], True)


def test_of_two_databases_the_rows_of_one_table_are_kept_apart(four: Datasets, command: Commands):
    """Same table, same keys; the files lie in two folders."""
    command("run")
    events, elsewhere = four.pipeline("events"), four.pipeline("elsewhere")
    for day in map(date.fromisoformat, DAYS):
        assert {row["event_id"].split("-")[0] for row in events.records_of_file(day)} == {"evt"}
        assert {row["event_id"].split("-")[0] for row in elsewhere.records_of_file(day)} == {"other"}


def test_a_dataset_may_not_take_over_the_files_of_another(four: Datasets, command: Commands):
    """The file's mistake, a day later: two names were swapped."""
    command("run")
    insert_events(four.here, DAYS[0], 2, prefix="late")
    four.write(
        "defaults: {retention: 1 year, start: 2024-01-01, folder: lake}\n"
        "datasets: {lines: {table: app.lines, time_column: at, file_prefix: events}}"
    )
    four.here.execute("INSERT INTO app.lines VALUES (77, '2024-03-01', 'x')")
    refused = command("run")
    assert refused.code == 2
    assert 'belongs to public."Event"' in refused.said


def test_what_is_wrong_with_rows_is_told_of_the_dataset_and_not_of_a_table_that_two_have(
    four: Datasets, command: Commands
):
    insert_events(four.there, "1999-01-01", 1, prefix="lost")
    warnings = [
        line["message"] for line in command("run", "--dataset", "elsewhere").lines if line["outcome"] == "warning"
    ]
    assert [words.partition(": 1 row lies")[0] for words in warnings] == ['elsewhere (public."Event")']
    dataset = four.pipeline("elsewhere").dataset
    told = Backlog(1, 2, date(2024, 3, 1), 0).message(dataset)
    assert told.startswith('elsewhere (public."Event"): 1 aged day since')
    assert "that no run fails or is dry, and that no day waits for another dataset" in told


def test_what_a_message_advises_names_the_settings_and_the_commands_of_its_dataset(four: Datasets, command: Commands):
    four.write(FILE.replace("elsewhere: {", "elsewhere: {dry_run: 'true', drop_empty_partitions: 'true', "))
    found = {line.get("check"): line["remedy"] for line in command("doctor", "--dataset", "elsewhere").lines[:-1]}
    assert "Unset DRY_RUN or elsewhere.dry_run" in found["settings"]
    assert "Set elsewhere.purge to delete and elsewhere.drop_empty_partitions to false" in found["partitions"]

    elsewhere = four.pipeline("elsewhere")
    elsewhere.archive()
    elsewhere.records[DAY] = Record("another", 4)
    with pytest.raises(IntegrityError, match=f"event-archive run {DAY} --dataset elsewhere, or"):
        elsewhere.purge()
    with pytest.raises(OtherSourceError, match="event-archive adopt --source --dataset elsewhere"):
        elsewhere.of(time_column="processed_at").archive()
    four.there.execute('DELETE FROM "Event"')
    restored = command("restore", DAYS[0], "--in-place", "--dataset", "elsewhere")
    (warning,) = (json.loads(line)["message"] for line in restored.stderr.splitlines())
    assert warning.endswith(f"event-archive hold {DAYS[0]} --reason … --dataset elsewhere")

    four.there.execute('ALTER TABLE "Event" RENAME TO e')
    for arguments in (["hold", DAYS[0], "--reason", "x"], ["restore", DAYS[0], "--in-place"]):
        assert "elsewhere.table names it" in command(*arguments, "--dataset", "elsewhere").said
    four.there.execute(
        f'ALTER TABLE e RENAME TO "Event"; ALTER DATABASE {four.there.name} SET default_transaction_read_only TO on'
    )
    refused = command("run", "--dataset", "elsewhere")
    assert "PG_CONNECTION_STRING_ELSEWHERE must name the primary" in refused.said
