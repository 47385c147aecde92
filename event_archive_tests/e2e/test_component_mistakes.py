"""Mistakes in ``defs.yaml``, and components that contradict one another."""

import pytest

from event_archive_tests.fixtures.projects import SECRET, Project, component, refusal

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({"name": "a", "table": "b", "retention": "x", "start": 0}, ["a.retention holds 'x'", "a.start holds '0'"]),
        ({"name": "a", "table": "b", "retension": SECRET}, ["retension is no key", "did you mean retention?"]),
        ({"table": [SECRET]}, ["ArchivedTable.name is missing.", "ArchivedTable.table must hold one value."]),
        ({"name": "A b", "table": "b"}, ["'A b' is no name of a dataset"]),
        ({"name": "a", "table": "b", "cron": "61 2 * * *"}, ["a.cron holds '61 2 * * *'"]),
        ({"name": "a", "table": "b", "after": SECRET}, ["ArchivedTable.after must be a list of names"]),
        ({"name": "a", "table": "b", "after": [[SECRET]]}, ["ArchivedTable.after must be a list of names"]),
        ({"name": "a", "table": "b", "after": ["c"]}, ["a.after names c, which is no dataset"]),
        ({"name": "a", "table": "b", "after": ["a"], "purge": "drop"}, ["a has purge: drop and after"]),
        ({"name": f"postgresql://u:{SECRET}@h/d", "table": "b"}, ["is no name of a dataset"]),
    ],
)
def test_mistakes_in_defs_yaml_are_told_in_one_message(
    project: Project, attributes: dict[str, object], said: list[str]
):
    found = refusal(lambda: project(component(**attributes)))
    assert [words for words in said if words not in found] == []


@pytest.mark.parametrize(
    ("b", "said"),
    [
        ({"table": "t"}, "and b are one table, public.t."),
        ({"table": "u", "file_prefix": "a"}, "and b have one folder and file_prefix, titan-pulse-event-archive/a."),
        ({"table": "u", "asset_keys": "bare"}, "and b have asset_keys: bare"),
        ({"table": "u", "after": ["a"]}, "after goes round in a circle"),
        ({"table": "u", "name": "a"}, "a is the name of 2 components."),
    ],
)
def test_two_components_that_contradict_one_another_are_refused(project: Project, b: dict[str, object], said: str):
    extra = {key: value for key, value in {"asset_keys": "bare", "after": ["b"]}.items() if key in b}
    found = refusal(lambda: project(component(name="a", table="t", **extra), component(**{"name": "b"} | b)))
    assert said in found.replace("b and a", "a and b")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("pg_connection_string", f"postgresql://archiver:{SECRET}@db/events"),
        ("pg_connection_string_env", f"postgresql://archiver:{SECRET}@db/events"),
        ("pg_connection_string_env", "{{ env.DATABASE_URL }}"),
        ("folder", f"host=db password={SECRET}"),
    ],
)
def test_a_secret_in_defs_yaml_is_refused_and_not_repeated(
    project: Project, clean: pytest.MonkeyPatch, key: str, value: str
):
    clean.setenv("DATABASE_URL", f"postgresql://archiver:{SECRET}@db/events")
    found = refusal(lambda: project(component(name="a", table="b", **{key: value})))
    assert "pg_connection_string_env" in found


def test_the_variables_of_the_project_around_it_are_none_of_its_business(clean: pytest.MonkeyPatch):
    from event_archive import ArchivedTable

    for theirs in ("LOG_RETENTION", "DBT_DRY_RUN", "EVENT_TABEL", "SHOP_PG_CONNECTION_STRING"):
        clean.setenv(theirs, "1")
    assert not ArchivedTable(name="a", table="b").settings().dry_run
    # Whoever writes this expects that nothing is deleted.
    clean.setenv("DRYRUN", "1")
    assert "DRYRUN is no variable of event_archive" in refusal(lambda: ArchivedTable(name="a", table="b"))
