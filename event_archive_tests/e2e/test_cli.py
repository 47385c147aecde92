"""``event-archive`` as people and CronJobs run it: a process, two variables, standard output, an exit code."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import psutil
import psycopg
import pytest

from event_archive.domain.dataset import TableName
from event_archive.domain.days import ONE_DAY, Retention, now_utc
from event_archive_tests.fixtures.installation import (
    ASSETS,
    REPOSITORY,
    Commands,
    Installation,
    clean_environment,
    run_cli,
)
from event_archive_tests.fixtures.pipeline import DAY, NO_CSV

DAYS = [DAY, DAY + ONE_DAY, DAY + 5 * ONE_DAY]
KEYS = [day.isoformat() for day in DAYS]
TODAY = datetime.now(UTC).date()
YOUNG = TODAY - 10 * ONE_DAY


def files(installation: Installation) -> dict[str, tuple[str, bytes]]:
    """Each file's ETag and bytes."""
    found = {}
    for file in installation.lake.list(installation.dataset.folder):
        if installation.dataset.day_of(file.path) is None:
            continue
        with installation.lake.read(file) as blocks:
            found[file.path.rpartition("/")[2]] = (file.etag, b"".join(blocks))
    return found


def test_two_variables_are_enough_to_archive_and_purge_every_aged_day(azure_installation: Installation):
    for rows, day in enumerate(DAYS, start=3):
        azure_installation.add(rows, day=day)
    azure_installation.add(6, day=YOUNG)
    before = azure_installation.everything("created_at < now() - interval '1 year'")
    young = azure_installation.everything("created_at >= now() - interval '1 year'")
    assert (len(before), len(young)) == (12, 6)

    first = azure_installation.cli("run")
    assert (first.code, first.stderr) == (0, "")
    assert azure_installation.archived(*DAYS) == before
    assert azure_installation.everything() == young
    written = files(azure_installation)
    assert set(written) == {f"events_{key}.csv" for key in KEYS}
    for rows, key in enumerate(KEYS, start=3):
        line = first.days[key]
        assert line["seconds"] > 0
        assert {name: line[name] for name in ("rows", "deleted", "left", "bytes", "outcome", "level")} == {
            "rows": rows,
            "deleted": rows,
            "left": 0,
            "bytes": len(written[f"events_{key}.csv"][1]),
            "outcome": "purged",
            "level": "info",
        }
    assert len(first.lines) == 4
    assert first.end.pop("seconds") > 0
    totals = {"days": 3, "failed": 0, "rows": 12, "rows_appended": 12, "deleted": 12, "left": 0}
    assert {name: first.end[name] for name in totals} == totals
    assert first.end["bytes"] == sum(len(content) for _, content in written.values())

    second = azure_installation.cli("run")
    assert (second.code, second.stderr) == (0, "")
    assert [line["message"] for line in second.lines] == ["Nothing to do: no aged day has rows."]
    named = azure_installation.cli("run", KEYS[0])
    assert [named.days[KEYS[0]][name] for name in ("rows", "deleted")] == [3, 0]
    assert files(azure_installation) == written
    assert azure_installation.everything() == young


def test_a_dry_run_keeps_every_row_and_the_real_one_writes_none_twice(azure_installation: Installation):
    """And between the two a row goes from A to B and back to A, and late rows arrive."""
    azure_installation.add(3)
    rows = azure_installation.everything()
    dry = azure_installation.cli("run", DRY_RUN="true")
    line = dry.days[KEYS[0]]
    assert (dry.code, line["outcome"], line["proven"], line["left"], dry.end["deleted"]) == (0, "dry run", 3, 0, 0)
    assert (azure_installation.everything(), azure_installation.archived(DAY)) == (rows, rows)

    azure_installation.database.execute("UPDATE \"Event\" SET event_type = 'B' WHERE id = 2")
    assert azure_installation.cli("run", "--dry-run").end["rows_appended"] == 1
    azure_installation.database.execute('UPDATE "Event" SET event_type = %s WHERE id = 2', rows[1][2])
    azure_installation.add(2, prefix="late")
    late = azure_installation.everything("event_id LIKE 'late%'")

    real = azure_installation.cli("run")
    assert (real.code, real.end["rows_appended"], real.end["deleted"], real.end["left"]) == (0, 3, 5, 0)
    archived = azure_installation.archived(DAY)
    assert [row[2] for row in archived if row[0] == "2"] == [rows[1][2], "B", rows[1][2]]
    assert archived[:3] == rows
    assert sorted(map(str, archived[4:])) == sorted(map(str, [rows[1], *late]))
    assert azure_installation.count() == 0


