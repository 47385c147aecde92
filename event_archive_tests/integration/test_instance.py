"""Dagster's instance on a real PostgreSQL, reached by its Unix socket."""

import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.instance.ref import InstanceRef
from dagster._serdes import deserialize_value, serialize_value
from psycopg.conninfo import conninfo_to_dict

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]
PASSWORD = "p@ss/w:rd%+# é"

IN_ANOTHER_PROCESS = """
import sys
from dagster import AssetKey, DagsterInstance
from dagster._core.instance.ref import InstanceRef
from dagster._serdes import deserialize_value

with DagsterInstance.from_ref(deserialize_value(sys.argv[1], InstanceRef)) as instance:
    print(len(instance.get_runs()), instance.get_latest_materialization_event(AssetKey("kept")) is not None)
"""


@dg.asset
def kept() -> dg.MaterializeResult[None]:
    return dg.MaterializeResult(metadata={"rows": 1})


@pytest.fixture
def ref(database_dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> InstanceRef:
    reached = conninfo_to_dict(database_dsn)
    monkeypatch.setenv("DAGSTER_PG_HOST", str(reached["host"]))
    monkeypatch.setenv("DAGSTER_PG_PORT", str(reached.get("port", 5432)))
    monkeypatch.setenv("DAGSTER_PG_DB", str(reached["dbname"]))
    monkeypatch.setenv("DAGSTER_PG_USERNAME", str(reached["user"]))
    monkeypatch.setenv("DAGSTER_PG_PASSWORD", PASSWORD)
    return InstanceRef.from_dir(str(tmp_path), config_dir=str(REPOSITORY))


def test_runs_and_materializations_are_recorded_in_postgres(ref: InstanceRef, tmp_path: Path) -> None:
    with dg.DagsterInstance.from_ref(ref) as instance:
        assert dg.materialize([kept], instance=instance).success
        assert instance.info_dict()["run_storage"] == "PostgresRunStorage"
        assert instance.run_storage.get_runs_count() == 1
    assert not list(tmp_path.rglob("*.db"))


def test_a_worker_started_with_the_reference_finds_the_same_records(ref: InstanceRef) -> None:
    with dg.DagsterInstance.from_ref(ref) as instance:
        dg.materialize([kept], instance=instance)
    command = [sys.executable, "-c", IN_ANOTHER_PROCESS, serialize_value(ref)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() == ["1", "True"]


def test_the_password_is_shown_nowhere(ref: InstanceRef) -> None:
    with dg.DagsterInstance.from_ref(deserialize_value(serialize_value(ref), InstanceRef)) as instance:
        shown = instance.info_str() + serialize_value(instance.get_ref())
    assert PASSWORD not in shown
    assert "p%40ss" not in shown
