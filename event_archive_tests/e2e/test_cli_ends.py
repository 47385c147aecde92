"""How a run ends where a day fails, nobody reads, records cannot be kept, or it is told to stop."""

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import dagster as dg
import psycopg
import pytest

from event_archive_tests.fixtures.installation import ASSETS, Commands, Installation, clean_environment
from event_archive_tests.fixtures.pipeline import NO_CSV
from event_archive_tests.fixtures.three_days import DAYS, KEYS


def test_a_day_that_fails_does_not_stop_the_others(local_installation: Installation):
    for day in DAYS:
        local_installation.add(1, day=day)
    local_installation.put(NO_CSV, day=DAYS[1])
    done = local_installation.cli("run")
    assert done.code == 1
    assert [(done.days[key]["outcome"], done.days[key]["level"]) for key in KEYS] == [
        ("purged", "info"),
        ("failed", "error"),
        ("purged", "info"),
    ]
    assert f"day {KEYS[1]} failed: titan-pulse-event-archive/events_{KEYS[1]}.csv" in done.days[KEYS[1]]["message"]
    assert (done.end["days"], done.end["failed"], done.end["deleted"]) == (3, 1, 2)
    assert "Traceback" not in done.said
    assert local_installation.count() == 1


def test_what_a_day_that_fails_was_given_is_counted(local_installation: Installation, command: Commands):
    for rows, day in enumerate(DAYS, start=1):
        local_installation.add(rows, day=day)
    local_installation.database.execute(f"""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'never'; END $$;
        CREATE TRIGGER refuse BEFORE DELETE ON "Event" FOR EACH ROW WHEN (OLD.created_at::date = '{KEYS[1]}')
        EXECUTE FUNCTION refuse()""")
    done = command("run")
    assert (done.code, done.end["failed"], done.end["rows_appended"], done.end["deleted"]) == (1, 1, 6, 4)
    failed = done.days[KEYS[1]]
    size = len(local_installation.content(DAYS[1]))
    assert {name: failed[name] for name in ("outcome", "rows", "deleted", "left", "bytes")} == {
        "outcome": "failed",
        "rows": 2,
        "deleted": 0,
        "left": 2,
        "bytes": size,
    }
    assert done.end["left"] == local_installation.count() == 2
    assert done.end["bytes"] == sum(len(local_installation.content(day)) for day in DAYS)


def in_shell(installation: Installation, script: str, command: str) -> "subprocess.CompletedProcess[str]":
    """Runs a shell's script, whose arguments are a command of the product."""
    return subprocess.run(
        ["/bin/sh", "-c", script, "sh", sys.executable, "-m", "event_archive.cli", command],
        env=clean_environment(**installation.variables),
        capture_output=True,
        text=True,
        check=False,
    )


def test_nobody_who_reads_is_no_reason_to_stop(local_installation: Installation):
    for day in DAYS:
        local_installation.add(2, day=day)
    closed = 'exec 3>&1; ({ LOG_FORMAT=console "$@"; echo $? >&3; } | true) 3>&3'
    for script in (closed, '"$@" >&-; echo $?'):
        done = in_shell(local_installation, script, "run")
        assert (done.stdout, done.stderr) == ("0\n", "")
        assert local_installation.count() == 0
        local_installation.add(1)


def test_output_that_is_lost_is_said(local_installation: Installation):
    local_installation.add(1)
    done = in_shell(local_installation, '"$@" > /dev/full', "days")
    told = "Error: standard output could not be written: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, told)


