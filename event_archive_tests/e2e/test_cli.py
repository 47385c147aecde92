"""``event-archive`` as people and CronJobs run it: a process, two variables, standard output, an exit code."""

import psycopg
import pytest

from event_archive.domain.dataset import TableName
from event_archive.domain.days import ONE_DAY
from event_archive_tests.fixtures.installation import Commands, Installation
from event_archive_tests.fixtures.pipeline import DAY
from event_archive_tests.fixtures.three_days import DAYS, KEYS, TODAY, YOUNG, files


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
    # Where there is nothing to do, plan and run say so alike.
    without_rows = {**stranger, "EVENT_RETENTION_PERIOD": "50 years"}
    for arguments in (["run"], ["run", "--plan"], ["run", "--dry-run"]):
        assert command(*arguments, **without_rows).code == 0
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
