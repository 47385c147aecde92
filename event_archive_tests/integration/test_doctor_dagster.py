"""What the doctor says of Dagster, whole and broken."""

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import psycopg
import pytest
from dagster._core.remote_origin import (
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    InstigatorType,
    ScheduleInstigatorData,
    SensorInstigatorData,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._daemon.types import DaemonHeartbeat
from psycopg.conninfo import conninfo_to_dict

from event_archive.config.environment import Settings
from event_archive.defs import doctor as dagster_doctor
from event_archive.doctor.findings import Topic, go_through
from event_archive_tests.fixtures.doctor import PASSWORD, findings, wrong
from event_archive_tests.fixtures.installation import REPOSITORY, Commands, Installation, clean_environment
from event_archive_tests.fixtures.postgres import Database

pytestmark = pytest.mark.slow

# Dagster


@pytest.fixture
def at_home(healthy_locally: Installation, home: Path, clean: pytest.MonkeyPatch) -> Path:
    """DAGSTER_HOME, with the product's own dagster.yaml."""
    shutil.copy(REPOSITORY / "dagster.yaml", home)
    clean.setenv("DAGSTER_HOME", str(home))
    return home


def test_a_daemon_that_is_silent_and_one_that_is_not(at_home: Path, command: Commands):
    found = findings(command("doctor", "--json"), 0)
    assert wrong(found) == {"dagster_daemon": "warning"}
    assert "SCHEDULER" in found["dagster_daemon"].message
    assert "0 runs in " in found["dagster_instance"].message
    with dg.DagsterInstance.from_config(str(at_home)) as instance:
        for kind in instance.get_required_daemon_types():
            instance.add_daemon_heartbeat(DaemonHeartbeat(time.time() - 7, kind, None, None))
        found = findings(command("doctor", "--json"), 0)
        assert wrong(found) == {"dagster_schedule": "warning"}
        assert found["dagster_schedule"].message == (
            "archive_daily is not in the workspace of the daemon: no tick comes"
        )
        instance.add_instigator_state(stopped("archive_daily").with_status(InstigatorStatus.DECLARED_IN_CODE))
    found = findings(command("doctor", "--json"), 0)
    assert wrong(found) == {}
    assert found["dagster_schedule"].message == "archive_daily is on"


def test_a_schedule_that_was_turned_off(at_home: Path, command: Commands):
    """It is the one of the workspace that the daemon has, and the commands that the doctor gives turn that on."""

    def dagster(*arguments: str) -> None:
        environment = clean_environment(DAGSTER_HOME=str(at_home))
        subprocess.run(
            [sys.executable, "-m", "dagster", *arguments],
            env=environment,
            cwd=REPOSITORY,
            capture_output=True,
            check=True,
        )

    workspace = ["-w", "workspace.yaml"]
    dagster("schedule", "stop", "archive_daily", *workspace)
    for sensor in ("failed_runs", "failed_days"):
        dagster("sensor", "stop", sensor, *workspace)
    found = findings(command("doctor", "--json"), 0)["dagster_schedule"]
    assert found.status == "warning"
    given = re.findall(r"dagster ((?:schedule|sensor) start [^;\n]+)", found.remedy)
    assert len(given) == 3
    for one in given:
        dagster(*one.split())
    assert findings(command("doctor", "--json"), 0)["dagster_schedule"].status == "good"
    # Without a workspace, the same one is meant.
    dagster("schedule", "stop", "archive_daily", *workspace)
    dagster("schedule", "start", "archive_daily")
    assert findings(command("doctor", "--json"), 0)["dagster_schedule"].status == "good"


def test_the_schedule_of_one_dataset_says_nothing_of_the_others(at_home: Path, command: Commands, tmp_path: Path):
    """Nor does the schedule of the time before there were datasets, whose state Dagster keeps."""
    file = tmp_path / "datasets.yaml"
    file.write_text("datasets: {events: {table: public.Event}, more: {table: public.More}}")
    with dg.DagsterInstance.from_config(str(at_home)) as instance:
        for name in ("archive_daily", "archive_daily_events"):
            instance.add_instigator_state(stopped(name))
    found = command("doctor", DATASETS_FILE=str(file), LOG_FORMAT="json")
    (told,) = [line for line in found.lines if line.get("check") == "dagster_schedule"]
    assert told["message"] == "archive_daily_events was turned off: no night archives its days"
    assert told["remedy"].endswith("dagster schedule start archive_daily_events -w workspace.yaml")


def test_the_schedules_of_sources_that_were_turned_off(at_home: Path, command: Commands):
    """Those that are configured, beside the archive's own."""
    with dg.DagsterInstance.from_config(str(at_home)) as instance:
        for name in ("ingest_api", "ingest_logs"):
            instance.add_instigator_state(stopped(name))
    assert findings(command("doctor", "--json"), 0)["dagster_schedule"].message == "archive_daily is on"
    api = {"API_BASE_URL": "http://localhost/v1"}
    found = findings(command("doctor", "--json", **api), 0)["dagster_schedule"]
    assert (found.status, found.message) == ("warning", "ingest_api was turned off: no tick takes anything in")
    assert found.remedy == (
        "Unless event-archive ingest api runs elsewhere, turn on: dagster schedule start ingest_api -w workspace.yaml"
    )
    with dg.DagsterInstance.from_config(str(at_home)) as instance:
        instance.add_instigator_state(stopped("archive_daily"))
    found = findings(command("doctor", "--json", **api, LOGS_URL="file:///nowhere"), 0)["dagster_schedule"]
    assert found.message == (
        "archive_daily was turned off: no night archives anything; "
        "ingest_api, ingest_logs were turned off: no tick takes anything in"
    )
    # A wrong setting of one source hides no other.
    found = findings(command("doctor", "--json", **api, LOGS_URL="http://nowhere"), 2)["dagster_schedule"]
    assert "ingest_api was turned off" in found.message


def test_a_schedule_that_was_turned_off_under_a_former_name_of_the_code_location(at_home: Path, command: Commands):
    with dg.DagsterInstance.from_config(str(at_home)) as instance:
        instance.add_instigator_state(stopped("archive_daily", location="former"))
        assert findings(command("doctor", "--json"), 0)["dagster_schedule"].status == "warning"
        # As the daemon writes it down of a schedule that is on by default.
        instance.add_instigator_state(stopped("archive_daily").with_status(InstigatorStatus.DECLARED_IN_CODE))
    assert findings(command("doctor", "--json"), 0)["dagster_schedule"].message == "archive_daily is on"


def test_a_sensor_of_failures_that_was_turned_off(at_home: Path, command: Commands):
    with dg.DagsterInstance.from_config(str(at_home)) as instance:
        for name in ("failed_runs", "somebody_elses"):
            instance.add_instigator_state(stopped(name, kind=InstigatorType.SENSOR))
    found = findings(command("doctor", "--json"), 0)["dagster_schedule"]
    assert (found.status, found.message) == (
        "warning",
        "failed_runs was turned off: nobody is told of what they look for",
    )
    with dg.DagsterInstance.from_config(str(at_home)) as instance:
        of_another = stopped("failed_runs", kind=InstigatorType.SENSOR, location="another")
        instance.add_instigator_state(of_another.with_status(InstigatorStatus.DECLARED_IN_CODE))
        assert findings(command("doctor", "--json"), 0)["dagster_schedule"].status == "good"
        # Of a location that is gone, the daemon keeps the states of sensors, and not those of schedules.
        instance.add_instigator_state(stopped("archive_daily").with_status(InstigatorStatus.DECLARED_IN_CODE))
    assert findings(command("doctor", "--json"), 0)["dagster_schedule"].message.startswith("failed_runs was turned off")


def stopped(
    name: str, *, location: str = "event_archive", kind: InstigatorType = InstigatorType.SCHEDULE
) -> InstigatorState:
    target = LoadableTargetOrigin(module_name="m")
    origin = RemoteInstigatorOrigin(
        RemoteRepositoryOrigin(ManagedGrpcPythonEnvCodeLocationOrigin(target, location), "r"), name
    )
    data = ScheduleInstigatorData("* * * * *") if kind == InstigatorType.SCHEDULE else SensorInstigatorData()
    return InstigatorState(origin, kind, InstigatorStatus.STOPPED, data)


def test_a_home_that_does_not_exist(at_home: Path, command: Commands):
    found = findings(command("doctor", "--json", DAGSTER_HOME=str(at_home / "nowhere")), 1)
    assert wrong(found) == {"dagster_instance": "bad"}
    assert "nowhere" in found["dagster_instance"].message


def test_dagsters_database_out_of_reach(at_home: Path, command: Commands, closed_port: int):
    variables = {
        "DAGSTER_PG_HOST": "127.0.0.1",
        "DAGSTER_PG_PORT": str(closed_port),
        "DAGSTER_PG_DB": "dagster",
        "DAGSTER_PG_USERNAME": "dagster",
        "DAGSTER_PG_PASSWORD": PASSWORD,
    }
    found = findings(command("doctor", "--json", **variables), 1)
    assert wrong(found) == {"dagster_instance": "bad"}
    assert "Connection refused" in found["dagster_instance"].message


@pytest.mark.parametrize("table", ["runs", "event_logs", "daemon_heartbeats"])
def test_a_lock_in_dagsters_database_is_not_waited_for(
    at_home: Path, command: Commands, database: Database, clean: pytest.MonkeyPatch, table: str
):
    clean.setattr(dagster_doctor, "_ANSWER_SECONDS", 2)
    reached = conninfo_to_dict(database.dsn)
    variables = {
        "DAGSTER_PG_HOST": str(reached["host"]),
        "DAGSTER_PG_DB": str(reached["dbname"]),
        "DAGSTER_PG_USERNAME": str(reached["user"]),
        "DAGSTER_PG_PASSWORD": PASSWORD,
    }
    assert findings(command("doctor", "--json", **variables), 0)["dagster_instance"].status == "good"
    with psycopg.connect(database.dsn) as other:
        other.execute(f"LOCK TABLE {table}")
        found = findings(command("doctor", "--json", **variables), 1)
    assert wrong(found) == {"dagster_instance": "bad"}
    assert "no answer within 2 s, as where a lock is waited for" in found["dagster_instance"].message


@pytest.mark.parametrize(
    "yaml", ["storage: [", f"storage: {{postgres: {{postgres_db: {{password: {PASSWORD}, port: {PASSWORD}}}}}}}"]
)
def test_a_dagster_yaml_that_is_wrong_is_not_repeated(at_home: Path, command: Commands, yaml: str):
    (at_home / "dagster.yaml").write_text(yaml)
    found = findings(command("doctor", "--json"), 1)
    assert wrong(found) == {"dagster_instance": "bad"}
    assert "dagster.yaml is not right" in found["dagster_instance"].message


def test_definitions_that_do_not_load(healthy_locally: Installation):
    @dg.asset
    def one(nowhere: int) -> None:
        """Needs what there is not."""

    twice = dg.Definitions(
        assets=[one], schedules=[dg.ScheduleDefinition("nightly", cron_schedule="0 2 * * *", job_name="nowhere")]
    )
    (topic, _) = dagster_doctor.topics(lambda: twice)
    (found,) = go_through([Topic(topic.checks, None, topic.examine)], Settings.load)
    assert found.status == "bad"
    assert found.message.startswith("Dagster cannot load the definitions: ")
