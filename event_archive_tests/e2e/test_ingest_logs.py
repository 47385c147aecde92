"""``event-archive ingest logs``: what it says, how it ends, what it needs.

The numbers in the comments are those of the hardest cases of an ingestion of log files.
"""

import gzip
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from event_archive.sources.log_files import status
from event_archive_tests.fixtures.installation import Commands, clean_environment
from event_archive_tests.fixtures.log_files import Logs, array, entry, ndjson
from event_archive_tests.fixtures.pushgateway import Pushgateway
from event_archive_tests.fixtures.webhook import Webhook

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


def variables(logs: Logs) -> dict[str, str]:
    return {"PG_CONNECTION_STRING": logs.database.dsn, "LOGS_URL": f"file://{logs.folder}"}


def test_files_are_loaded_told_about_and_tried_again(logs: Logs, command: Commands):
    logs.write("a.log", ndjson(entry(1), entry(2, timestamp="2020-01-01T00:00:00Z"), {"secret": "hunter2"}))
    damaged = logs.write("b.gz", array(entry(3))[:-5])
    first = command("ingest", "logs", **variables(logs))
    assert first.code == 1, "a file failed"
    end = first.end
    assert (end["outcome"], end["files"], end["failed"]) == ("failed", 1, 1)
    assert (end["new"], end["rejected"], end["contradictions"]) == (2, 1, 1)
    assert "gzip is cut short" in str(end["error"])

    status = command("ingest", "logs", "--status", **variables(logs))
    assert status.code == 0
    assert [(line["outcome"], line.get("files"), line.get("rows")) for line in status.lines] == [
        *(("completed", 1, 2), ("failed", 1, 0), ("file", None, None), ("done", 2, None))
    ]
    assert status.lines[2]["key"] == str(damaged)
    assert command("ingest", "logs", **variables(logs)).code == 0, "nothing waits"
    again = command("ingest", "logs", "--retry-failed", **variables(logs))
    assert (again.code, again.end["failed"]) == (1, 1)
    assert "hunter2" not in first.said + status.said + again.said

    one = logs.folder.parent / "one.log"
    one.write_bytes(ndjson(entry(7)))
    alone = command("ingest", "logs", "--file", str(one), PG_CONNECTION_STRING=logs.database.dsn)
    assert (alone.code, alone.end["new"]) == (0, 1)


def test_a_file_that_is_named_is_tried_again_at_once(logs: Logs, command: Commands):
    damaged = logs.write("b.gz", array(entry(3))[:-5])
    for _ in range(2):
        tried = command("ingest", "logs", "--file", str(damaged), PG_CONNECTION_STRING=logs.database.dsn)
        assert (tried.code, tried.end["failed"]) == (1, 1)


def test_people_read_of_one_file_and_where_to_look_for_what_was_rejected(logs: Logs, command: Commands):
    logs.write("a.log", ndjson(entry(1), {"secret": "hunter2"}))
    logs.write("b.gz", array(entry(3))[:-5])
    console = variables(logs) | {"LOG_FORMAT": "console"}
    told = command("ingest", "logs", **console).stdout
    assert re.match(r"ingestion failed: 1 file, 2 entries in .*: 1 new, 1 rejected; 1 file failed\n", told)
    assert "\nevent-archive rejected --source logs says what was rejected, and why.\n" in told
    status = command("ingest", "logs", "--status", **console).stdout
    assert re.search(
        r"^ +1  COMPLETED   1 row, 1 rejected; the oldest written \d{4}-\d\d-\d\d \d\d:\d\d UTC$", status, re.MULTILINE
    )
    assert re.search(r"b\.gz: .* \(tried 1 time; again at \d{4}-\d\d-\d\d \d\d:\d\d UTC\)$", status, re.MULTILINE)
    logs.wait_no_more()
    status = command("ingest", "logs", "--status", **console).stdout
    assert re.search(r"b\.gz: .* \(tried 1 time; again by the next run\)$", status, re.MULTILINE)
    replayed = command("rejected", "--replay", **console).stdout
    assert replayed == "logs: 0 records landed, 1 is rejected still.\n"


def test_an_emptied_file_says_how_many_rows_went_with_its_former_version(logs: Logs, command: Commands):
    logs.write("a.log", ndjson(entry(1), entry(2)))
    assert command("ingest", "logs", **variables(logs)).end["removed"] == 0
    logs.write("a.log", b"")
    told = command("ingest", "logs", **variables(logs), LOG_FORMAT="console").stdout
    assert re.match(r"ingestion complete: 1 file, 0 entries in .*: 0 new; 2 rows of former versions removed\n", told)
    logs.write("a.log", ndjson(entry(3)))
    assert command("ingest", "logs", **variables(logs)).end["removed"] == 0
    logs.write("a.log", ndjson(entry(4), entry(5)))
    assert command("ingest", "logs", **variables(logs)).end["removed"] == 1


def test_of_many_files_that_failed_each_is_listed_or_counted(
    logs: Logs, command: Commands, monkeypatch: pytest.MonkeyPatch
):
    for number in range(25):
        logs.write(f"{number:02}.gz", array(entry(1))[:-5])
    logs.run()
    listed = command("ingest", "logs", "--status", **variables(logs)).lines
    assert sum(line["outcome"] == "file" for line in listed) == 25
    monkeypatch.setattr(status, "_FAILED_SHOWN", 20)
    told = command("ingest", "logs", "--status", **variables(logs), LOG_FORMAT="console").stdout
    assert told.endswith(")\nAnd 5 others: those whose status is FAILED in processed_files.\n")


