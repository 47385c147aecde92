"""Several datasets by the command line: each its own, none in another's way."""

import json
from pathlib import Path

import pytest

from event_archive_tests.fixtures.datasets import DAYS, FILE, NAMES, ROWS_OF, Datasets, lines_of
from event_archive_tests.fixtures.installation import Commands
from event_archive_tests.fixtures.pipeline import NO_CSV
from event_archive_tests.fixtures.webhook import Webhook

pytestmark = pytest.mark.slow

NOTHING_LEFT = dict.fromkeys(NAMES, 0)


def test_one_process_does_a_day_of_each_in_turn(four: Datasets):
    done = four.cli("run")
    assert done.code == 0, done.said
    assert lines_of(done) == [(name, day, "purged") for day in DAYS for name in NAMES]
    assert done.end["outcome"] == "done"
    assert (done.end["days"], done.end["deleted"]) == (8, sum(ROWS_OF.values()))
    assert four.left() == NOTHING_LEFT
    assert {name: len(four.records(name)) for name in NAMES} == ROWS_OF
    again = four.cli("run")
    assert (again.code, lines_of(again)) == (0, [])


def test_one_dataset_alone_is_done_where_it_is_named(four: Datasets, command: Commands):
    done = command("run", "--dataset", "lines")
    assert (done.code, {name for name, _, _ in lines_of(done)}) == (0, {"lines"})
    assert four.left() == ROWS_OF | {"lines": 0}
    both = command("run", "--dataset", "events", "--dataset", "readings", DAYS[0])
    assert lines_of(both) == [("events", DAYS[0], "purged"), ("readings", DAYS[0], "purged")]
    unknown = command("run", "--dataset", "line")
    assert unknown.code == 2
    assert "There is no dataset line; did you mean lines?" in unknown.error


def test_a_budget_ends_between_two_datasets(four: Datasets):
    done = four.cli("run", RUN_BUDGET="1 second", EXPORT_RATE_LIMIT="1 kB")
    assert done.code == 0
    left = 8 - len(lines_of(done))
    assert left > 1
    assert f"The run's budget of 0:00:01 is used up; {left} of its days were not tried." in done.end["message"]


def test_a_budget_of_one_day_serves_each_dataset_in_its_turn(four: Datasets, command: Commands):
    """One of them fails every night, and is not first in the next for that."""
    four.pipeline("events").put(NO_CSV)
    served = [
        {name for name, _, _ in lines_of(command("run", RUN_BUDGET="1 second", EXPORT_RATE_LIMIT="100 B"))}
        for _ in NAMES
    ]
    assert set.union(*served) == set(NAMES)


@pytest.mark.parametrize(
    ("variable", "value"),
    [("PG_CONNECTION_STRING_ELSEWHERE", "host=/nowhere"), ("PG_CONNECTION_STRING_ELSEWHERE", "")],
)
def test_a_dataset_that_cannot_begin_stops_no_other(
    four: Datasets, webhook: Webhook, command: Commands, variable: str, value: str
):
    given = {variable: value, "ALERT_WEBHOOK_URL": webhook.url}
    done = command("run", **given)
    assert done.code == 1
    (failed,) = [line for line in done.lines if line["outcome"] == "failed" and line.get("dataset")]
    assert failed["dataset"] == "elsewhere"
    assert failed["error"]
    assert {name for name, _, _ in lines_of(done)} == set(NAMES) - {"elsewhere"}
    assert four.left() == NOTHING_LEFT | {"elsewhere": ROWS_OF["elsewhere"]}
    assert done.end["outcome"] == "failed"
    assert "Datasets that failed: elsewhere." in done.end["error"]
    (text,) = webhook.texts
    assert 'elsewhere (public."Event"): failed' in text
    if value:
        assert f"Check host and port in {variable}" in failed["error"]
    for name in ("days", "holds"):
        other = command(name, **given)
        assert other.code == 1, other.said
        assert [line["dataset"] for line in other.lines if line["outcome"] == "failed"] == ["elsewhere"]


