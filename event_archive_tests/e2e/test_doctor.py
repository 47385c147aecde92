"""The doctor as people call him: a process, its output, its exit code."""

import json
from pathlib import Path

import pytest

from event_archive_tests.fixtures.doctor import CHECKS, WEBHOOK
from event_archive_tests.fixtures.installation import Installation
from event_archive_tests.fixtures.pipeline import DAY

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_standard_output_is_one_document_whatever_the_logs(healthy: Installation, home: Path, log_format: str):
    healthy.add(1)
    healthy.add(1, day=DAY.replace(year=1999), prefix="orphan")
    done = healthy.cli("doctor", "--json", DAGSTER_HOME=str(home), LOG_FORMAT=log_format)
    assert (done.code, done.stderr) == (0, "")
    assert WEBHOOK not in done.said
    document = json.loads(done.stdout)
    assert document["good"] is True
    assert [check["name"] for check in document["checks"]] == CHECKS
    bothered = {check["name"]: check["status"] for check in document["checks"] if check["status"] != "good"}
    assert bothered == {"orphans": "warning", "dagster_daemon": "warning"}
    assert list(healthy.lake.list(healthy.dataset.folder)) == []
    assert healthy.database.execute('SELECT count(*) FROM "Event"') == [(2,)]


def test_without_any_variable_he_still_answers(healthy_locally: Installation):
    done = healthy_locally.cli("doctor", PG_CONNECTION_STRING="", ARCHIVE_LOCAL_PATH="")
    assert (done.code, done.stderr) == (2, "")
    *findings, totals = done.lines
    assert [finding["check"] for finding in findings] == CHECKS
    assert (findings[0]["check"], findings[0]["outcome"]) == ("settings", "bad")
    assert "PG_CONNECTION_STRING is not set" in findings[0]["error"]
    assert (totals["outcome"], totals["checks"]) == ("failed", len(CHECKS))
    shown_to_a_person = healthy_locally.cli(
        "doctor", PG_CONNECTION_STRING="", ARCHIVE_LOCAL_PATH="", LOG_FORMAT="console"
    )
    lines = shown_to_a_person.stdout.splitlines()
    assert lines[0].startswith("✗ settings ")
    assert "says where the files go; none is set" in shown_to_a_person.stdout
    shown = [line.split()[1] for line in lines if line[0] in "✓!✗"]
    skipped = [name for line in lines if line.startswith("- ") for name in line[2:].split(":")[0].split(", ")]
    assert sorted(shown + skipped) == sorted(CHECKS)