def test_of_many_reasons_the_most_frequent_are_listed(logs: Logs, command: Commands):
    logs.write("a.log", b"".join(b'{"%s":}\n' % (b"a" * number) for number in range(30)))
    command("ingest", "logs", **variables(logs))
    told = command("rejected", LOG_FORMAT="console", PG_CONNECTION_STRING=logs.database.dsn)
    reasons, _, _ = told.stdout.partition("\n\n")
    assert len(reasons.splitlines()) == 21
    assert reasons.splitlines()[-1] == "      10  for other reasons"


@pytest.mark.parametrize(
    ("arguments", "changes", "words"),
    [
        ((), {"LOGS_URL": "ftp://somewhere"}, "must be like s3://BUCKET/PREFIX"),
        ((), {"LOGS_URL": ""}, "LOGS_URL"),
        ((), {"LOGS_MAPPING": "/nowhere.yaml"}, "cannot be read"),
        ((), {"LOGS_URL": "az://container"}, "AZURE_STORAGE_CONNECTION_STRING"),
        ((), {"AWS_ACCESS_KEY_ID": "a"}, "set together"),
        ((), {"LOGS_URL": "s3://bucket", "AWS_REGION": "eu central"}, "Check AWS_REGION"),
        ((), {"LOGS_URL": "s3://bucket", "AWS_PROFILE": "nobody"}, "AWS_PROFILE where it is set"),
        (("--every", "soon"), {}, "is not a duration"),
        (("--every", "1 second"), {"LOGS_URL": "az://container"}, "AZURE_STORAGE_CONNECTION_STRING"),
        (("--status", "--retry-failed"), {}, "--status only looks"),
        (("--file", "/nowhere.log"), {}, "does not exist"),
    ],
)
def test_what_is_wrong_with_the_settings_is_said_with_exit_code_2(
    logs: Logs, command: Commands, arguments: tuple[str, ...], changes: dict[str, str], words: str
):
    told = command("ingest", "logs", *arguments, **(variables(logs) | changes))
    assert told.code == 2
    assert words in told.said


def test_a_run_that_failed_and_a_file_that_was_given_up_are_announced(
    logs: Logs, command: Commands, webhook: Webhook, tmp_path: Path
):
    settings = variables(logs) | {"ALERT_WEBHOOK_URL": webhook.url, "LOGS_MAX_ATTEMPTS": "2"}
    logs.write("a.log", ndjson({"secret": "hunter2"}, entry(1)))
    damaged = logs.write("b.gz", array(entry(3, secret="hunter2"))[:-5])
    assert command("ingest", "logs", **settings).code == 1
    assert webhook.texts == [], "the file is tried again"
    logs.wait_no_more()
    webhook.statuses = [404]
    refused = command("ingest", "logs", **settings)
    assert refused.code == 1
    assert "given up could not be announced: ALERT_WEBHOOK_URL answers 404" in refused.said
    assert command("ingest", "logs", **settings).code == 0
    assert command("ingest", "logs", **settings).code == 0
    (text,) = webhook.texts
    first, reason, last = text.splitlines()
    assert first == "event_archive: 1 log file was given up."
    assert reason.startswith(f"{damaged}: Its gzip is cut short")
    assert "--retry-failed" in last

    gone = settings | {"LOGS_URL": f"file://{tmp_path}/nowhere"}
    assert command("ingest", "logs", **gone).code == 1
    assert webhook.texts[1].startswith("event_archive: public.logs: failed.")
    assert "LOGS_URL must name a folder" in webhook.texts[1]
    assert len(webhook.texts) == 2
    assert "hunter2" not in "".join(webhook.texts) + refused.said


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


def test_a_link_that_somebody_names_is_the_file_that_a_run_over_the_folder_knows(logs: Logs, command: Commands):
    logs.write("a.log", ndjson(entry(1)))
    logs.write("sub/b.log", ndjson(entry(2)))
    settings = variables(logs)
    assert command("ingest", "logs", **settings).code == 0
    (logs.folder / "other").mkdir()
    for name, target in (("sub/up", "../a.log"), ("other/across", "../sub/b.log")):
        link = logs.folder / name
        link.symlink_to(target)
        assert command("ingest", "logs", "--file", str(link), **settings).code == 0
    assert len(logs.rows()) == 2


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


@pytest.fixture
def watching(logs: Logs) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-m", "event_archive.cli", "ingest", "logs", "--every", "1 second"],
        env=clean_environment(**variables(logs)),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.kill()


def test_every_goes_on_until_it_is_told_to_stop(logs: Logs, watching: subprocess.Popen[str]):
    assert watching.stdout is not None
    ends = (line for line in map(json.loads, watching.stdout) if "files" in line)
    assert next(ends)["files"] == 0
    # Written whole at once, so that no half of it is read.
    logs.write(".a", ndjson(entry(1))).rename(logs.folder / "a.log")
    assert next(end for end in ends if end["files"])["new"] == 1
    watching.send_signal(signal.SIGTERM)
    assert watching.wait(timeout=20) == 128 + signal.SIGTERM


_STOPPED_BETWEEN = """
import os, signal
from event_archive.sources import runs
runs.wait = lambda *_: os.kill(os.getpid(), signal.SIGTERM)
from event_archive.cli import main
main()
"""


def test_a_stop_between_two_runs_begins_no_other(logs: Logs):
    told = subprocess.run(
        [sys.executable, "-c", _STOPPED_BETWEEN, "ingest", "logs", "--every", "1 hour"],
        env=clean_environment(**variables(logs)),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert told.returncode == 128 + signal.SIGTERM
    assert [line["outcome"] for line in map(json.loads, told.stdout.splitlines()) if "files" in line] == ["done"]


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
