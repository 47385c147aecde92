"""``verify``, ``restore`` and ``adopt`` as commands, and what ``days`` says of files: what they say, how they end."""

import json
import re
from datetime import date
from pathlib import Path

import pytest

from event_archive.domain.days import ONE_DAY
from event_archive_tests.fixtures.archived import KEY
from event_archive_tests.fixtures.installation import Commands, Installation
from event_archive_tests.fixtures.pipeline import DAY

pytestmark = pytest.mark.slow


def test_files_are_verified(archived: Installation, command: Commands):
    done = command("verify")
    assert (done.code, done.days[KEY]["outcome"], done.days[KEY]["rows"]) == (0, "good", 5)
    assert command("verify", KEY).code == 0
    assert command("verify", "--from", "2024-03-02").code == 1
    missing = command("verify", "2024-03-02")
    assert missing.code == 1
    assert re.fullmatch(
        r"there is no file at (file|https?)://.*/events_2024-03-02\.csv", missing.days["2024-03-02"]["error"]
    )
    assert missing.end["failed"] == 1


def test_files_are_verified_as_a_whole_where_the_table_is_gone(archived: Installation, command: Commands):
    archived.database.execute('DROP TABLE "Event"')
    done = command("verify")
    assert (done.code, done.days[KEY]["outcome"], done.days[KEY]["rows"]) == (0, "good", 5)
    assert "Values are not looked at" in done.stderr


def test_a_damaged_file_is_said_then_adopted(archived: Installation, command: Commands):
    file = archived.lake.stat(archived.dataset.path(DAY))
    assert file is not None
    archived.put(archived.content().replace(b"evt", b"EVT", 1), metadata=dict(file.metadata))
    found = command("verify", LOG_FORMAT="console")
    assert found.code == 1
    assert "bytes were altered in place" in found.stdout
    archived.add(1, prefix="late")
    failed = command("run")
    assert failed.code == 1
    assert "event-archive adopt" in failed.stdout
    assert command("adopt", KEY).code == 0
    assert command("run").code == 0
    assert command("verify").code == 0
    assert archived.count() == 0


def test_a_day_is_restored(archived: Installation, command: Commands):
    done = command("restore", KEY)
    assert (done.code, done.days[KEY]["restored"], done.days[KEY]["table"]) == (0, 5, 'public."Event_restored"')
    month = command("restore", KEY, "--to", "2024-03-31")
    assert (month.days[KEY]["skipped"], month.end["days"], month.end["without_file"]) == (5, 1, 30)
    assert command("verify", "--from", KEY, "--to", "2024-03-31").end["without_file"] == 30
    assert command("restore", KEY, "--table", "copy").days[KEY]["restored"] == 5
    assert command("restore", KEY, "--in-place").days[KEY]["restored"] == 5
    assert archived.count() == 5
    assert command("restore", "2024-03-02").code == 1
    assert command("restore", "2024-04-01", "--to", "2024-04-30").code == 1


def test_what_to_run_for_a_sequence_is_in_what_restore_says(archived: Installation, command: Commands):
    database = archived.database
    role = f"restorer_{database.name}"
    dsn = database.server.dsn(database.name, role)
    database.execute(
        f"""CREATE ROLE {role} LOGIN; GRANT SELECT, INSERT ON "Event" TO {role};
        SELECT setval('"Event_id_seq"', 1, false)"""
    )
    try:
        done = command("restore", KEY, "--in-place", PG_CONNECTION_STRING=dsn)
        shown = command("restore", KEY, "--in-place", PG_CONNECTION_STRING=dsn, LOG_FORMAT="console")
    finally:
        database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
    statement = done.days[KEY]["setval"]
    assert statement.startswith('SELECT pg_catalog.setval(\'"public"."Event_id_seq"\', greatest(')
    assert json.dumps(statement)[1:-1] in done.stderr
    assert statement in shown.stdout
    assert statement in shown.stderr
    database.execute(statement)
    archived.add(1, prefix="after")
    assert archived.count("id = 6") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("restore", KEY, "--table", "Event"),
        ("restore", KEY, "--table", "a.b.c"),
        ("restore", KEY, "--table", "x", "--in-place"),
        ("restore", KEY, "--to", "2024-02-01"),
        ("restore",),
        ("verify", KEY, "--from", KEY),
        ("adopt",),
        ("adopt", KEY, "--from", KEY),
        ("adopt", "--present-key"),
        ("adopt", "--source", "--present-key"),
        ("hold", KEY),
        ("hold", KEY, "--reason", " "),
        ("release", "yesterday"),
    ],
)
def test_wrong_usage_ends_with_2(archived: Installation, command: Commands, arguments: tuple[str, ...]):
    done = command(*arguments)
    assert done.code == 2
    assert "Error: " in done.stderr


def test_one_damaged_sidecar_is_named_and_the_other_days_go_on(local_installation: Installation, command: Commands):
    for day in (DAY, DAY + ONE_DAY):
        local_installation.add(2, day=day)
    assert command("run").code == 0
    (sidecar,) = Path(local_installation.variables["ARCHIVE_LOCAL_PATH"]).rglob(f".*{KEY}.csv.json")
    sidecar.write_text("{")
    done = command("verify")
    assert done.code == 1
    assert [line["outcome"] for line in done.lines] == ["failed", "good", "failed"]
    assert "delete it: the file then counts as another tool's, until it is adopted" in done.days[KEY]["error"]
    assert [line["outcome"] for line in command("days").days.values()] == ["no manifest", "purged"]
    sidecar.unlink()
    assert command("adopt", KEY).code == 0
    assert command("verify").code == 0


