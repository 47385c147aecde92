"""``event_archive.ArchivedTable`` in somebody else's project: a folder with components and assets of their own."""

import importlib
import re
import subprocess
import sys
import textwrap
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster.components.core.package_entry import get_package_objects_in_module
from dagster.components.core.snapshot import get_package_entry_snap
from dagster_shared.serdes.objects import EnvRegistryKey

import event_archive
from event_archive.config.datasets import KEYS, load_datasets
from event_archive_tests.fixtures.installation import (
    ASSETS,
    REPOSITORY,
    Installation,
    clean_environment,
    failure,
    metadata,
)
from event_archive_tests.fixtures.pipeline import DAY
from event_archive_tests.fixtures.projects import Project, component, refusal
from event_archive_tests.fixtures.pushgateway import Pushgateway
from event_archive_tests.fixtures.scheduler import Scheduler

pytestmark = pytest.mark.slow

KEY = DAY.isoformat()


PAGE = (REPOSITORY / "docs" / "howto" / "embed.md").read_text()


def run(definitions: dg.Definitions, instance: dg.DagsterInstance, job: str) -> dg.ExecuteInProcessResult:
    return definitions.resolve_job_def(job).execute_in_process(partition_key=KEY, instance=instance)


LOGS = """
CREATE TABLE logs (id bigint PRIMARY KEY, "timestamp" timestamptz NOT NULL);
INSERT INTO logs SELECT n, '2024-03-01 12:00Z' FROM generate_series(1, 4) AS n
"""


def example() -> list[str]:
    """The components of the page."""
    return re.findall(r"```yaml\n(type: event_archive\.ArchivedTable\n.*?)```", PAGE, re.DOTALL)


# Dagster's own, wherever a component brings checks.
@pytest.mark.filterwarnings("ignore:Parameter `execution_type` of function `AssetsDefinition.__init__`")
def test_the_pages_two_components_work_in_a_project_with_a_postgres_and_a_lake_of_its_own(
    project: Project, local_installation: Installation, instance: dg.DagsterInstance, clean: pytest.MonkeyPatch
):
    definitions = project(*example())
    keys = {spec.key.to_user_string() for spec in definitions.resolve_all_asset_specs()}
    assert keys == {"report", *(f"{name}/{asset}" for name in ("orders", "logs") for asset in ASSETS)}
    dg.Definitions.validate_loadable(definitions)

    # A database of its own, by a variable whose name is close to ours.
    database = local_installation.variables["PG_CONNECTION_STRING"]
    clean.delenv("PG_CONNECTION_STRING")
    clean.setenv("ORDERS_PG_CONNECTION_STRING", database)
    clean.setenv("LOGS_PG_CONNECTION_STRING", database)
    local_installation.add(3)
    local_installation.database.execute(LOGS)
    for name, rows in (("orders", 3), ("logs", 4)):
        done = run(definitions, instance, f"archive_job_{name}")
        assert metadata(done, f"{name}__purged_events")["deleted"] == rows
    assert local_installation.count() == 0
    pages = definitions.resolve_implicit_global_asset_job_def()
    downstream = [dg.AssetKey("report"), dg.AssetKey(["logs", "aged_events"])]
    assert pages.execute_in_process(partition_key=KEY, instance=instance, asset_selection=downstream).success
    with pytest.raises(dg.DagsterInvariantViolationError):
        definitions.resolve_sensor_def("failed_runs")


@pytest.mark.filterwarnings("ignore:Parameter `execution_type` of function `AssetsDefinition.__init__`")
def test_no_night_of_a_component_is_pushed_not_even_one_without_a_day(
    project: Project, local_installation: Installation, instance: dg.DagsterInstance, clean: pytest.MonkeyPatch,
    pushgateway: Pushgateway,
):  # fmt: skip
    """Without the sensor, only such nights would be: a last success that is none of the others'."""
    clean.setenv("METRICS_PUSHGATEWAY", pushgateway.url)
    scheduler = Scheduler(instance, project(component(name="orders", table="public.Event")), "_orders")
    assert scheduler.evaluate(datetime(2026, 1, 2, 2, 0, tzinfo=UTC)) == "no aged day has rows"
    assert pushgateway.groups == {}


# Dagster's own, wherever a component brings checks.
@pytest.mark.filterwarnings("ignore:Parameter `execution_type` of function `AssetsDefinition.__init__`")
def test_checks_on_a_schedule_are_those_of_all_days_and_the_one_of_a_day_says_so(
    project: Project, local_installation: Installation, instance: dg.DagsterInstance
):
    every = dg.define_asset_job("every", selection=dg.AssetSelection.all_asset_checks())
    of_all_days = dg.define_asset_job(
        "of_all_days",
        selection=dg.AssetSelection.checks(
            *(
                dg.AssetCheckKey(dg.AssetKey(["orders", "aged_events"]), name)
                for name in ("backlog_is_small", "no_orphans")
            )
        ),
    )
    theirs = project(component(name="orders", table="public.Event"))
    definitions = dg.Definitions.merge(theirs, dg.Definitions(jobs=[every, of_all_days]))
    assert definitions.resolve_job_def("of_all_days").execute_in_process(instance=instance).success
    done = definitions.resolve_job_def("every").execute_in_process(instance=instance, raise_on_error=False)
    assert 'orders (public."Event"): archive_is_whole is of one day: launch it for a partition' in failure(done)


