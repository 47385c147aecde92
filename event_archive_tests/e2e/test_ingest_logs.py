"""``event-archive ingest logs``: what it says, how it ends, what it needs.

The numbers in the comments are those of the hardest cases of an ingestion of log files.
"""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from event_archive.sources.log_files import status
from event_archive_tests.fixtures.installation import Commands, clean_environment
from event_archive_tests.fixtures.log_files import Logs, array, entry, ndjson, variables
from event_archive_tests.fixtures.webhook import Webhook

pytestmark = pytest.mark.slow


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
