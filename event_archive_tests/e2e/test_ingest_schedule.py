"""When an API is ingested by Dagster: the schedule, its ticks, its pool, its runs of former days."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from event_archive.defs.sources.http_api import API
from event_archive.defs.upkeep import superseded_ingestions
from event_archive.errors import ConfigurationError
from event_archive_tests.api_server.running import ApiServer
from event_archive_tests.fixtures.ingesting_runs import JOB, definitions, ingest, tick
from event_archive_tests.fixtures.installation import REPOSITORY, Installation, clean_environment

pytestmark = pytest.mark.slow


def test_the_schedule_is_there_where_an_api_is(local_installation: Installation, clean: pytest.MonkeyPatch):
    def found() -> tuple[set[str], set[str], set[str]]:
        repository = definitions().get_repository_def()
        return (
            {key.to_user_string() for key in repository.asset_graph.get_all_asset_keys()},
            set(repository.job_names),
            {schedule.name for schedule in repository.schedule_defs},
        )

    def upstream() -> list[str]:
        (spec,) = [of for of in definitions().resolve_all_asset_specs() if of.key == dg.AssetKey("aged_events")]
        return [dep.asset_key.to_user_string() for dep in spec.deps]

    without = found()
    clean.setenv("API_BASE_URL", "https://api.example.com/v1")
    clean.setenv("API_CRON", "*/5 * * * *")
    added = [more - less for more, less in zip(found(), without, strict=True)]
    assert added == [{"ingested_events"}, {JOB}, {"ingest_api"}]
    schedule = definitions().resolve_schedule_def("ingest_api")
    assert isinstance(schedule, dg.ScheduleDefinition)
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("*/5 * * * *", "UTC")
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
    assert upstream() == []
    clean.setenv("EVENT_TABLE", "public.ingested_events")
    assert upstream() == ["ingested_events"]
    clean.setenv("INGEST_SCHEMA", "landing")
    assert upstream() == []


def test_a_cron_expression_that_is_none_is_told(local_installation: Installation, clean: pytest.MonkeyPatch):
    clean.setenv("API_BASE_URL", "https://api.example.com/v1")
    clean.setenv("API_CRON", "0 25 * * *")
    with pytest.raises(ConfigurationError, match="API_CRON holds '0 25"):
        definitions()


def test_only_the_dataset_of_the_same_database_has_the_api_upstream(
    local_installation: Installation, clean: pytest.MonkeyPatch, tmp_path: Path
):
    file = tmp_path / "datasets.yaml"
    file.write_text(
        """
        datasets:
          here: {table: public.ingested_events, time_column: timestamp}
          other: {table: public.Event}
          there: {table: public.ingested_events, time_column: timestamp, pg_connection_string_env: THERE_DATABASE_URL}
        """
    )
    clean.setenv("DATASETS_FILE", str(file))
    clean.setenv("API_BASE_URL", "https://api.example.com/v1")

    def fed() -> list[dg.AssetKey]:
        specs = definitions().resolve_all_asset_specs()
        return [spec.key for spec in specs if API.key in {dep.asset_key for dep in spec.deps}]

    assert fed() == [dg.AssetKey(["here", "aged_events"])]
    # The same database by another variable.
    file.write_text(
        "\n".join(line for line in file.read_text().splitlines() if "here:" not in line or "there:" in line)
    )
    assert fed() == []
    clean.setenv("THERE_DATABASE_URL", local_installation.variables["PG_CONNECTION_STRING"])
    assert fed() == [dg.AssetKey(["there", "aged_events"])]


def test_a_tick_launches_one_run_and_none_where_one_is_in_flight(instance: dg.DagsterInstance, named_api: ApiServer):
    found = tick(instance)
    assert not isinstance(found, str)
    (request,) = found
    assert request.run_key == "2026-03-01T00:00:00+00:00"
    job = definitions().resolve_job_def(JOB)
    run = instance.create_run_for_job(job, tags=job.tags, status=dg.DagsterRunStatus.STARTED)
    assert tick(instance) == "a run is in flight"
    instance.report_run_canceled(run)
    assert len(tick(instance)) == 1
    # A daemon that dies in the midst of a tick leaves its run unsubmitted, and asks again.
    begun = instance.create_run_for_job(job, tags={**job.tags, "dagster/run_key": str(request.run_key)})
    assert len(tick(instance)) == 1
    instance.report_run_canceled(begun)
    pages = definitions().resolve_implicit_global_asset_job_def()
    instance.create_run_for_job(pages, asset_selection=frozenset([API.key]), status=dg.DagsterRunStatus.STARTING)
    assert isinstance(tick(instance), str)


def test_an_ingestion_is_in_a_pool_of_its_own_which_lets_in_one_at_a_time(
    instance: dg.DagsterInstance, named_api: ApiServer
):
    job = definitions().resolve_job_def(JOB)
    assert {node.definition.pools == {"api"} for node in job.graph.nodes} == {True}
    assert {node.name for node in job.nodes} >= {"ingested_events"}
    tick(instance)
    storage = instance.event_log_storage
    assert [(of.name, of.limit, of.from_default) for of in storage.get_pool_limits()] == [("api", 1, False)]
    # As `dagster instance concurrency set api 3` does.
    storage.set_concurrency_slots("api", 3)
    tick(instance)
    assert [of.limit for of in storage.get_pool_limits()] == [3]


def test_old_runs_are_pruned_but_for_the_one_that_the_asset_shows(instance: dg.DagsterInstance, named_api: ApiServer):
    runs = [ingest(instance).run_id for _ in range(3)]
    assert superseded_ingestions(instance, API, datetime.now(UTC) - timedelta(days=1)) == []
    assert set(superseded_ingestions(instance, API, datetime.now(UTC) + timedelta(days=1))) == set(runs[:2])


@pytest.mark.parametrize(
    "variables",
    [{"API_BASE_URL": "https://api.example.com/v1"}, {"LOGS_URL": "s3://bucket/logs"}, {"LOGS_URL": "az://logs"}],
)
def test_definitions_load_with_a_source_and_no_secret(variables: dict[str, str]):
    load = [sys.executable, "-c", "from event_archive.definitions import defs; defs.get_repository_def()"]
    environment = clean_environment(**variables)
    done = subprocess.run(load, env=environment, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