@pytest.mark.parametrize("value", ["host=/nowhere", ""])
def test_a_dataset_that_comes_after_one_whose_database_is_away_says_so_and_stops_no_other(
    four: Datasets, webhook: Webhook, command: Commands, value: str
):
    four.write(FILE.replace("app.lines, time_column: at", "app.lines, time_column: at, after: [elsewhere]"))
    done = command("run", PG_CONNECTION_STRING_ELSEWHERE=value, ALERT_WEBHOOK_URL=webhook.url)
    assert done.code == 1
    assert {name for name, _, _ in lines_of(done)} == {"events", "readings"}
    failed = {line["dataset"]: line["error"] for line in done.lines if line["outcome"] == "failed" and "day" not in line
              and "dataset" in line}  # fmt: skip
    assert set(failed) == {"elsewhere", "lines"}
    assert all("PG_CONNECTION_STRING_ELSEWHERE" in error for error in failed.values())
    assert "Datasets that failed: lines, elsewhere." in done.end["error"]
    assert "wait" not in done.end["error"]
    assert len(webhook.texts) == 2
    assert four.left() == NOTHING_LEFT | {name: ROWS_OF[name] for name in failed}


def test_where_no_day_is_left_but_a_database_is_away_that_is_not_told_as_nothing_to_do(
    four: Datasets, command: Commands
):
    away = {"PG_CONNECTION_STRING_ELSEWHERE": "host=/nowhere"}
    assert command("run", **away).code == 1
    done = command("run", **away)
    assert (done.code, done.end["error"]) == (1, "Datasets that failed: elsewhere.")
    assert "Nothing to do" not in command("run", LOG_FORMAT="console", **away).stdout


def test_a_dataset_without_files_fails_no_verification_but_all_of_them_do(four: Datasets, command: Commands):
    """As in a folder that is not the right one."""
    none = command("verify")
    assert none.code == 1
    assert "No dataset has such a file." in none.end["error"]
    assert command("run", "--dataset", "events").code == 0
    assert command("verify").code == 0


def test_a_table_that_is_not_there_stops_no_other_dataset(four: Datasets, command: Commands):
    four.write(FILE.replace("app.lines", "app.absent"))
    done = command("run")
    assert done.code == 1
    assert {name for name, _, _ in lines_of(done)} == set(NAMES) - {"lines"}


def test_a_service_that_is_away_is_no_wrong_setting_beside_a_table_that_is_not_there(four: Datasets, command: Commands):
    four.write(FILE.replace("app.lines", "app.absent"))
    for arguments in (["run"], ["run", "--plan"], ["days"], ["holds"]):
        both = ["--dataset", "lines", "--dataset", "elsewhere"]
        assert command(*arguments, *both, PG_CONNECTION_STRING_ELSEWHERE="host=/nowhere").code == 1
        assert command(*arguments, *both, PG_CONNECTION_STRING_ELSEWHERE="").code == 2


def test_every_dataset_is_wrong_where_the_lake_is_not_named(four: Datasets, command: Commands):
    done = command("run", ARCHIVE_LOCAL_PATH="")
    assert done.code == 2
    assert four.left() == ROWS_OF


def test_a_mistake_in_the_file_does_nothing(four: Datasets, command: Commands):
    four.write(FILE.replace("retention: 90 days", "retension: 90 days"))
    for arguments in (["run"], ["days"], ["verify"], ["hold", DAYS[0], "--reason", "x"], ["restore", DAYS[0]]):
        refused = command(*arguments)
        assert (refused.code, four.left()) == (2, ROWS_OF)
        assert "readings.retension is no key of a dataset; did you mean retention?" in refused.error
    doctor = command("doctor")
    assert doctor.code == 2
    assert "readings.retension is no key of a dataset" in doctor.said


