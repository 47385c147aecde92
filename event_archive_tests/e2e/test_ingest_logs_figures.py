"""The figures that ``event-archive ingest logs`` leaves, and the memory that it takes."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from event_archive_tests.fixtures.installation import Commands, clean_environment
from event_archive_tests.fixtures.log_files import Logs, array, entry, ndjson, variables
from event_archive_tests.fixtures.pushgateway import Pushgateway

pytestmark = pytest.mark.slow

LIMIT_MIB = 150
DECODED_BYTES = 200_000_000

_RUN = """
import atexit, json, os, sys
from pathlib import Path
told = Path(sys.argv.pop(1))
def tell():
    status = Path("/proc/self/status").read_text()
    peak = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
    told.write_text(json.dumps([int(peak) / 1024, sum(os.times()[:2])]))
atexit.register(tell)
from event_archive.cli import main
main()
"""


def figures(path: Path) -> dict[str, float]:
    """The values of a file by their metric, or outcome; all must be of log files."""
    families = text_string_to_metric_families(path.read_text())
    found = {}
    for sample in (sample for family in families for sample in family.samples):
        labels = dict(sample.labels)
        assert labels.pop("source") == "logs"
        found[labels.get("outcome", sample.name.removeprefix("event_archive_ingest_"))] = sample.value
    return found


def test_a_run_leaves_its_figures_for_prometheus_beside_those_of_the_archive(
    logs: Logs, command: Commands, tmp_path: Path
):
    settings = variables(logs) | {"METRICS_TEXTFILE": str(tmp_path / "event_archive.prom")}
    logs.write("a.log", ndjson(entry(1), entry(2), {"no": "time"}))
    logs.write("b.gz", array(entry(3))[:-5])
    logs.write("c.log", ndjson(entry(4)))
    gone = settings | {"LOGS_URL": f"file://{tmp_path}/nowhere"}
    assert command("ingest", "logs", **gone).code == 1
    path = tmp_path / "event_archive_logs.prom"
    assert (figures(path)["last_success_timestamp_seconds"], figures(path)["taken"]) == (0, 0)
    assert "waiting_files" not in figures(path)
    assert command("ingest", "logs", "--limit", "2", **settings).code == 1
    found = figures(path)
    assert found.pop("last_run_timestamp_seconds") > 1.7e9
    assert found.pop("last_success_timestamp_seconds") == 0, "a file failed"
    assert found.pop("run_seconds") > 0
    assert found == {
        "taken": 3,
        "new": 2,
        "rejected": 1,
        "known": 0,
        "superseded": 0,
        "too_old": 0,
        "lost": 0,
        "waiting_files": 1,
        "overdue_files": 0,
        "failed_files": 1,
    }
    assert command("ingest", "logs", **settings).code == 0
    assert figures(path)["last_run_timestamp_seconds"] == figures(path)["last_success_timestamp_seconds"]
    assert command("ingest", "logs", **gone).code == 1
    assert 0 < figures(path)["last_success_timestamp_seconds"] < figures(path)["last_run_timestamp_seconds"]
    assert not (tmp_path / "event_archive.prom").exists()


def test_a_run_of_one_file_leaves_the_figures_of_all_as_they_are(
    logs: Logs, command: Commands, pushgateway: Pushgateway, tmp_path: Path
):
    settings = variables(logs) | {
        "METRICS_TEXTFILE": str(tmp_path / "event_archive.prom"),
        "METRICS_PUSHGATEWAY": pushgateway.url,
    }
    logs.write("b.gz", array(entry(3))[:-5])
    assert command("ingest", "logs", **settings).code == 1
    path = tmp_path / "event_archive_logs.prom"
    told = path.read_text()
    single = logs.write("a.log", ndjson(entry(1)))
    assert command("ingest", "logs", "--file", str(single), **settings).code == 0
    assert path.read_text() == told, "b.gz is left failed"
    group = ("job", "event_archive", "source", "logs")
    assert pushgateway.of(*group)["event_archive_ingest_failed_files"] == 1


def test_a_run_pushes_its_figures_and_says_nothing_of_the_last_success_where_it_failed(
    logs: Logs, command: Commands, pushgateway: Pushgateway, tmp_path: Path
):
    settings = variables(logs) | {"METRICS_PUSHGATEWAY": pushgateway.url}
    logs.write("b.gz", array(entry(3))[:-5])
    assert command("ingest", "logs", **settings | {"LOGS_URL": f"file://{tmp_path}/nowhere"}).code == 1
    group = ("job", "event_archive", "source", "logs")
    success = "event_archive_ingest_last_success_timestamp_seconds"
    assert success not in pushgateway.of(*group)
    assert command("ingest", "logs", **settings).code == 1
    assert pushgateway.of(*group)["event_archive_ingest_failed_files"] == 1
    assert success not in pushgateway.of(*group)
    assert command("ingest", "logs", **settings).code == 0
    assert pushgateway.of(*group)[success] > 1.7e9
    pushgateway.statuses = [500]
    away = command("ingest", "logs", **settings)
    assert away.code == 0
    assert "the run could not be measured: METRICS_PUSHGATEWAY answers 500" in away.said
    assert "s3cr3t" not in away.said


def _entry(number: int) -> bytes:
    return json.dumps(entry(number, headers={f"x-header-{n}": "value " * 4 for n in range(10)})).encode()


def _write(path: Path, kind: str) -> None:
    """About as many bytes as are said, decoded, in a process's usual entries."""
    block = [_entry(number) for number in range(1000)]
    times = DECODED_BYTES // sum(map(len, block))
    with gzip.open(path, "wb", compresslevel=1) as file:
        if kind == "lines":
            file.writelines((b"\n".join(block) + b"\n") for _ in range(times))
        else:
            file.write(b"[" + b",".join(block))
            file.writelines(b"," + b",".join(block) for _ in range(times - 1))
            file.write(b"]")


