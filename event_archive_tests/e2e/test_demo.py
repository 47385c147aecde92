"""The demo shows it all, twice, by itself."""

import os
import re
import socket
import subprocess
import sys
import tempfile
from datetime import timedelta
from pathlib import Path

import dagster as dg
import psutil
import pytest

from event_archive.domain.days import Retention, now_utc
from event_archive_tests.fixtures.installation import REPOSITORY, clean_environment

# The demo's own numbers would take half a minute.
SMALL_DEMO = """
from event_archive.demo import samples
samples.AGED_DAYS, samples.EVENTS_PER_AGED_DAY, samples.YOUNG_DAYS, samples.EVENTS_PER_YOUNG_DAY = 3, 300, 1, 50
from event_archive import cli
cli.main()
"""


@pytest.mark.slow
def test_the_demo_shows_it_all_and_the_second_time_that_only_a_held_day_is_left():
    # Not in tmp_path: each pytest that starts closes its parent to others, PostgreSQL's own user among them.
    with tempfile.TemporaryDirectory(prefix="ea-demo") as folder:
        _demo_twice(Path(folder))


def _demo_twice(tmp_path: Path):
    # The embedded server's lock lies in the temporary folder, where that of another user cannot be opened.
    temporary = tmp_path / "tmp"
    (temporary / ".lockfile").mkdir(parents=True)
    temporary.chmod(0o777)

    def demo() -> str:
        # Whatever else is configured is not for the demo.
        environment = clean_environment(
            EVENT_TABLE="public.other",
            AZURE_STORAGE_ACCOUNT_URL="http://127.0.0.1:9/x",
            TMPDIR=os.fspath(temporary),
        )
        done = subprocess.run(
            [sys.executable, "-c", SMALL_DEMO, "demo"],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    first = demo()
    events, page_views = (
        [(youngest - timedelta(n)).isoformat() for n in (2, 1, 0)]
        for youngest in (Retention.parse(text).last_aged_day(now_utc()) for text in ("1 year", "90 days"))
    )
    for table in ('public."Event"', "public.page_views"):
        assert f"Filling table {table}: 600 events of 3 aged days, 50 of 1 young ones" in first
    lake = tmp_path / ".demo" / "lake" / "titan-pulse-event-archive"
    files = re.findall(r"^(\S+\.csv) +(\d+) .* [0-9a-f]{64}$", first, re.MULTILINE)
    assert files == [
        *((f"events_{day}.csv", rows) for day, rows in zip(events, ("301", "120", "180"), strict=True)),
        *((f"page_views_{day}.csv", rows) for day, rows in zip(page_views, ("300", "120", "180"), strict=True)),
        (f"api_events_{page_views[2]}.csv", "150"),
        (f"logs_{page_views[2]}.csv", "150"),
    ]
    assert all((lake / name).is_file() for name, _ in files)
    arrived = {"api": "300 events", "logs": "300 entries", "stream --drain": "450 entries"}
    for source, records in arrived.items():
        told = first.partition(f"$ event-archive ingest {source}\n")[2].partition("\n$ ")[0]
        assert re.search(rf"^ingestion complete: .*{records} in .*: {records.split()[0]} new$", told, re.MULTILINE), (
            told
        )
    assert re.search(rf"^events  {events[0]}  restored  .restored 301, ", first, re.MULTILINE)
    nights = first.split("$ event-archive run\n")
    assert f"{events[1]} held: a customer asks about it" in nights[0]
    assert [line.split()[:4] for line in nights[2].splitlines()[1:3]] == [
        ["events", events[0], "301", "1"],
        ["events", events[1], "120", "0"],
    ]
    assert 'public."Event" holds 170 rows. Aged days that still have rows: 1 (held: 1).' in first
    left = {"page_views": 50, "ingested_events": 150, "logs": 150, "positions": 450}
    for table, rows in left.items():
        assert f"public.{table} holds {rows} rows. Aged days that still have rows: 0 (held: 0)." in first
    assert f"The CSVs: {lake}/" in first
    assert "make ui" in first
    (heading,) = re.findall('README.md, "([^"]*)"', first)
    assert f"## {heading}\n" in (REPOSITORY / "README.md").read_text()
    second = demo()
    assert "Filling" not in second
    assert "late" not in second
    assert second.count("held, not purged") == 1
    assert second.partition("The lake")[2] == first.partition("The lake")[2]
    assert not processes_about(tmp_path / ".demo")
    home = os.fspath(tmp_path / ".demo" / "dagster")
    with dg.DagsterInstance.from_config(home) as instance:
        assert instance.get_materialized_partitions(dg.AssetKey("archive_csv")) == set(events)
        assert instance.get_materialized_partitions(dg.AssetKey(["page_views", "purged_events"])) == set(page_views)


@pytest.mark.slow
def test_the_demo_s_api_has_the_same_address_each_time_so_that_no_purged_event_arrives_anew(tmp_path: Path):
    ask = (
        "import os, pathlib, datetime\n"
        "from event_archive.demo.feeds import feeds\n"
        "for first in (True, False):\n"
        "    with feeds(pathlib.Path.cwd(), datetime.date(2024, 3, 1), first=first):\n"
        "        print(os.environ['API_BASE_URL'])\n"
    )
    run = [sys.executable, "-c", ask]
    done = [subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=False) for _ in range(2)]
    addresses = [address for of in done for address in of.stdout.split()]
    assert (len(addresses), len(set(addresses))) == (4, 1), done
    with socket.create_server(("127.0.0.1", int((tmp_path / "api-port").read_text()))):
        taken = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "where the demo's API is, cannot be had (Address already in use)" in taken.stderr


def processes_about(folder: Path) -> list[list[str]]:
    """The command lines of processes that name a folder or work in it."""
    found = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        told = [*(process.info["cmdline"] or []), process.info["cwd"] or ""]
        if any(str(folder) in word for word in told):
            found.append(told)
    return found
