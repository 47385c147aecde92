"""The asset check that says whether a day's file is the one that was recorded, and whole."""

from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import dagster as dg
import pytest

from event_archive.config.environment import PipelineSettings
from event_archive.defs.build import build_definitions
from event_archive.domain.wording import counted
from event_archive.errors import UnreachableError
from event_archive.operations.archive import ArchivedDay, archive_day
from event_archive_tests.fixtures.archived import KEY
from event_archive_tests.fixtures.installation import Commands, Installation
from event_archive_tests.fixtures.pipeline import DAY
from event_archive_tests.fixtures.webhook import Webhook

pytestmark = pytest.mark.slow


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


@pytest.mark.parametrize("late", [0, 1, 2])
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
        appended = late if by != "check" and lost != "the file" else 0
        has = counted(late if lost == "the file" else 3 + appended, "row", "rows")
        has = f"{has}, {appended} of them appended just now" if appended else has
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