@pytest.mark.slow
def test_with_dagster_home_the_days_are_reported_to_that_instance(
    local_installation: Installation, instance: dg.DagsterInstance, home: Path
):
    local_installation.add(2)
    done = local_installation.cli("run", DAGSTER_HOME=str(home), VERIFY_NIGHTLY="true")
    assert (done.code, done.stderr) == (0, "")
    assert instance.get_runs() == []
    for asset in ASSETS:
        assert instance.get_materialized_partitions(dg.AssetKey(asset)) == {KEYS[0]}
    # The gate of the asset is satisfied by what was reported.
    local_installation.add(1, prefix="late")
    assert local_installation.materialize(instance, KEYS[0], only=["purged_events"]).success
    assert local_installation.count() == 1
    assert local_installation.materialize(instance, KEYS[0]).success
    assert local_installation.count() == 0


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["opened", "written"])
def test_records_that_cannot_be_kept_are_one_message_and_delete_nothing_unreported(
    local_installation: Installation, home: Path, damage: str
):
    for day in DAYS:
        local_installation.add(2, day=day)
    if damage == "opened":
        (home / "dagster.yaml").write_text("storage: [\n")
    else:
        for database in (home / "history").rglob("*.db"):
            database.write_bytes(b"torn" * 4096)
    done = local_installation.cli("run", DAGSTER_HOME=str(home))
    assert done.code == (2 if damage == "opened" else 1)
    assert "Traceback" not in done.said
    errors = [line["error"] for line in done.lines if "error" in line]
    assert len(errors) == 1
    assert ("dagster.yaml is not right" if damage == "opened" else "Dagster's own records") in errors[0]
    assert local_installation.count() == 6


WAITING = "SELECT pid FROM pg_stat_activity WHERE datname = %s AND wait_event_type = 'Lock' AND query LIKE 'DELETE%%'"


def in_the_middle_of_a_purge(installation: Installation) -> bool:
    """Whether some run waits for a row that somebody else holds."""
    return bool(installation.database.execute(WAITING, installation.database.name))


def test_a_budget_that_is_used_up_stops_in_order(local_installation: Installation, command: Commands):
    for day in DAYS:
        local_installation.add(1, day=day)

    def hold_the_first_day_for_longer_than_the_budget():
        with psycopg.connect(local_installation.database.dsn) as other:
            other.execute('SELECT id FROM "Event" ORDER BY created_at LIMIT 1 FOR UPDATE')
            held.set()
            while not in_the_middle_of_a_purge(local_installation):
                pass
            other.execute("SELECT pg_sleep(3)")

    held = threading.Event()
    holder = threading.Thread(target=hold_the_first_day_for_longer_than_the_budget)
    holder.start()
    held.wait()
    done = command("run", RUN_BUDGET="3 seconds")
    holder.join()
    assert (done.code, done.stderr, set(done.days)) == (0, "", {KEYS[0]})
    assert done.end["message"] == "The run's budget of 0:00:03 is used up; 2 of its days were not tried."
    assert local_installation.count() == 2
    assert command("run", RUN_BUDGET="2 hours").end["days"] == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_told_to_stop_rolls_back_and_says_so(local_installation: Installation, number: signal.Signals):
    for day in DAYS[:2]:
        local_installation.add(2, day=day)
    with psycopg.connect(local_installation.database.dsn) as other:
        other.execute('SELECT id FROM "Event" ORDER BY created_at LIMIT 1 FOR UPDATE')
        with subprocess.Popen(
            [sys.executable, "-m", "event_archive.cli", "run"],
            env=clean_environment(**local_installation.variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                while not in_the_middle_of_a_purge(local_installation):
                    assert process.poll() is None, process.communicate()
                process.send_signal(number)
                shown, said = process.communicate(timeout=14)
            finally:
                process.kill()
        # Nothing goes on behind its back, either.
        assert not in_the_middle_of_a_purge(local_installation)
    assert process.returncode == 128 + number
    assert said.strip() == "Stopped. What was not committed is as it was; run it again to go on."
    (line,) = map(json.loads, shown.splitlines())
    assert {name: line[name] for name in ("outcome", "days", "failed", "deleted")} == {
        "outcome": "stopped",
        "days": 0,
        "failed": 0,
        "deleted": 0,
    }
    assert local_installation.count() == 4
