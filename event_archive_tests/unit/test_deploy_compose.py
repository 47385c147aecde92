"""The compose file and its samples, and the workflow that makes the image. No engine and no runner runs here."""

import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from event_archive.cli.commands import commands
from event_archive.config.datasets import load_datasets
from event_archive.config.environment import InstanceSettings, Settings, misspelt
from event_archive.config.sources import ApiSettings, LogsSettings, StreamSettings
from event_archive_tests.deploy.manifests import ROOT, Document
from event_archive_tests.fixtures.buckets import TestBucket
from event_archive_tests.fixtures.installation import Commands
from event_archive_tests.fixtures.postgres import Database

FOLDER = ROOT / "deploy"
COMPOSE: Document = yaml.safe_load((FOLDER / "compose.yaml").read_text())
WORKFLOW: dict[Any, Any] = yaml.safe_load((ROOT / ".gitea/workflows/build.yml").read_text())
SERVICES: dict[str, Document] = COMPOSE["services"]
OF_THE_STREAM = {name.upper() for name in StreamSettings.model_fields}


def fits(file: Path, schema: str) -> bool:
    """Whether a file fits a schema that check-jsonschema brings along."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", str(file)]
    return subprocess.run(command, check=False).returncode == 0


@pytest.mark.parametrize(
    ("name", "schema", "right", "wrong"),
    [
        ("deploy/compose.yaml", "compose-spec", "healthcheck:", "healthchek:"),
        (".gitea/workflows/build.yml", "github-workflows", "runs-on:", "run-on:"),
    ],
)
def test_a_file_fits_its_schema_and_one_with_a_mistake_does_not(
    name: str, schema: str, right: str, wrong: str, tmp_path: Path
):
    assert fits(ROOT / name, schema)
    text = (ROOT / name).read_text()
    (tmp_path / "wrong.yaml").write_text(text.replace(right, wrong, 1))
    assert not fits(tmp_path / "wrong.yaml", schema)


def test_whoever_is_waited_for_says_when_it_is_healthy():
    waited = {
        (name, condition["condition"])
        for of in SERVICES.values()
        for name, condition in of.get("depends_on", {}).items()
    }
    assert {name for name, _ in waited} <= SERVICES.keys()
    for name, condition in waited:
        assert condition != "service_healthy" or "healthcheck" in SERVICES[name], name
    assert {"postgres", "azurite", "valkey", "s3"} <= {name for name, _ in waited}


def test_the_files_that_the_compose_file_mounts_exist():
    mounted = [mount.split(":")[0] for of in SERVICES.values() for mount in of.get("volumes", [])]
    for source in mounted:
        assert (FOLDER / source).exists() if source.startswith(".") else source in COMPOSE["volumes"], source
    named = {config["source"] for of in SERVICES.values() for config in of.get("configs", [])}
    assert named == COMPOSE["configs"].keys()
    assert (FOLDER / SERVICES["azurite"]["build"]["context"] / "package-lock.json").exists()


def test_containers_of_the_image_may_do_little_and_nothing_is_reached_from_other_machines():
    for name, of in SERVICES.items():
        if of.get("image", "").endswith("/event-archive:0.1.0"):
            assert (of["read_only"], of["cap_drop"], of["tmpfs"]) == (True, ["ALL"], ["/tmp"]), name
        assert all(port.startswith("127.0.0.1:") for port in of.get("ports", []))


def test_the_compose_files_variables_and_datasets_are_read(tmp_path: Path, clean: pytest.MonkeyPatch):
    given = SERVICES["code-server"]["environment"]
    known = {name.upper() for of in (Settings, InstanceSettings, ApiSettings, LogsSettings) for name in of.model_fields}
    assert given.keys() <= known | OF_THE_STREAM | {"DAGSTER_HOME"}
    (tmp_path / "datasets.yaml").write_text(COMPOSE["configs"]["datasets"]["content"])
    for name, value in (given | {"DATASETS_FILE": str(tmp_path / "datasets.yaml")}).items():
        clean.setenv(name, value)
    assert [str(of.dataset.table) for of in load_datasets()][:2] == ['public."Event"', "public.ingested_events"]
    assert (ApiSettings.load().api_base_url, LogsSettings.load().logs_url) == ("http://127.0.0.1:8000", "s3://logs/")
    assert InstanceSettings.load().dagster_pg_db == "dagster"
    assert misspelt() == []


def test_the_commands_of_the_compose_file_are_ours():
    (script,) = [text for text in SERVICES["try"]["command"] if "\n" in text]
    for words in re.findall(r"^event-archive (.+)$", script, re.MULTILINE):
        assert words.split()[0] in commands.commands
    assert SERVICES["stream"]["command"] == ["event-archive", "ingest", "stream"]


def test_the_samples_are_taken_in_and_archived(
    database: Database, bucket: TestBucket, command: Commands, clean: pytest.MonkeyPatch, tmp_path: Path
):
    with psycopg.connect(database.dsn) as connection:
        connection.execute('DROP TABLE "Event"')
    lake = {"ARCHIVE_LOCAL_PATH": str(tmp_path / "lake")}
    for name, value in ({"PG_CONNECTION_STRING": database.dsn} | bucket.variables | lake).items():
        clean.setenv(name, value)
    samples = runpy.run_path(str(FOLDER / "compose/samples.py"))
    for _ in range(2):
        samples["fill_table"]()
        samples["put_log_file"]()
    loaded = command("ingest", "logs")
    assert (loaded.code, loaded.end["new"]) == (0, 100)
    archived = command("run")
    assert (archived.code, archived.end["deleted"]) == (0, samples["DAYS"] * samples["EVENTS_A_DAY"])


def test_the_image_is_made_of_what_ci_checked_and_named_by_its_commit():
    check, image = WORKFLOW["jobs"]["check"], WORKFLOW["jobs"]["image"]
    assert [step["run"] for step in check["steps"] if "run" in step] == ["bash .ci/run"]
    assert image["needs"] == "check"
    # YAML reads the key `on` as true.
    assert WORKFLOW[True]["push"] == {"branches": ["main"]}
    (build,) = [step["run"] for step in image["steps"] if "run" in step]
    assert '--tag "$IMAGE:main" --tag "$IMAGE:$GITHUB_SHA"' in build
    assert build.count("rewrite-timestamp=true") == 3