def test_the_pages_datasets_file_tells_the_command_line_of_the_pages_components(
    tmp_path: Path, clean: pytest.MonkeyPatch
):
    from event_archive import ArchivedTable

    (indented,) = re.findall(r"  ```yaml\n(  datasets:\n.*?)  ```", PAGE, re.DOTALL)
    (tmp_path / "datasets.yaml").write_text(textwrap.dedent(indented))
    clean.setenv("DATASETS_FILE", str(tmp_path / "datasets.yaml"))
    components = [ArchivedTable(**yaml.safe_load(text)["attributes"]).settings() for text in example()]
    assert list(load_datasets()) == components


def test_a_value_may_be_text_or_what_yaml_makes_of_it(clean: pytest.MonkeyPatch):
    from event_archive import ArchivedTable

    plain = ArchivedTable(name="a", table="b", start="2020-01-01", max_days_per_run="5", dry_run="true")
    attributes = yaml.safe_load("{name: a, table: b, start: 2020-01-01, max_days_per_run: 5, dry_run: true}")
    made = ArchivedTable.from_attributes_dict(attributes=attributes)
    assert made.settings() == plain.settings()
    assert (made.settings().max_days_per_run, made.settings().dry_run) == (5, True)
    assert f"{made.settings().archive_start_date}" == "2020-01-01"


def test_the_attributes_are_the_keys_of_the_datasets_file():
    from event_archive import ArchivedTable

    assert {*ArchivedTable.model_fields} == {"name", *KEYS}


# Dagster's own, wherever a component brings checks.
@pytest.mark.filterwarnings("ignore:Parameter `execution_type` of function `AssetsDefinition.__init__`")
def test_a_day_waits_for_that_day_of_the_component_that_it_comes_after(
    project: Project, local_installation: Installation, instance: dg.DagsterInstance
):
    definitions = project(
        component(name="orders", table="public.Event", after=["notes"]),
        component(name="notes", table="public.logs", time_column="timestamp"),
    )
    dg.Definitions.validate_loadable(definitions)
    specs = {spec.key.to_user_string(): spec for spec in definitions.resolve_all_asset_specs()}
    upstream = [dep.asset_key.to_user_string() for dep in specs["orders/purged_events"].deps]
    assert upstream == ["orders/archive_csv", "notes/purged_events"]
    local_installation.add(3)
    local_installation.database.execute(LOGS)
    job = definitions.resolve_job_def("archive_job_orders")
    early = job.execute_in_process(partition_key=KEY, instance=instance, raise_on_error=False)
    assert 'orders (public."Event"), 2024-03-01: it comes after notes (public.logs)' in failure(early)
    for name, rows in (("notes", 4), ("orders", 3)):
        assert metadata(run(definitions, instance, f"archive_job_{name}"), f"{name}__purged_events")["deleted"] == rows


# Dagster's own, wherever a component brings checks.
@pytest.mark.filterwarnings("ignore:Parameter `execution_type` of function `AssetsDefinition.__init__`")
def test_a_component_works_in_a_project_that_has_no_components(clean: pytest.MonkeyPatch):
    from event_archive import ArchivedTable

    definitions = dg.build_defs_for_component(ArchivedTable(name="logs", table="public.logs"))
    dg.Definitions.validate_loadable(definitions)
    assert definitions.resolve_job_def("archive_job_logs")
    waiting = ArchivedTable(name="logs", table="public.logs", after=["details"])
    assert "logs.after names details, which is no dataset" in refusal(lambda: dg.build_defs_for_component(waiting))


def test_dagster_finds_the_component_and_whoever_does_not_ask_for_it_imports_no_dagster():
    declared = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["entry-points"]
    (module,) = declared["dagster_dg_cli.registry_modules"].values()
    found = dict(get_package_objects_in_module(importlib.import_module(module)))
    assert found == {"ArchivedTable": event_archive.ArchivedTable}
    # As `dg` lists it, with the schema that editors check a defs.yaml by.
    schema = str(get_package_entry_snap(EnvRegistryKey(module, "ArchivedTable"), found["ArchivedTable"]))
    assert [name for name in event_archive.ArchivedTable.model_fields if f"'{name}': " not in schema] == []
    with pytest.raises(AttributeError, match="has no attribute 'ArchivedTabel'"):
        getattr(event_archive, "ArchivedTabel")  # noqa: B009 (mypy knows that it is not there)
    code = "import sys, event_archive; sys.exit('dagster' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], env=clean_environment(), check=True, timeout=60)
