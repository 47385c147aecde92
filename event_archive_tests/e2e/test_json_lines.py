"""The page about JSON lines says which fields each command's lines have: exactly those."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from event_archive.domain.days import ONE_DAY
from event_archive_tests.fixtures.api import ServeApi
from event_archive_tests.fixtures.installation import REPOSITORY, Commands, Installation
from event_archive_tests.fixtures.log_files import Logs, array, entry, ndjson
from event_archive_tests.fixtures.pipeline import DAY
from event_archive_tests.fixtures.postgres import Database
from event_archive_tests.fixtures.valkey import Stream, position

pytestmark = pytest.mark.slow

LOG_LINES = {"info", "warning", "error", "debug"}
ON_EVERY_LINE = {"outcome", "error", "dataset"}


def documented() -> dict[str, tuple[set[str], set[str], set[str]]]:
    """Of each line of the page's table: the outcomes, the fields, and those that may be absent."""
    page = (REPOSITORY / "docs/json-lines.md").read_text()
    rows = re.findall(r"^\| (`[^|]*) \| ([^|]*) \| ([^|]*) \|([^|]*)\|$", page, re.MULTILINE)
    return {
        line.replace("`", ""): (*(set(re.findall(r"`([^`]+)`", cell)) for cell in cells),)  # type: ignore[misc]
        for line, *cells in rows
    }


LINES = documented()


def check(line: str, *found: dict[str, Any]) -> None:
    """Whether lines of a command are as the page has this one."""
    outcomes, fields, optional = LINES[line]
    assert found, f"no line is {line}"
    for of in found:
        keys = set(of) - ON_EVERY_LINE
        assert fields <= keys <= fields | optional, line
        assert not outcomes or of["outcome"] in outcomes, line


def results(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without log lines."""
    return [of for of in lines if of["outcome"] not in LOG_LINES]


def test_lines_about_days(local_installation: Installation, command: Commands):
    for day in (DAY, DAY + ONE_DAY, DAY + 2 * ONE_DAY):
        local_installation.add(3, day=day)
    first, second = str(DAY), str(DAY + ONE_DAY)
    ranged = ["--from", first, "--to", second]
    *days, end = command("run", "--plan").lines
    check("run --plan: a day", *days)
    check("run --plan: the end", end)
    check("hold", *command("hold", second, "--reason", "an inquiry").lines)
    check("holds: days that are held", *command("holds").lines)
    for arguments in (("--dry-run",), ()):
        *days, end = results(command("run", *arguments).lines)
        assert {of["outcome"] for of in days} == {"held", "dry run" if arguments else "purged"}
        check("run: a day", *days)
        check("run: the end", end)
    assert {"reason", "purge"} <= {name for of in days for name in of}
    *days, end = command("days").lines
    check("days: a day", *days)
    check("days: the end", end)
    check("release", *command("release", second).lines, *command("release", second).lines)
    assert command("holds").lines == []
    ranges = {"verify": ranged, "adopt": ranged, "restore": [first, "--to", second]}
    for name, of_range in ranges.items():
        *days, end = command(name, *of_range).lines
        check(f"{name}: a day", *days)
        check(f"{name}: the end", end)
        optional = LINES[f"{name}: a day"][2]
        assert optional - {*days[0]} <= {"remarks", "setval", "source"}
        assert LINES[f"{name}: the end"][2] <= {*end}
    check("adopt --source", *command("adopt", "--source").lines)
    local_installation.put(local_installation.content() + b"9,", metadata={})
    *days, end = command("verify", first).lines
    check("verify: a day", *days)
    check("verify: the end", end)
    *days, end = command("doctor", LOG_FORMAT="json").lines
    check("doctor: a check", *days)
    check("doctor: the end", end)


def test_lines_of_an_api_and_of_rejected_records(serve_api: ServeApi, database: Database, command: Commands):
    api = serve_api(5)
    api.set(bad_events=[b'{"id":"timeless"}'], bad_after=2)
    variables = {"PG_CONNECTION_STRING": database.dsn, "API_BASE_URL": api.url.removesuffix("/events")}
    variables["API_KEY"] = api.key
    check("ingest api", *results(command("ingest", "api", **variables).lines))
    *records, end = command("rejected", **variables).lines
    check("rejected: a record", *records, *command("rejected", "--explain", str(records[0]["id"]), **variables).lines)
    check("rejected: the end", end)
    check("rejected --replay", *command("rejected", "--replay", **variables).lines)


def test_lines_of_log_files(logs: Logs, command: Commands, tmp_path: Path):
    logs.write("a.log", ndjson(entry(1)))
    logs.write("b.gz", array(entry(3))[:-5])
    variables = {"PG_CONNECTION_STRING": logs.database.dsn, "LOGS_URL": f"file://{logs.folder}"}
    check("ingest logs: the end of each pass", *results(command("ingest", "logs", **variables).lines))
    *lines, end = command("ingest", "logs", "--status", **variables).lines
    check("ingest logs --status: a status", *(of for of in lines if of["outcome"] != "file"))
    check("ingest logs --status: a file that failed", *(of for of in lines if of["outcome"] == "file"))
    check("ingest logs --status: the end", end)


def test_lines_of_a_stream(stream: Stream, command: Commands):
    stream.add(position(1))
    variables = {"PG_CONNECTION_STRING": stream.database.dsn, "REDIS_URL": stream.server.url, "HTTP_PORT": "0"}
    check("ingest stream --status", *command("ingest", "stream", "--status", **variables).lines)
    check("ingest stream", *results(command("ingest", "stream", "--drain", **variables).lines))
    check("ingest stream --status", *command("ingest", "stream", "--status", **variables).lines)
