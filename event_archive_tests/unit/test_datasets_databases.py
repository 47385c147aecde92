"""Databases of datasets: whose variables name them, and which are the same."""

import pytest

from event_archive.config.datasets import load_datasets
from event_archive.config.environment import misspelt
from event_archive.errors import ConfigurationError
from event_archive_tests.fixtures.datasets_file import DSN, SECRET, WriteDatasets, refused


def test_one_table_of_two_databases_is_two_tables(write_datasets: WriteDatasets, monkeypatch: pytest.MonkeyPatch):
    text = "datasets: {a: {table: t}, b: {table: t, pg_connection_string_env: PG_CONNECTION_STRING_OF_B}}"
    write_datasets(text)
    assert len(load_datasets()) == 2
    for name in ("PG_CONNECTION_STRING", "PG_CONNECTION_STRING_OF_B"):
        monkeypatch.setenv(name, DSN)
    assert "a and b are one table, public.t." in refused()[1]


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ("host=host dbname=events user=reporter password=x", True),
        ("postgres://host/events?sslmode=require", True),
        ("host=host dbname=events port=5433", False),
        ("host=host dbname=other", False),
        ("host=elsewhere dbname=events", False),
    ],
)
def test_a_database_is_known_by_any_role_and_in_any_form(
    write_datasets: WriteDatasets, monkeypatch: pytest.MonkeyPatch, other: str, *, same: bool
):
    write_datasets("datasets: {a: {table: t}, b: {table: t, pg_connection_string_env: PG_CONNECTION_STRING_OF_B}}")
    monkeypatch.setenv("PG_CONNECTION_STRING", DSN)
    monkeypatch.setenv("PG_CONNECTION_STRING_OF_B", other)
    if same:
        assert "a and b are one table, public.t." in refused()[1]
    else:
        assert len(load_datasets()) == 2


def test_many_datasets_that_all_come_after_one_another_load_at_once(write_datasets: WriteDatasets):
    names = [f"d{number}" for number in range(60)]
    lines = [f"  {name}: {{table: {name}, after: [{', '.join(names[:number])}]}}" for number, name in enumerate(names)]
    write_datasets("\n".join(["datasets:", *lines]))
    assert len(load_datasets()) == len(names)


def test_a_dataset_reads_the_variables_that_it_names(write_datasets: WriteDatasets, monkeypatch: pytest.MonkeyPatch):
    write_datasets("datasets: {a: {table: t}, b: {table: u, pg_connection_string_env: PG_CONNECTION_STRING_OF_B}}")
    monkeypatch.setenv("ARCHIVE_LOCAL_PATH", "/lake")
    monkeypatch.setenv("PG_CONNECTION_STRING", "host=one")
    monkeypatch.setenv("EXPORT_PG_CONNECTION_STRING", "host=replica-of-one")
    a, b = load_datasets()
    with pytest.raises(ConfigurationError, match="PG_CONNECTION_STRING_OF_B is not set, which the dataset b needs"):
        b.with_secrets()
    monkeypatch.setenv("PG_CONNECTION_STRING_OF_B", "host=two")
    assert misspelt() == []
    assert a.with_secrets().pg_connection_string.get_secret_value() == "host=one"
    assert a.with_secrets().export_pg_connection_string is not None
    assert b.with_secrets().pg_connection_string.get_secret_value() == "host=two"
    assert b.with_secrets().export_pg_connection_string is None, "the replica of another database"


@pytest.mark.parametrize(
    ("b", "replica"),
    [
        ("pg_connection_string_env: OF_B", None),
        ("pg_connection_string_env: OF_B, export_pg_connection_string_env: REPLICA_OF_B", "host=replica-of-two"),
        ("pg_connection_string_env: PG_CONNECTION_STRING", "host=replica-of-one"),
        ("folder: x", "host=replica-of-one"),
    ],
)
def test_a_dataset_with_a_database_of_its_own_has_no_replica_of_another(
    write_datasets: WriteDatasets, monkeypatch: pytest.MonkeyPatch, b: str, replica: str | None
):
    variables = {"OF_B": "host=two", "REPLICA_OF_B": "host=replica-of-two", "REPLICA": "host=replica-of-one"}
    for name, value in {"ARCHIVE_LOCAL_PATH": "/lake", "PG_CONNECTION_STRING": "host=one", **variables}.items():
        monkeypatch.setenv(name, value)
    for defaults in ("export_pg_connection_string_env: REPLICA", ""):
        monkeypatch.setenv("EXPORT_PG_CONNECTION_STRING", "" if defaults else "host=replica-of-one")
        write_datasets(f"defaults: {{{defaults}}}\ndatasets: {{b: {{table: t, {b}}}}}")
        secret = load_datasets()[0].with_secrets().export_pg_connection_string
        assert (secret and secret.get_secret_value()) == replica


def test_a_wrong_value_of_a_named_variable_is_told_by_its_name(
    write_datasets: WriteDatasets, monkeypatch: pytest.MonkeyPatch
):
    write_datasets("datasets: {b: {table: u, pg_connection_string_env: EVENTS_DATABASE}}")
    monkeypatch.setenv("ARCHIVE_LOCAL_PATH", "/lake")
    monkeypatch.setenv("EVENTS_DATABASE", f"mysql://user:{SECRET}@host/x")
    with pytest.raises(ConfigurationError, match=r"EVENTS_DATABASE holds \(a secret, not shown\)") as error:
        load_datasets()[0].with_secrets()
    assert SECRET not in str(error.value)
