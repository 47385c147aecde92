"""Dagster's instance as ``dagster.yaml`` configures it, without a server."""

import os
from pathlib import Path

import pytest
from dagster import DagsterInstance
from dagster._core.instance.ref import InstanceRef
from dagster._serdes import serialize_value

from event_archive.errors import ConfigurationError

REPOSITORY = Path(__file__).parents[2]
VARIABLES = ("DAGSTER_PG_HOST", "DAGSTER_PG_PORT", "DAGSTER_PG_DB", "DAGSTER_PG_USERNAME", "DAGSTER_PG_PASSWORD")


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*VARIABLES, "DAGSTER_HOME"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def _postgres_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    values = ("db.invalid", "6543", "records", "keeper", "p@ss/w:rd%+")
    for name, value in zip(VARIABLES, values, strict=True):
        monkeypatch.setenv(name, value)


def reference(folder: Path) -> InstanceRef:
    """As ``dagster dev`` makes it: our ``dagster.yaml``, another folder for the files."""
    return InstanceRef.from_dir(str(folder), config_dir=str(REPOSITORY))


def test_without_variables_records_are_files_in_the_instances_folder(tmp_path: Path) -> None:
    with DagsterInstance.from_ref(reference(tmp_path)) as instance:
        assert instance.info_dict()["run_storage"] == "SqliteRunStorage"
        assert instance.root_directory == str(tmp_path)
    assert (tmp_path / "history" / "runs.db").exists()
    assert (tmp_path / "schedules" / "schedules.db").exists()


def test_without_telemetry_and_with_retries_of_dead_workers_alone(tmp_path: Path) -> None:
    with DagsterInstance.from_ref(reference(tmp_path)) as instance:
        assert not instance.telemetry_enabled
        assert not instance.nux_enabled
        assert instance.run_retries_enabled
        assert not instance.run_retries_retry_on_asset_or_op_failure
        assert instance.global_op_concurrency_default_limit == 2


@pytest.mark.usefixtures("_postgres_variables")
def test_the_reference_names_the_passwords_variable_and_never_the_password(tmp_path: Path) -> None:
    ref = reference(tmp_path)
    assert ref.storage_data is not None
    assert ref.storage_data.class_name == "DagsterPostgresStorage"
    assert ref.storage_data.config_dict["postgres_db"] == {
        "scheme": "postgresql+psycopg2",
        "hostname": "db.invalid",
        "port": 6543,
        "db_name": "records",
        "username": "keeper",
        "params": {},
        "password": {"env": "DAGSTER_PG_PASSWORD"},
    }
    assert "p@ss" not in serialize_value(ref)


@pytest.mark.usefixtures("_postgres_variables")
def test_every_part_of_the_records_goes_to_postgres(tmp_path: Path) -> None:
    ref = reference(tmp_path)
    parts = (ref.storage_data, ref.run_storage_data, ref.event_storage_data, ref.schedule_storage_data)
    assert {part.module_name for part in parts if part} == {"dagster_postgres"}


def test_a_host_alone_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_PG_HOST", "db.invalid")
    with pytest.raises(ConfigurationError, match="DAGSTER_PG_DB, DAGSTER_PG_USERNAME: not set"):
        reference(tmp_path)


@pytest.mark.parametrize(
    "host",
    ["postgresql://db.invalid", "keeper:s3cr3t@db.invalid", "db.invalid/records", "db.invalid:5432", "[::1]:5432"],
)
def test_what_is_no_host_alone_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    for name, value in zip(VARIABLES, (host, "5432", "records", "keeper", "p"), strict=True):
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match="DAGSTER_PG_HOST.*name or address of a server") as refused:
        reference(tmp_path)
    assert "s3cr3t" not in str(refused.value)


@pytest.mark.parametrize("host", ["fd12:3456::5", "[fd12:3456::5]"])
def test_an_address_of_ipv6_is_one_in_a_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    for name, value in zip(VARIABLES, (host, "5432", "records", "keeper", "p"), strict=True):
        monkeypatch.setenv(name, value)
    assert '"hostname": "[fd12:3456::5]"' in str(reference(tmp_path).storage_data)


def test_a_database_without_a_host_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_PG_DB", "records")
    with pytest.raises(ConfigurationError, match="DAGSTER_PG_HOST, DAGSTER_PG_USERNAME: not set"):
        reference(tmp_path)


def test_a_password_alone_decides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_PG_PASSWORD", "as the Helm chart sets it in every pod")
    ref = reference(tmp_path)
    assert ref.storage_data is not None
    assert ref.storage_data.class_name == "DagsterSqliteStorage"


def test_empty_variables_count_as_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.setenv(name, "")
    ref = reference(tmp_path)
    assert ref.storage_data is not None
    assert ref.storage_data.class_name == "DagsterSqliteStorage"


@pytest.mark.usefixtures("_postgres_variables")
def test_white_space_around_the_password_is_stripped_for_dagster_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DAGSTER_PG_PASSWORD", " p@ss/w:rd%+\n")
    reference(tmp_path)
    # As Dagster reads it when it connects.
    assert os.environ["DAGSTER_PG_PASSWORD"] == "p@ss/w:rd%+"