def test_late_rows_are_appended_and_purged_by_the_next_run(installation: Installation, command: Commands):
    installation.add(3)
    before = installation.everything()
    assert command("run").code == 0
    installation.add(2, prefix="late")
    late = installation.everything()
    assert command("run").days[KEYS[0]]["deleted"] == 2
    assert installation.archived(DAY) == before + late


def test_a_terminal_gets_a_line_a_day_and_a_total(local_installation: Installation, command: Commands):
    for day in DAYS[:2]:
        local_installation.add(1500, day=day)
    done = command("run", LOG_FORMAT="console")
    assert (done.code, done.stderr) == (0, "")
    header, *days, total = done.stdout.splitlines()
    assert header.split() == ["day", "rows", "appended", "size", "deleted", "left", "seconds"]
    assert [line.split()[:3] + line.split()[5:7] for line in days] == [
        [k, "1,500", "1,500", "1,500", "0"] for k in KEYS[:2]
    ]
    assert total.split()[:3] == ["total", "3,000", "3,000"]
    assert total.endswith("2 days")


def test_a_held_day_is_left_to_do_until_it_is_archived(local_installation: Installation, command: Commands):
    local_installation.add(3)
    command("hold", KEYS[0], "--reason", "audit")
    planned = command("run", "--plan").end
    assert command("days").end["estimated_bytes"] == planned["bytes"] > 0
    command("run")
    assert command("days").end["estimated_bytes"] == 0


def test_days_lists_what_is_in_the_table_and_what_is_in_the_lake(azure_installation: Installation, command: Commands):
    azure_installation.add(3)
    command("run")
    azure_installation.add(2, prefix="late")
    azure_installation.add(4, day=DAYS[1])
    azure_installation.put(b"id\n1\n", day=DAYS[2])
    azure_installation.add(1, day=YOUNG)
    done = command("days")
    assert (done.code, done.stderr) == (0, "")
    size = len(azure_installation.content())
    *days, totals = done.lines
    assert days == [
        {"day": KEYS[0], "outcome": "archived", "rows": 2, "lake_rows": 3, "lake_bytes": size},
        {"day": KEYS[1], "outcome": "aged", "rows": 4, "lake_rows": None, "lake_bytes": None},
        {"day": KEYS[2], "outcome": "no manifest", "rows": 0, "lake_rows": None, "lake_bytes": 5},
    ]
    assert 0.5 * size * 6 / 3 < totals.pop("estimated_bytes") < 2 * size * 6 / 3
    assert totals.pop("estimated_seconds") >= 0
    assert totals == {"outcome": "done", "days": 3, "rows": 6, "lake_rows": 3, "lake_bytes": size + 5}
    assert set(command("days", "--from", KEYS[1], "--to", KEYS[1]).days) == {KEYS[1]}
    shown = command("days", LOG_FORMAT="console").stdout.splitlines()
    assert [line.split()[:3] for line in shown[1:4]] == [[KEYS[0], "2", "3"], [KEYS[1], "4", "-"], [KEYS[2], "0", "?"]]
    assert [line.split()[-1] for line in shown[1:4]] == ["archived", "aged", "manifest"]
    assert shown[4].split()[:3] == ["total", "6", "3"]
    assert shown[5].startswith("What is left to do will take about 1 s, and ")
    assert 'public."Event": days up to' in shown[6]
    # Of a day that is not aged only the file is known.
    younger = command("days", EVENT_RETENTION_PERIOD="30 years")
    assert [(day, line["outcome"], line["rows"]) for day, line in younger.days.items()] == [
        (KEYS[0], "young", None),
        (KEYS[2], "young", None),
    ]


