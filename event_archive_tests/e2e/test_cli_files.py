"""``verify``, ``restore``, ``adopt``, ``hold``, ``release`` and ``holds`` as commands: what they say, how they end."""

import json
import re
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import dagster as dg
import pytest

from event_archive.config.environment import PipelineSettings
from event_archive.defs.build import build_definitions
from event_archive.domain.days import ONE_DAY
from event_archive.errors import UnreachableError
from event_archive.operations.archive import ArchivedDay, archive_day
from event_archive_tests.fixtures.installation import Commands, Installation, failure
from event_archive_tests.fixtures.pipeline import DAY, NO_CSV
from event_archive_tests.fixtures.webhook import Webhook

pytestmark = pytest.mark.slow

KEY = DAY.isoformat()


@pytest.fixture
def archived(installation: Installation, command: Commands) -> Installation:
    """One day, archived and purged by the command line."""
    installation.add(5)
    assert command("run").code == 0
    return installation


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
        ("hold", KEY),
        ("hold", KEY, "--reason", " "),
        ("release", "yesterday"),
    ],
)
def test_wrong_usage_ends_with_2(archived: Installation, command: Commands, arguments: tuple[str, ...]):
    done = command(*arguments)
    assert done.code == 2
    assert "Error: " in done.stderr


def test_a_held_day_is_archived_and_not_purged(installation: Installation, command: Commands):
    installation.add(5)
    assert command("holds").stdout == ""
    (told,) = command("hold", KEY, "--to", "2024-03-31", "--reason", "a lawsuit").lines
    assert told == {"first": KEY, "last": "2024-03-31", "outcome": "held", "reason": "a lawsuit"}
    done = command("run")
    assert (done.code, done.days[KEY]["outcome"], done.days[KEY]["reason"]) == (0, "held", "a lawsuit")
    assert (done.days[KEY]["rows"], installation.count()) == (5, 5)
    assert "held, not purged: a lawsuit" in command("run", LOG_FORMAT="console").stdout
    (line,) = command("holds").lines
    assert (line["first"], line["last"], line["reason"]) == (KEY, "2024-03-31", "a lawsuit")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", line["since"]), "as a log line's timestamp"
    assert command("hold", KEY, "--reason", "a lawsuit", LOG_FORMAT="console").stdout.endswith("held: a lawsuit\n")
    other = command("hold", KEY, "--reason", "restoring")
    assert (other.code, "is held already: a lawsuit" in other.stderr) == (1, True)
    assert "2024-03-31 released." in command("release", "2024-03-31", LOG_FORMAT="console").stdout
    (told,) = command("release", KEY, "--to", "2024-03-31").lines
    assert told == {"first": KEY, "last": "2024-03-31", "outcome": "released", "days": 30, "of_days": 31}
    assert command("run").end["deleted"] == 5


def test_a_hold_that_comes_after_the_purge_says_so(archived: Installation, command: Commands):
    """As one that waited for a purge which was under way: whoever holds a day counts on its rows."""
    late = command("hold", KEY, "--reason", "a lawsuit")
    assert (late.code, [line["outcome"] for line in late.lines]) == (0, ["held"])
    told = "2024-03-01 has no row in the table: what was purged before the hold is in the files alone"
    assert told in late.stderr
    assert (
        "2 days, 2024-03-01 the first, have no row"
        in command("hold", KEY, "--to", "2024-03-02", "--reason", "a lawsuit").stderr
    )
    assert command("restore", KEY, "--in-place").code == 0
    assert "no row" not in command("hold", KEY, "--reason", "a lawsuit").stderr


@pytest.mark.parametrize(
    "since", [{"EVENT_RETENTION_PERIOD": "100 years"}, {"ARCHIVE_START_DATE": "2024-04-01"}], ids=["longer", "later"]
)
def test_a_hold_of_a_purged_day_that_is_not_archived_any_more_says_so(
    archived: Installation, command: Commands, since: dict[str, str]
):
    assert "2024-03-01 has no row in the table" in command("hold", KEY, "--reason", "a lawsuit", **since).stderr


def test_a_hold_that_cannot_see_the_rows_says_so(archived: Installation, command: Commands):
    archived.database.execute('ALTER TABLE "Event" DROP CONSTRAINT "Event_pkey", DROP CONSTRAINT "Event_event_id_key"')
    done = command("hold", KEY, "--reason", "a lawsuit")
    assert (done.code, [line["outcome"] for line in done.lines]) == (0, ["held"])
    assert "could not be seen" in done.stderr


