"""Dagster's records that are torn, locked, or cannot be opened; files that were put back or lie elsewhere."""

import logging
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import urlparse

import dagster as dg
import pytest

from event_archive.defs.report import DayReports, reporting
from event_archive.errors import ConfigurationError, RecordsError, RefusedError
from event_archive.nightly.backlog import aged_rows
from event_archive_tests.fixtures.installation import REPOSITORY, Installation
from event_archive_tests.fixtures.pipeline import DAY
from event_archive_tests.fixtures.reporting import KEY, archive

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("by", ["command", "run"])
def test_an_older_version_of_a_file_that_was_put_back_is_told(
    local_installation: Installation,
    instance: dg.DagsterInstance,
    reports: DayReports,
    caplog: pytest.LogCaptureFixture,
    by: str,
):
    """By itself it is whole, and the rows that it lacks are in no table any more."""

    def archive_again() -> None:
        if by == "command":
            archive(local_installation, reports)
        else:
            assert local_installation.materialize(instance, KEY).success

    local_installation.add(3)
    archive_again()
    older = local_installation.lake.stat(local_installation.dataset.path(DAY))
    assert older is not None
    content = local_installation.content()
    local_installation.add(2, prefix="late")
    archive_again()
    local_installation.archive()
    local_installation.purge()
    assert "An older version was put back" not in caplog.text
    local_installation.put(content, metadata=dict(older.metadata))
    archive_again()
    told = [record for record in caplog.records if "An older version was put back" in record.getMessage()]
    assert [(record.levelname, "has 3 rows; the archive recorded 5" in record.getMessage()) for record in told] == [
        ("WARNING", True)
    ]


def test_what_was_archived_since_a_file_was_lost_is_kept_before_the_file_is_put_back(
    local_installation: Installation, instance: dg.DagsterInstance, caplog: pytest.LogCaptureFixture
):
    """As the warning says, and the page that it names."""

    def done(*arguments: str) -> None:
        said = local_installation.cli(*arguments)
        assert said.code == 0, said.error

    local_installation.add(3)
    assert local_installation.materialize(instance, KEY).success
    lost = local_installation.lake.stat(local_installation.dataset.path(DAY))
    assert lost is not None
    content = local_installation.content()
    Path(urlparse(local_installation.lake.url(lost.path)).path).unlink()
    local_installation.add(1, prefix="late")
    run = local_installation.materialize(instance, KEY)
    assert run.success
    (told,) = [record.getMessage() for record in caplog.records if "An older version" in record.getMessage()]
    # Who looks at the run in the UI sees its event log alone.
    assert told in [entry.user_message for entry in instance.all_logs(run.run_id) if entry.level == logging.WARNING]
    assert f"nowhere else: event-archive restore {KEY} --table NAME" in told

    done("restore", KEY, "--table", "kept")
    local_installation.put(content, metadata=dict(lost.metadata))
    done("restore", KEY, "--in-place")
    page = (REPOSITORY / "docs/howto/failed-day.md").read_text()
    (insert,) = re.findall("`(INSERT INTO [^`]*)`", page)
    local_installation.database.execute(insert)
    done("run", KEY)
    assert local_installation.count() == 0
    found = sorted(name.split("-")[0] for name in local_installation.values("event_id"))
    assert found == ["evt", "evt", "evt", "late"]


@pytest.mark.parametrize("taken_down", ["", "python_logs: {managed_python_loggers: [event_archive]}"])
def test_a_warning_stands_once_in_the_event_log_of_a_run(
    local_installation: Installation, home: Path, clean: pytest.MonkeyPatch, taken_down: str
):
    with (home / "dagster.yaml").open("a") as settings:
        settings.write(f"\n{taken_down}\n")
    with dg.DagsterInstance.from_config(str(home)) as instance:
        local_installation.add(3)
        assert local_installation.materialize(instance, KEY).success
        lost = local_installation.lake.url(local_installation.dataset.path(DAY))
        Path(urlparse(lost).path).unlink()
        local_installation.add(1, prefix="late")
        run = local_installation.materialize(instance, KEY)
        said = [
            entry.user_message for entry in instance.all_logs(run.run_id) if "An older version" in entry.user_message
        ]
    assert len(said) == 1


def test_a_file_in_another_place_is_no_older_version(
    local_installation: Installation,
    instance: dg.DagsterInstance,
    clean: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    local_installation.add(3)
    assert local_installation.materialize(instance, KEY).success
    recorded = local_installation.lake.url(local_installation.dataset.path(DAY))
    local_installation.add(1, prefix="late")
    clean.setenv("ARCHIVE_FOLDER", "elsewhere")
    assert local_installation.materialize(instance, KEY).success
    assert "An older version was put back" not in caplog.text
    (told,) = [record.getMessage() for record in caplog.records if "the archive recorded" in record.getMessage()]
    assert f"has 1 row; the archive recorded 3 before, in {recorded}. The folder, the file prefix or the lake" in told


def databases(home: Path) -> list[Path]:
    found = [path for path in home.rglob("*.db") if path.is_file()]
    assert found
    return found


def test_torn_records_are_one_clear_message(local_installation: Installation, reports: DayReports, home: Path):
    local_installation.add(3)
    archived = local_installation.archive()
    for path in databases(home):
        path.write_bytes(b"torn" * 2000)
    with pytest.raises(RefusedError) as refused:
        reports.archived(archived, local_installation.lake)
    message = str(refused.value)
    assert message.startswith(f'public."Event", {KEY}: what was done to this day could not be written')
    assert "file is not a database" in message
    assert "No row was deleted that is not in the day's file." in message
    assert refused.value.__cause__ is None
    with pytest.raises(RecordsError, match="records are out of reach: .*file is not a database"):
        reports.recorded(DAY)
    assert local_installation.count() == 3


def test_locked_records_are_one_clear_message(local_installation: Installation, reports: DayReports, home: Path):
    local_installation.add(3)
    archived = local_installation.archive()
    (index,) = [path for path in databases(home) if path.name == "index.db"]
    with closing(sqlite3.connect(index)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(RefusedError, match="database is locked"):
            reports.archived(archived, local_installation.lake)
    reports.archived(archived, local_installation.lake)


def test_records_that_cannot_be_opened_are_refused(
    local_installation: Installation, home: Path, clean: pytest.MonkeyPatch, closed_port: int
):
    clean.setenv("DAGSTER_HOME", "/nowhere/at/all")
    with (
        pytest.raises(ConfigurationError, match="DAGSTER_HOME holds '/nowhere/at/all'"),
        reporting(),
    ):
        pass
    database = f"{{db_name: dagster, hostname: 127.0.0.1, port: {closed_port}, username: dagster, password: s3cr3t}}"
    (home / "dagster.yaml").write_text(f"storage: {{postgres: {{postgres_db: {database}}}}}")
    clean.setenv("DAGSTER_HOME", str(home))
    with (
        pytest.raises(RefusedError, match="Dagster's own records are out of reach") as refused,
        reporting() as reports,
    ):
        reports(local_installation.dataset).counted(
            DAY, aged_rows(local_installation.dataset, DAY, local_installation.postgres)
        )
    assert "s3cr3t" not in str(refused.value)