def test_days_names_files_that_are_not_ours_and_days_that_failed_without_rows(
    local_installation: Installation, command: Commands, clean: pytest.MonkeyPatch
):
    for day in (DAY, DAY + ONE_DAY):
        local_installation.add(2, day=day)
    assert command("run").code == 0
    file = local_installation.lake.stat(local_installation.dataset.path(DAY))
    assert file is not None
    content = local_installation.content()
    # Damaged where no row of the day is left to be archived: only a verification sees it.
    local_installation.put(content.replace(b"evt", b"EVT", 1), metadata=dict(file.metadata))
    assert command("run", KEY, VERIFY_NIGHTLY="true").code == 1
    assert [line["outcome"] for line in command("days").days.values()] == ["failed", "purged"]
    # The file of another day.
    local_installation.put(content, metadata=dict(file.metadata), day=DAY + ONE_DAY)
    assert [line["outcome"] for line in command("days").days.values()] == ["failed", "not ours"]
    # Another table's, all of them.
    local_installation.database.execute('CREATE TABLE other (LIKE "Event" INCLUDING ALL)')
    done = command("days", EVENT_TABLE="other", EVENT_FILE_PREFIX="events")
    assert [line["outcome"] for line in done.days.values()] == ["not ours", "not ours"]


def test_days_that_were_not_tried_are_counted(local_installation: Installation, command: Commands):
    for day in (DAY, DAY + ONE_DAY):
        local_installation.add(2, day=day)
    assert command("run").code == 0
    gone = "postgresql://archiver@127.0.0.1:9/events"
    done = command("restore", KEY, "--to", (DAY + ONE_DAY).isoformat(), PG_CONNECTION_STRING=gone)
    assert (done.code, done.end["days"], done.end["failed"]) == (1, 1, 1)
    assert done.end["error"] == "1 of 2 days failed. A service is out of reach: 1 day was not tried"


def test_a_range_is_adopted(local_installation: Installation, command: Commands):
    days = [date(2024, 3, n) for n in (1, 2, 5)]
    for day in days:
        local_installation.put(b"id,event_id,event_type,created_at,processed_at,payload\n", day=day)
    done = command("adopt", "--from", KEY, "--to", "2024-03-04")
    assert (done.code, list(done.days)) == (0, ["2024-03-01", "2024-03-02"])
    assert {line["outcome"] for line in done.days.values()} == {"adopted"}
    totals = {"days": 2, "failed": 0, "without_file": 2, "outcome": "done"}
    assert {name: done.end[name] for name in totals} == totals
    assert "without_file" not in command("adopt", "--from", "2024-03-02").end
    assert "without_file" not in command("adopt", KEY).end
    local_installation.put(b"", day=days[1])
    done = command("adopt", "--to", "2024-03-05")
    assert (done.code, done.end["failed"], done.end["days"]) == (1, 1, 3)
    none = command("adopt", "--from", "2024-04-01", "--to", "2024-04-30")
    assert none.code == 1
    assert re.fullmatch(
        r"There is no file events_YYYY-MM-DD\.csv to adopt in (file|https?)://.*/titan-pulse-event-archive, "
        r"of days from 2024-04-01 to 2024-04-30\.",
        none.end["error"],
    )


def test_days_vouches_for_no_row_of_a_file_that_was_cut_off(archived: Installation, command: Commands):
    before, whole = archived.lake.stat(archived.dataset.path(DAY)), archived.content()
    assert before is not None
    assert command("days").days[KEY]["outcome"] == "purged"
    archived.put(whole[:-1], metadata=dict(before.metadata))
    cut = command("days")
    line = cut.days[KEY]
    assert (line["outcome"], line["lake_rows"], line["lake_bytes"]) == ("changed", None, len(whole) - 1)
    assert cut.end["lake_rows"] == sum(of["lake_rows"] or 0 for of in cut.days.values())


def test_a_day_that_is_done_has_nothing_to_do(archived: Installation, command: Commands):
    for arguments in ((KEY,), (KEY, "--dry-run"), ("2024-03-02",)):
        done = command("run", *arguments)
        (line,) = done.days.values()
        assert (done.code, line["outcome"], line["deleted"]) == (0, "nothing to do", 0)
        assert command("run", *arguments, LOG_FORMAT="console").stdout.count("nothing to do") == 1
    archived.add(1, prefix="late")
    assert command("run", KEY).days[KEY]["outcome"] == "purged"


def test_a_link_that_leads_nowhere_is_one_line_and_the_rest_goes_on(
    local_installation: Installation, command: Commands
):
    local_installation.add(2)
    assert command("run").code == 0
    folder = Path(local_installation.variables["ARCHIVE_LOCAL_PATH"]) / local_installation.dataset.folder
    for name in ("events_2024-03-02.csv", "another"):
        (folder / name).symlink_to(name)
    (folder / "events_2024-03-03.csv").symlink_to("gone")
    days = command("days")
    assert days.code == 0
    assert {
        day: (line["outcome"], line["lake_bytes"]) for day, line in days.days.items() if day != KEY
    } == dict.fromkeys(("2024-03-02", "2024-03-03"), ("no manifest", 0))
    for verb in (["verify"], ["restore", KEY, "--to", "2024-03-31"]):
        done = command(*verb)
        assert (done.code, done.end["days"], done.end["failed"]) == (1, 3, 2)
        assert "error" not in done.days[KEY]
        assert "is a link that leads back to itself. Move it away." in done.days["2024-03-02"]["error"]
        assert "is a link to nothing. Move it away." in done.days["2024-03-03"]["error"]