def test_a_day_whose_rows_a_trigger_keeps_is_not_told_as_purged(local_installation: Installation, command: Commands):
    """A trigger BEFORE DELETE that returns NEW, as its author is used to, keeps every row for ever."""
    local_installation.add(3)
    local_installation.database.execute(
        """CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
        CREATE TRIGGER keep BEFORE DELETE ON "Event" FOR EACH ROW EXECUTE FUNCTION keep()"""
    )
    why = "3 rows stay although the file holds them: a trigger of the table keeps them from being deleted (keep)"
    assert f"none deleted; {why}" in command("run", "--dry-run", LOG_FORMAT="console").stdout
    done = command("run")
    line = done.days[KEY]
    assert (done.code, line["outcome"], line["deleted"], line["left"]) == (0, "kept", 0, 3)
    assert line["reason"].startswith(why)
    assert why in command("run", LOG_FORMAT="console").stdout


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


def test_a_release_of_what_is_not_held_says_so(local_installation: Installation, command: Commands):
    done = command("release", KEY)
    told = {"first": KEY, "last": KEY, "outcome": "not held", "days": 0, "of_days": 1}
    assert (done.code, done.lines) == (0, [told])
    said = command("release", KEY, "--to", "2024-03-02", LOG_FORMAT="console")
    assert (said.code, said.stdout) == (
        0,
        'public."Event": 2024-03-01 to 2024-03-02 not held, so nothing was released.\n',
    )
    assert command("hold", "2024-03-02", "--reason", "a lawsuit").code == 0
    said = command("release", KEY, "--to", "2024-03-03", LOG_FORMAT="console")
    assert said.stdout == 'public."Event": 1 of 3 days released, 2024-03-01 to 2024-03-03.\n'


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


def test_the_launchpad_restores(archived: Installation, instance: dg.DagsterInstance):
    job = build_definitions(PipelineSettings.load()).resolve_job_def("restore_job")
    config = {"ops": {"restore_days": {"config": {"first_day": KEY, "last_day": "2024-03-31"}}}}
    assert job.execute_in_process(run_config=config, instance=instance).success
    assert archived.database.execute('SELECT count(*) FROM "Event_restored"') == [(5,)]
    archived.database.execute('DELETE FROM "Event_restored" WHERE id = (SELECT min(id) FROM "Event_restored")')
    again = job.execute_in_process(run_config=config, instance=instance)
    said = f'{KEY}: 1 row restored into public."Event_restored", 4 stood there already, 0 superseded'
    messages = [entry.message.split(" - ")[-1] for entry in instance.all_logs(again.run_id)]
    assert said in messages
    assert f"30 days between {KEY} and 2024-03-31 have no file" in messages


@pytest.mark.parametrize("away", [False, True], ids=["a file", "a service"])
def test_a_day_that_the_launchpad_cannot_restore_keeps_no_other_from_it(
    archived: Installation, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, away: bool
):
    """As on the command line, whose restore it is."""
    for day in (DAY + ONE_DAY, DAY + 2 * ONE_DAY):
        archived.add(2, day=day)
        archived.run(day)
    archived.put(NO_CSV, day=DAY + ONE_DAY)
    job = build_definitions(PipelineSettings.load()).resolve_job_def("restore_job")
    config = {"ops": {"restore_days": {"config": {"first_day": KEY, "last_day": "2024-03-31"}}}}
    if away:

        def out_of_reach(*_arguments: Any, **_options: Any) -> None:
            raise UnreachableError("the lake is away")

        monkeypatch.setattr("event_archive.defs.jobs.restore_day", out_of_reach)
    result = job.execute_in_process(run_config=config, instance=instance, raise_on_error=False)
    said = failure(result)
    if away:
        assert said == "1 of 3 days failed; a service is out of reach, 2 days were not tried: the lake is away"
        return
    assert said.startswith("1 of 3 days failed: ")
    assert "events_2024-03-02.csv" in said
    assert archived.database.execute('SELECT count(*) FROM "Event_restored"') == [(7,)]


def test_the_launchpad_tells_a_few_of_many_days_that_it_cannot_restore(
    local_installation: Installation, instance: dg.DagsterInstance
):
    for n in range(7):
        local_installation.put(NO_CSV, day=DAY + n * ONE_DAY)
    job = build_definitions(PipelineSettings.load()).resolve_job_def("restore_job")
    config = {"ops": {"restore_days": {"config": {"first_day": KEY, "last_day": "2024-03-31"}}}}
    said = failure(job.execute_in_process(run_config=config, instance=instance, raise_on_error=False))
    assert said.startswith("7 of 7 days failed: ")
    assert said.endswith(" And 2 more: see the log.")
    assert said.count("_2024-03-0") == 5