def test_what_changes_one_dataset_needs_its_name(four: Datasets, command: Commands):
    for arguments in (
        ["hold", DAYS[0], "--reason", "audit"],
        ["release", DAYS[0]],
        ["restore", DAYS[0]],
        ["adopt", DAYS[0]],
        ["adopt", "--source"],
    ):
        refused = command(*arguments)
        assert refused.code == 2
        assert "There are several datasets: name one with --dataset" in refused.said
    held = command("hold", DAYS[0], "--reason", "audit", "--dataset", "lines")
    assert (held.code, held.end["dataset"]) == (0, "lines")
    done = command("run")
    assert [outcome for name, day, outcome in lines_of(done) if (name, day) == ("lines", DAYS[0])] == ["held"]
    assert four.left() == NOTHING_LEFT | {"lines": 5}, "the same day of the others is not held"
    assert [(line["dataset"], line["reason"]) for line in command("holds").lines] == [("lines", "audit")]
    assert command("release", DAYS[0], "--dataset", "lines").end["outcome"] == "released"
    assert command("run").code == 0
    back = command("restore", DAYS[0], "--dataset", "lines", "--in-place")
    assert (back.code, back.end["restored"]) == (0, 5)
    assert four.left() == NOTHING_LEFT | {"lines": 5}


def test_the_commands_that_look_tell_of_each_dataset(four: Datasets, command: Commands):
    four.cli("run", "--dataset", "events")
    days = command("days")
    assert days.code == 0
    states = {(line["dataset"], line["day"]): line["outcome"] for line in days.lines if "day" in line}
    assert states == {(name, day): "purged" if name == "events" else "aged" for name in NAMES for day in DAYS}
    planned = command("run", "--plan")
    assert {(line["dataset"], line["outcome"]) for line in planned.lines} == {(name, "planned") for name in NAMES}
    verified = command("verify")
    assert (verified.code, [line["dataset"] for line in verified.lines if "day" in line]) == (0, ["events", "events"])
    doctor = json.loads(command("doctor", "--json").stdout)
    assert doctor["good"], doctor
    tables = {check["dataset"]: check["status"] for check in doctor["checks"] if check["name"] == "table"}
    assert tables == dict.fromkeys(NAMES, "good")
    four.write(FILE.replace("PG_CONNECTION_STRING_ELSEWHERE", "PG_CONNECTION_STRING_UNSET"))
    doctor = json.loads(command("doctor", "--json").stdout)
    assert [check["dataset"] for check in doctor["checks"] if check["status"] == "bad"] == ["elsewhere"]
    # Dagster is nobody's own, and looked at once, whatever is wrong with a dataset.
    (definitions,) = [check for check in doctor["checks"] if check["name"] == "dagster_definitions"]
    assert (definitions["status"], "dataset" in definitions) == ("good", False)


def test_a_terminal_shows_the_datasets_beside_the_days(four: Datasets, command: Commands):
    shown = command("run", LOG_FORMAT="console").stdout.splitlines()
    assert shown[0].split()[:2] == ["dataset", "day"]
    assert [tuple(line.split()[:2]) for line in shown[1:9]] == [(name, day) for day in DAYS for name in NAMES]
    assert len({line.index("2024") for line in shown[1:9]}) == 1, "one column"


def test_metrics_are_each_datasets_and_those_of_others_stay(four: Datasets, command: Commands, tmp_path: Path):
    path = tmp_path / "metrics.prom"
    command("run", "--dataset", "events", METRICS_TEXTFILE=str(path))
    command("run", "--dataset", "readings", METRICS_TEXTFILE=str(path))
    command("run", DAYS[0], METRICS_TEXTFILE=str(path))
    deleted = {
        line.split('dataset="')[1].split('"')[0]: float(line.split()[-1])
        for line in path.read_text().splitlines()
        if line.startswith("event_archive_run_deleted_rows{")
    }
    assert deleted == {"events": 0, "lines": 5, "readings": 0, "elsewhere": 4}
    command("run", "--dataset", "lines", METRICS_TEXTFILE=str(path))
    text = path.read_text()
    assert 'event_archive_run_deleted_rows{dataset="elsewhere",table="public.\\"Event\\""} 4.0' in text
    assert 'event_archive_run_deleted_rows{dataset="lines",table="app.lines"} 5.0' in text