# 6: told by the bytes, in flat memory
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lines", "array"])
def test_a_large_file_needs_little_memory(logs: Logs, tmp_path: Path, kind: str):
    _write(logs.folder / "large.gz", kind)
    told = tmp_path / "told"
    subprocess.run(
        [sys.executable, "-c", _RUN, str(told), "ingest", "logs"],
        env=clean_environment(**variables(logs)),
        check=True,
        capture_output=True,
        timeout=280,
    )
    peak_mib, cpu_seconds = json.loads(told.read_text())
    assert logs.files("status") == [("COMPLETED",)]
    assert peak_mib <= LIMIT_MIB
    per_100_mb = cpu_seconds * 100_000_000 / DECODED_BYTES
    print(f"{kind}: {peak_mib:.0f} MiB, {per_100_mb:.2f} s of CPU for 100 MB")


@pytest.mark.slow
def test_a_hundred_thousand_files_are_listed_in_little_memory(logs: Logs, tmp_path: Path):
    content = ndjson(entry(1))
    for number in range(100):
        folder = logs.folder / f"{number:03}"
        folder.mkdir()
        first = folder / "0000.log"
        first.write_bytes(content)
        for other in range(1, 1000):
            os.link(first, folder / f"{other:04}.log")
    told = tmp_path / "told"
    subprocess.run(
        [sys.executable, "-c", _RUN, str(told), "ingest", "logs", "--limit", "20"],
        env=clean_environment(**variables(logs)),
        check=True,
        capture_output=True,
        timeout=280,
    )
    peak_mib, cpu_seconds = json.loads(told.read_text())
    assert logs.database.execute("SELECT status, count(*)::int FROM processed_files GROUP BY 1 ORDER BY 1") == [
        *(("COMPLETED", 20), ("PENDING", 99_980))
    ]
    print(f"100,000 files: {peak_mib:.0f} MiB, {cpu_seconds:.1f} s of CPU")
    assert peak_mib <= LIMIT_MIB