def test_the_launchpad_says_which_sequence_somebody_else_has_to_move(
    archived: Installation, instance: dg.DagsterInstance, clean: pytest.MonkeyPatch
):
    role = f"guest_{archived.database.name}"
    archived.database.execute(f"""
        CREATE ROLE {role} LOGIN; GRANT SELECT, INSERT ON "Event" TO {role};
        GRANT TEMPORARY ON DATABASE {archived.database.name} TO {role};
        SELECT setval('"Event_id_seq"', 1, false)""")
    clean.setenv("PG_CONNECTION_STRING", archived.database.server.dsn(archived.database.name, role))
    try:
        job = build_definitions(PipelineSettings.load()).resolve_job_def("restore_job")
        config = {"ops": {"restore_days": {"config": {"first_day": KEY, "in_place": True}}}}
        result = job.execute_in_process(run_config=config, instance=instance)
        logged = [entry.message for entry in instance.all_logs(result.run_id)]
        assert any(f"{KEY}: let the owner of the sequence run: SELECT pg_catalog.setval(" in words for words in logged)
    finally:
        archived.database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"table": "rescue", "in_place": True}, "not both"),
        ({"last_day": "2024-02-01"}, "2024-03-01 lies after 2024-02-01"),
        ({"first_day": "2024-05-01", "last_day": "2024-05-31"}, "There is no file from 2024-05-01 to 2024-05-31"),
    ],
)
def test_the_launchpad_refuses_what_would_restore_nothing_or_elsewhere(
    archived: Installation, instance: dg.DagsterInstance, config: dict[str, Any], words: str
):
    job = build_definitions(PipelineSettings.load()).resolve_job_def("restore_job")
    result = job.execute_in_process(
        run_config={"ops": {"restore_days": {"config": {"first_day": KEY} | config}}},
        instance=instance,
        raise_on_error=False,
    )
    assert words in failure(result)
    assert archived.count() == 0


def test_the_launchpad_opens_without_an_error_and_asks_for_a_day(archived: Installation, instance: dg.DagsterInstance):
    job = build_definitions(PipelineSettings.load()).resolve_job_def("restore_job")
    assert dg.validate_run_config(job, {})
    result = job.execute_in_process(instance=instance, raise_on_error=False)
    assert "restore_days needs first_day, like 2024-03-01" in failure(result)
    assert archived.count() == 0


@pytest.mark.parametrize("folder", ["", "elsewhere"])
@pytest.mark.parametrize("rows", [0, 5])
def test_the_check_fails_where_a_recorded_file_is_gone(
    local_installation: Installation, instance: dg.DagsterInstance, rows: int, folder: str
):
    if rows:
        local_installation.add(rows)
    settings = PipelineSettings(verify_nightly=True)
    job = build_definitions(settings).resolve_job_def("archive_job")
    assert job.execute_in_process(partition_key=KEY, instance=instance).success
    url = local_installation.lake.url(local_installation.dataset.path(DAY))
    if folder:
        job = build_definitions(PipelineSettings(verify_nightly=True, archive_folder=folder)).resolve_job_def(
            "archive_job"
        )
    else:
        Path(urlparse(url).path).unlink(missing_ok=True)
    check = job.get_subset(
        asset_selection=set(), asset_check_selection={dg.AssetCheckKey(dg.AssetKey("archive_csv"), "archive_is_whole")}
    )
    (evaluation,) = check.execute_in_process(partition_key=KEY, instance=instance).get_asset_check_evaluations()
    assert evaluation.passed == (not rows)
    said = evaluation.description or ""
    assert ("with 5 rows in it, is gone" in said) == bool(rows and not folder)
    assert (f"is not there; the day was recorded with 5 rows in {url}. The folder," in said) == bool(rows and folder)