def test_days_and_ranges_can_be_named(local_installation: Installation, command: Commands):
    for day in DAYS:
        local_installation.add(1, day=day)
    assert set(command("run", "--from", KEYS[1], "--to", KEYS[1]).days) == {KEYS[1]}
    assert set(command("run", KEYS[2], KEYS[2], KEYS[1]).days) == {KEYS[2], KEYS[1]}
    assert local_installation.count() == 1
    done = command("run", "--from", KEYS[1])
    assert (done.code, done.end["message"]) == (0, "Nothing to do: no aged day in this range has rows.")
    assert set(command("run", "--to", KEYS[1]).days) == {KEYS[0]}


NEXT_YEAR = (TODAY + 400 * ONE_DAY).isoformat()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", YOUNG.isoformat()], f"{YOUNG} is not aged. With a retention of 1 year it comes of age on"),
        (["run", KEYS[0], NEXT_YEAR], f"{NEXT_YEAR} is not aged"),
        (["run", "9999-12-31"], "9999-12-31 is not aged. With a retention of 1 year it does not come of age"),
        (["run", "2014-12-31"], "2014-12-31 lies before the first day that is archived, 2015-01-01"),
        (["run", "yesterday"], "'yesterday' is not a day; write it as YYYY-MM-DD, like 2024-03-01"),
        (["run", "2023-02-29"], "'2023-02-29' is not a day"),
        (["run", "20240301"], "'20240301' is not a day"),
        (["run", "--from", "x"], "'x' is not a day"),
        (["run", "--to", NEXT_YEAR], f"{NEXT_YEAR} is not aged"),
        (["run", "--from", KEYS[1], "--to", KEYS[0]], f"--from {KEYS[1]} lies after --to {KEYS[0]}"),
        (["run", KEYS[0], "--from", KEYS[0]], "Name days, or give a range"),
        (["run", "--no-such-option"], "No such option"),
        (["no-such-command"], "No such command"),
        (["days", "--from", "x"], "'x' is not a day"),
        (["ingest", "logs", "--file", "/dev/null"], "--file must name a file"),
        (["demo", "--port", "3001"], "--port is the UI's: give --ui, too"),
        (["ingest", "stream", "--status", "--drain"], "--status and --drain exclude one another"),
        (["rejected", "--replay", "--limit", "1"], "--limit is for listing alone"),
        (["rejected", "--explain", "1", "--limit", "1"], "--limit is for listing alone"),
        (["rejected", "--limit", "99999999999999999999"], "99999999999999999999 is not in the range"),
        (["rejected", "--explain", "99999999999999999999"], "99999999999999999999 is not in the range"),
        (["rejected", "--explain", "1", "--source", "api"], "--explain and --source exclude one another"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_exits_with_2_and_does_nothing(
    local_installation: Installation, command: Commands, arguments: list[str], words: str
):
    local_installation.add(1)
    local_installation.add(1, day=YOUNG)
    done = command(*arguments)
    assert done.code == 2
    assert words in done.error
    assert words in done.stderr
    assert local_installation.count() == 2
    assert not files(local_installation)


def test_the_help_lists_commands_as_they_are_needed_each_in_a_whole_sentence(command: Commands):
    shown = [command(*group, "--help").stdout.partition("Commands:\n")[2] for group in ((), ("ingest",))]
    listed = [line.split(maxsplit=1) for text in shown for line in text.splitlines()]
    assert [name for name, _ in listed][:4] == ["doctor", "run", "days", "verify"]
    assert [words for _, words in listed if not words.endswith(".") or words.endswith("...")] == []


@pytest.mark.parametrize("group", [(), ("ingest",)])
def test_where_no_command_is_named_the_json_line_is_a_sentence_not_the_help(command: Commands, group: tuple[str, ...]):
    done = command(*group)
    assert (done.code, [line["error"] for line in done.lines]) == (2, ["No command was named; --help lists them."])
    assert "Commands:" in done.stderr


def test_help_and_version_need_no_configuration(command: Commands):
    assert "Exit" not in command("--help").stderr
    done = command("run", "--help")
    assert (done.code, done.stderr) == (0, "")
    assert "--dry-run" in done.stdout


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


@pytest.mark.parametrize("foreign", [False, True])
def test_another_run_that_holds_a_day_is_no_failure(local_installation: Installation, command: Commands, foreign: bool):
    for day in DAYS[:2]:
        local_installation.add(2, day=day)
    if foreign:
        local_installation.put(b"id,event_id,event_type,created_at,processed_at,payload\n")
    with psycopg.connect(local_installation.database.dsn) as other:
        lock = f'event_archive public."Event" {DAY}'
        other.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (lock,))
        done = command("run")
        shown = command("run", KEYS[0], LOG_FORMAT="console")
    assert done.code == shown.code == 0
    assert [(done.days[key]["outcome"], done.days[key]["left"]) for key in KEYS[:2]] == [("locked", 2), ("purged", 0)]
    assert "another command is working on this day" in shown.stdout
    assert local_installation.count() == 2
    assert command("run").end["deleted"] == 2


