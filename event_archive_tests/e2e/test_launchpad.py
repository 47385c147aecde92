"""Restores from Dagster's launchpad."""

from typing import Any

import dagster as dg
import pytest

from event_archive.config.environment import PipelineSettings
from event_archive.defs.build import build_definitions
from event_archive.domain.days import ONE_DAY
from event_archive.errors import UnreachableError
from event_archive_tests.fixtures.archived import KEY
from event_archive_tests.fixtures.installation import Installation, failure
from event_archive_tests.fixtures.pipeline import DAY, NO_CSV

pytestmark = pytest.mark.slow


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