@pytest.mark.parametrize("late", [0, 1])
@pytest.mark.parametrize("lost", ["the file", "a version"])
@pytest.mark.parametrize("by", ["check", "run", "command"])
def test_the_check_fails_where_rows_are_gone_that_were_recorded(
    local_installation: Installation, instance: dg.DagsterInstance, home: Path, command: Commands, by: str, lost: str,
    late: int,
):  # fmt: skip
    """In the run that comes upon the loss, too: its own archive records the file as it is by now."""
    job = build_definitions(PipelineSettings(verify_nightly=True)).resolve_job_def("archive_job")
    path = local_installation.dataset.path(DAY)
    local_installation.add(3)
    assert job.execute_in_process(partition_key=KEY, instance=instance).success
    older, content = local_installation.lake.stat(path), local_installation.content()
    assert older is not None
    local_installation.add(2, prefix="later")
    assert job.execute_in_process(partition_key=KEY, instance=instance).success
    if lost == "the file":
        Path(urlparse(local_installation.lake.url(path)).path).unlink()
    else:
        local_installation.put(content, metadata=dict(older.metadata))
    local_installation.add(late, prefix="late")
    key = dg.AssetCheckKey(dg.AssetKey("archive_csv"), "archive_is_whole")
    if by == "command":
        if lost == "the file" and not late:
            return  # There is no day to do.
        assert command("run", KEY, VERIFY_NIGHTLY="true", DAGSTER_HOME=str(home)).code == 0
    else:
        subset = job.get_subset(asset_selection=set(), asset_check_selection={key}) if by == "check" else job
        assert subset.execute_in_process(partition_key=KEY, instance=instance).success
    (record, *_) = instance.event_log_storage.get_asset_check_execution_history(key, limit=5)
    assert record.event is not None
    evaluation = record.event.asset_check_evaluation
    assert evaluation is not None
    assert not evaluation.passed
    if lost == "the file" and not (late and by != "check"):
        assert "with 5 rows in it, is gone" in str(evaluation.description)
    else:
        has = "1 row" if lost == "the file" else f"{3 + (late if by != 'check' else 0)} rows"
        assert f"has {has}; the archive recorded 5 in it before. An older version" in str(evaluation.description)


def test_a_check_that_fails_after_the_purge_takes_nothing_back(
    local_installation: Installation, command: Commands, monkeypatch: pytest.MonkeyPatch
):
    def away(*_arguments: Any, **_options: Any) -> None:
        raise UnreachableError("the lake is away")

    local_installation.add(5)
    with monkeypatch.context() as patch:
        patch.setattr("event_archive.nightly.day._RETRY_AFTER_SECONDS", (0, 0))
        patch.setattr("event_archive.operations.verify.verify_day", away)
        done = command("run", VERIFY_NIGHTLY="true")
    assert (done.code, local_installation.count()) == (1, 0)
    assert (done.days[KEY]["outcome"], done.end["rows_appended"], done.end["deleted"]) == ("failed", 5, 5)
    # It has no rows any more, and is not done before it is verified.
    again = command("run", VERIFY_NIGHTLY="true")
    assert (again.code, again.days[KEY]["outcome"]) == (0, "nothing to do")
    assert "Nothing to do" in command("run").end["message"]


@pytest.mark.parametrize("damaged", [False, True])
def test_the_check_shows_what_verify_says_and_announces_damage(
    installation: Installation,
    instance: dg.DagsterInstance,
    webhook: Webhook,
    monkeypatch: pytest.MonkeyPatch,
    damaged: bool,
):
    def archive_then_damage(*arguments: Any, **options: Any) -> ArchivedDay:
        done = archive_day(*arguments, **options)
        file = installation.lake.stat(done.path)
        assert file is not None
        if damaged:
            installation.put(installation.content().replace(b"evt", b"EVT", 1), metadata=dict(file.metadata))
        return done

    installation.add(5)
    monkeypatch.setenv("ALERT_WEBHOOK_URL", webhook.url)
    monkeypatch.setattr("event_archive.defs.assets.archive_day", archive_then_damage)
    job = build_definitions(PipelineSettings(verify_nightly=True)).resolve_job_def("archive_job")
    result = job.execute_in_process(partition_key=KEY, instance=instance, raise_on_error=False)
    (evaluation,) = result.get_asset_check_evaluations()
    assert (evaluation.check_name, evaluation.passed) == ("archive_is_whole", not damaged)
    assert ("altered" in (evaluation.description or "")) == damaged
    assert [f"events_{KEY}.csv: bytes were altered in place" in text for text in webhook.texts] == [True] * damaged


def test_the_nightly_job_verifies_where_it_is_told_to(installation: Installation, instance: dg.DagsterInstance):
    installation.add(2)
    for nightly in (False, True):
        job = build_definitions(PipelineSettings(verify_nightly=nightly)).resolve_job_def("archive_job")
        result = job.execute_in_process(partition_key=KEY, instance=instance)
        assert len(result.get_asset_check_evaluations()) == int(nightly)