def test_a_reason_is_shown_to_the_letter(local_installation: Installation, command: Commands):
    for day in DAYS:
        local_installation.add(1, day=day)
    reason = "[case 17] see [/legal/hold] :lock:"
    assert command("hold", KEYS[0], "--reason", reason).code == 0
    done = command("run", LOG_FORMAT="console")
    assert (done.code, done.stderr) == (0, "")
    assert f"held, not purged: {reason}" in done.stdout
    assert local_installation.count() == 1


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
    assert done.end["message"] == f"The run's budget of 0:00:03 is used up; the next run goes on with {KEYS[1]}."
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


@pytest.mark.parametrize(
    ("variable", "table"),
    [
        ('"we ird"."Ta""ble"', TableName("we ird", 'Ta"ble')),
        ('we ird.Ta"ble', TableName("we ird", 'Ta"ble')),
        ("100% {x}.e%s{0}", TableName("100% {x}", "e%s{0}")),
        ("público.Événements ☃", TableName("público", "Événements ☃")),
        ("user.select", TableName("user", "select")),
        ('public."a.b"', TableName("public", "a.b")),
        ('"; DROP TABLE "Event"; --', TableName("public", '"; DROP TABLE "Event"; --')),
    ],
)
def test_a_table_of_any_name_is_archived(
    local_installation: Installation, command: Commands, variable: str, table: TableName
):
    local_installation.add(1, day=YOUNG)
    odd = Installation(
        **(vars(local_installation) | {"dataset": local_installation.of(table=table, file_prefix=table.name).dataset})
    )
    schema, name = (part.replace('"', '""') for part in (table.schema, table.name))
    odd.database.execute(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
    odd.database.execute(
        f"""CREATE TABLE "{schema}"."{name}" (LIKE "Event" INCLUDING ALL);
        INSERT INTO "{schema}"."{name}" (event_id, event_type, created_at, payload)
        VALUES ('a', 't', '{KEYS[0]}', '{{}}'), ('b', 't', '{KEYS[0]}', '[]')"""
    )
    done = command("run", EVENT_TABLE=variable)
    assert (done.code, done.stderr, done.end["deleted"]) == (0, "", 2)
    assert [row[1] for row in odd.archived(DAY)] == ["a", "b"]
    assert command("hold", KEYS[0], "--reason", "100 % sure", EVENT_TABLE=variable).code == 0
    assert command("holds", EVENT_TABLE=variable).lines[0]["reason"] == "100 % sure"
    assert command("run", KEYS[0], EVENT_TABLE=variable).days[KEYS[0]]["outcome"] == "held"
    assert command("release", KEYS[0], EVENT_TABLE=variable).code == 0
    assert odd.database.execute(f'SELECT FROM "{schema}"."{name}"') == []
    assert local_installation.count() == 1


def test_a_run_of_another_table_leaves_nothing_in_the_owners_folder(
    local_installation: Installation, command: Commands
):
    local_installation.add(2)
    assert command("run", "--dry-run").code == 0
    local_installation.database.execute('CREATE TABLE "Event2" (LIKE "Event" INCLUDING ALL)')
    local_installation.database.execute('INSERT INTO "Event2" SELECT * FROM "Event"')
    folder = local_installation.dataset.folder
    before = [(file.path, file.etag) for file in local_installation.lake.list(folder)]
    stranger = {"EVENT_TABLE": 'public."Event2"', "EVENT_FILE_PREFIX": "events"}
    for arguments in (["run"], ["run", KEYS[0]], ["run", "--plan"], ["run", "--dry-run"], ["adopt", KEYS[0]]):
        done = command(*arguments, **stranger)
        assert (done.code, "belongs to" in done.said) == (2, True), done.said
    assert [(file.path, file.etag) for file in local_installation.lake.list(folder)] == before
    assert "belongs to" in command("days", **stranger).lines[-1]["error"]
    assert command("doctor", "--json", **stranger).code == 1
    wrong = command("adopt", "--source", EVENT_TIME_COLUMN="create_at", **stranger)
    assert (wrong.code, "has no column" in wrong.said) == (2, True)
    assert command("adopt", "--source", **stranger).lines == [
        {
            "outcome": "adopted",
            "files": f"{folder}/events_*.csv",
            "source": command("verify", **stranger).lines[0]["source"].replace('"Event"', '"Event2"'),
            "former": [command("verify", **stranger).lines[0]["source"]],
        }
    ]
    assert command("run", **stranger).end["deleted"] == 2


def test_other_names_and_another_retention(local_installation: Installation, command: Commands):
    day = TODAY - 40 * ONE_DAY
    local_installation.add(1, day=day)
    local_installation.database.execute('ALTER TABLE "Event" RENAME created_at TO "When ""it"" was"')
    local_installation.variables |= {
        "EVENT_TIME_COLUMN": 'When "it" was',
        "EVENT_FILE_PREFIX": "journal",
        "ARCHIVE_FOLDER": "/a/b c/",
        "EVENT_RETENTION_PERIOD": "30 days",
        "ARCHIVE_START_DATE": "2020-01-01",
    }
    done = command("run", **local_installation.variables)
    assert (done.code, done.end["deleted"]) == (0, 1)
    files = [file.path for file in local_installation.lake.list("a/b c")]
    assert files == ["a/b c/_journal.source.json", f"a/b c/journal_{day}.csv"]


# The demo's own numbers would take half a minute.
SMALL_DEMO = """
from event_archive.demo import samples
samples.AGED_DAYS, samples.EVENTS_PER_AGED_DAY, samples.YOUNG_DAYS, samples.EVENTS_PER_YOUNG_DAY = 3, 300, 1, 50
from event_archive import cli
cli.main()
"""


@pytest.mark.slow
def test_the_demo_shows_it_all_and_the_second_time_that_only_a_held_day_is_left():
    # Not in tmp_path: each pytest that starts closes its parent to others, PostgreSQL's own user among them.
    with tempfile.TemporaryDirectory(prefix="ea-demo") as folder:
        _demo_twice(Path(folder))


def _demo_twice(tmp_path: Path):
    def demo() -> str:
        # Whatever else is configured is not for the demo.
        environment = clean_environment(EVENT_TABLE="public.other", AZURE_STORAGE_ACCOUNT_URL="http://127.0.0.1:9/x")
        done = subprocess.run(
            [sys.executable, "-c", SMALL_DEMO, "demo"],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    first = demo()
    events, page_views = (
        [(youngest - timedelta(n)).isoformat() for n in (2, 1, 0)]
        for youngest in (Retention.parse(text).last_aged_day(now_utc()) for text in ("1 year", "90 days"))
    )
    for table in ('public."Event"', "public.page_views"):
        assert f"Filling table {table}: 600 events of 3 aged days, 50 of 1 young ones" in first
    lake = tmp_path / ".demo" / "lake" / "titan-pulse-event-archive"
    files = re.findall(r"^(\S+\.csv) +(\d+) .* [0-9a-f]{64}$", first, re.MULTILINE)
    assert files == [
        *((f"events_{day}.csv", rows) for day, rows in zip(events, ("301", "120", "180"), strict=True)),
        *((f"page_views_{day}.csv", rows) for day, rows in zip(page_views, ("300", "120", "180"), strict=True)),
        (f"api_events_{page_views[2]}.csv", "150"),
        (f"logs_{page_views[2]}.csv", "150"),
    ]
    assert all((lake / name).is_file() for name, _ in files)
    arrived = {"api": "300 events", "logs": "300 entries", "stream --drain": "450 entries"}
    for source, records in arrived.items():
        told = first.partition(f"$ event-archive ingest {source}\n")[2].partition("\n$ ")[0]
        assert re.search(rf"^ingestion complete: .*{records} in .*: {records.split()[0]} new$", told, re.MULTILINE), (
            told
        )
    assert re.search(rf"^events  {events[0]}  restored  .restored 301, ", first, re.MULTILINE)
    nights = first.split("$ event-archive run\n")
    assert f"{events[1]} held: a customer asks about it" in nights[0]
    assert [line.split()[:4] for line in nights[2].splitlines()[1:3]] == [
        ["events", events[0], "301", "1"],
        ["events", events[1], "120", "0"],
    ]
    assert 'public."Event" holds 170 rows. Aged days that still have rows: 1 (held: 1).' in first
    left = {"page_views": 50, "ingested_events": 150, "logs": 150, "positions": 450}
    for table, rows in left.items():
        assert f"public.{table} holds {rows} rows. Aged days that still have rows: 0 (held: 0)." in first
    assert f"The CSVs: {lake}/" in first
    assert "make ui" in first
    (heading,) = re.findall('README.md, "([^"]*)"', first)
    assert f"## {heading}\n" in (REPOSITORY / "README.md").read_text()
    second = demo()
    assert "Filling" not in second
    assert "late" not in second
    assert second.count("held, not purged") == 1
    assert second.partition("The lake")[2] == first.partition("The lake")[2]
    assert not processes_about(tmp_path / ".demo")
    home = os.fspath(tmp_path / ".demo" / "dagster")
    with dg.DagsterInstance.from_config(home) as instance:
        assert instance.get_materialized_partitions(dg.AssetKey("archive_csv")) == set(events)
        assert instance.get_materialized_partitions(dg.AssetKey(["page_views", "purged_events"])) == set(page_views)


@pytest.mark.slow
def test_the_demo_s_api_has_the_same_address_each_time_so_that_no_purged_event_arrives_anew(tmp_path: Path):
    ask = (
        "import os, pathlib, datetime\n"
        "from event_archive.demo.feeds import feeds\n"
        "for first in (True, False):\n"
        "    with feeds(pathlib.Path.cwd(), datetime.date(2024, 3, 1), first=first):\n"
        "        print(os.environ['API_BASE_URL'])\n"
    )
    run = [sys.executable, "-c", ask]
    done = [subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=False) for _ in range(2)]
    addresses = [address for of in done for address in of.stdout.split()]
    assert (len(addresses), len(set(addresses))) == (4, 1), done
    with socket.create_server(("127.0.0.1", int((tmp_path / "api-port").read_text()))):
        taken = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "where the demo's API is, cannot be had (Address already in use)" in taken.stderr


def processes_about(folder: Path) -> list[list[str]]:
    """The command lines of processes that name a folder or work in it."""
    found = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        told = [*(process.info["cmdline"] or []), process.info["cwd"] or ""]
        if any(str(folder) in word for word in told):
            found.append(told)
    return found


def test_the_entry_point_is_installed_under_its_name():
    done = run_cli("--help")
    assert (done.code, done.stderr) == (0, "")
    assert {"run", "days", "demo"} <= {line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")}
