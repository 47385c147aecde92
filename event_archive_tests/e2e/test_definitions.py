"""What Dagster is told: loaded the way its servers load it, where there is no service and no secret."""

import json
import subprocess
import sys
from datetime import UTC, datetime

import dagster as dg
import pytest
from dagster import DagsterInstance
from dagster._core.remote_representation.external_data import RepositorySnap
from dagster._serdes import serialize_value

from event_archive.config.environment import PipelineSettings
from event_archive.defs.build import build_definitions
from event_archive.defs.executor import one_process
from event_archive.domain.days import Retention
from event_archive.errors import ConfigurationError
from event_archive_tests.fixtures.installation import ASSETS, REPOSITORY, clean_environment

pytestmark = pytest.mark.slow

ELSEWHERE = "127.0.0.1:9"


def validate(**variables: str) -> "subprocess.CompletedProcess[str]":
    """Loads the workspace as a webserver does: in a gRPC server of its own, from the repository's root."""
    return subprocess.run(
        [sys.executable, "-m", "dagster", "definitions", "validate", "-w", "workspace.yaml"],
        cwd=REPOSITORY,
        env=clean_environment(**variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def definitions(clean: pytest.MonkeyPatch) -> dg.Definitions:
    return build_definitions(PipelineSettings.load())


def specs(definitions: dg.Definitions) -> dict[str, dg.AssetSpec]:
    return {spec.key.to_user_string(): spec for spec in definitions.resolve_all_asset_specs()}


def test_the_workspace_loads_where_no_variable_is_set_and_no_service_runs():
    done = validate()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Validation successful for code location event_archive" in done.stdout + done.stderr


def test_a_wrong_variable_fails_the_load_with_our_words():
    done = validate(EVENT_RETENTION_PERIOD="one fortnight")
    assert done.returncode == 1
    said = done.stdout + done.stderr
    assert "EVENT_RETENTION_PERIOD holds 'one fortnight': is not a calendar duration of at least one day" in said


def test_loading_reads_no_secret(clean: pytest.MonkeyPatch):
    for name in ("PG_CONNECTION_STRING", "EXPORT_PG_CONNECTION_STRING", "AZURE_STORAGE_CONNECTION_STRING"):
        clean.setenv(name, "nothing that could be read")
    assert set(specs(build_definitions(PipelineSettings.load()))) == set(ASSETS)


def test_the_assets_are_those_of_the_contract(definitions: dg.Definitions):
    found = specs(definitions)
    assert set(found) == set(ASSETS)
    for spec in found.values():
        assert spec.group_name == "event_archive"
        assert list(spec.owners) == ["team:event-archive"]
        assert spec.code_version
        assert spec.description
        assert spec.kinds
    assert [dep.asset_key.to_user_string() for dep in found["archive_csv"].deps] == ["aged_events"]
    assert [dep.asset_key.to_user_string() for dep in found["purged_events"].deps] == ["archive_csv"]
    assert found["archive_csv"].kinds == {"csv", "azure"}
    assert found["aged_events"].kinds == found["purged_events"].kinds == {"postgres"}


def test_steps_share_a_pool_and_leave_retries_to_the_assets_since_a_policy_holds_for_signals_too(
    definitions: dg.Definitions,
):
    for asset in definitions.assets or []:
        assert isinstance(asset, dg.AssetsDefinition)
        assert asset.op.pool == "postgres"
        assert asset.op.retry_policy is None


@pytest.mark.parametrize(
    ("retention", "last_aged", "last_partition"),
    [
        ("90 days", "2023-11-30", "2023-11-30"),
        # Calendar durations: the last partitions come of age within days, until then they are refused.
        ("1 year", "2023-02-27", "2023-02-28"),
        ("6 months", "2023-08-28", "2023-08-31"),
    ],
)
def test_the_partitions_are_the_aged_utc_days(
    clean: pytest.MonkeyPatch, retention: str, last_aged: str, last_partition: str
):
    clean.setenv("EVENT_RETENTION_PERIOD", retention)
    clean.setenv("ARCHIVE_START_DATE", "2020-02-28")
    now = datetime(2024, 2, 29, tzinfo=UTC)
    partitions = specs(build_definitions(PipelineSettings.load()))["purged_events"].partitions_def
    assert isinstance(partitions, dg.DailyPartitionsDefinition)
    assert partitions.timezone == "UTC"
    keys = partitions.get_partition_keys(current_time=now)
    assert keys[:3] == ["2020-02-28", "2020-02-29", "2020-03-01"]
    assert keys[-1] == last_partition
    assert Retention.parse(retention).last_aged_day(now).isoformat() == last_aged


def test_the_job_and_runs_from_the_asset_pages_are_of_one_process(definitions: dg.Definitions):
    assert definitions.executor is one_process
    job = definitions.resolve_job_def("archive_job")
    assert job.executor_def is one_process
    assert {node.name for node in job.nodes} == set(ASSETS)
    assert definitions.resolve_implicit_global_asset_job_def().executor_def is one_process


def test_the_schedule_runs_by_itself_at_two_utc(definitions: dg.Definitions):
    schedule = definitions.resolve_schedule_def("archive_daily")
    assert isinstance(schedule, dg.ScheduleDefinition)
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("0 2 * * *", "UTC")
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
    assert schedule.job_name == "archive_job"


def test_the_schedule_ticks_as_configured(clean: pytest.MonkeyPatch):
    clean.setenv("ARCHIVE_CRON", "*/5 * * * *")
    schedule = build_definitions(PipelineSettings.load()).resolve_schedule_def("archive_daily")
    assert isinstance(schedule, dg.ScheduleDefinition)
    assert schedule.cron_schedule == "*/5 * * * *"


@pytest.mark.parametrize("cron", ["61 2 * * *", "0 2 31 2 *", "0 2 * * nobody"])
def test_a_cron_that_dagster_cannot_read_is_refused(clean: pytest.MonkeyPatch, cron: str):
    clean.setenv("ARCHIVE_CRON", cron)
    with pytest.raises(ConfigurationError, match="ARCHIVE_CRON"):
        build_definitions(PipelineSettings.load())


# Dagster's own serialisation reads a property that it has deprecated.
@pytest.mark.filterwarnings("ignore:Property .ScheduleDefinition.environment_vars. is deprecated:DeprecationWarning")
def test_no_secret_is_in_what_dagster_stores_or_shows(clean: pytest.MonkeyPatch, instance: DagsterInstance):
    secrets = ["pa55w0rd", "a2V5LW9mLXRoZS1hY2NvdW50", "c2lnbmF0dXJl"]
    clean.setenv("PG_CONNECTION_STRING", f"postgresql://someone:{secrets[0]}@{ELSEWHERE}/events")
    clean.setenv(
        "AZURE_STORAGE_CONNECTION_STRING",
        f"AccountName=x;AccountKey={secrets[1]};SharedAccessSignature=sig={secrets[2]}",
    )
    clean.setenv("ALERT_WEBHOOK_URL", f"http://{ELSEWHERE}/{secrets[0]}")
    repository = build_definitions(PipelineSettings.load()).get_repository_def()
    stored = serialize_value(RepositorySnap.from_def(repository)) + json.dumps(instance.info_dict())
    assert "archive_csv" in stored
    assert not [secret for secret in secrets if secret in stored]
