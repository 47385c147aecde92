"""The how-to pages do what they say: their commands are run, in their order, on a database and a lake of their own.

Of a page's fenced blocks, ``sh`` is run as it stands: ``event-archive`` commands, ``export``, and ``# exit code N``
behind what is to fail. ``sql`` is executed. ``console`` needs a cluster, an account or a server: only what
``kubectl exec`` runs of ``event-archive`` is run. ``sql`` and ``python`` with a word behind them are for another
program: what a test can have of these is run by test_read.py.
"""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import yaml

from event_archive.domain.days import ONE_DAY
from event_archive.observability import ingestion_metrics
from event_archive.observability.metrics import _METRICS
from event_archive.sources.log_files.mapping import load_mapping
from event_archive_tests.api_server.running import ApiServer
from event_archive_tests.fixtures.api import EVENTS
from event_archive_tests.fixtures.installation import CONTRACT, REPOSITORY, Commands, Installation
from event_archive_tests.fixtures.log_files import entry, ndjson
from event_archive_tests.fixtures.pages import blocks, page_of
from event_archive_tests.fixtures.pipeline import DAY
from event_archive_tests.fixtures.postgres import Database, Server
from event_archive_tests.fixtures.situations import SITUATIONS, archived, do, logged
from event_archive_tests.fixtures.valkey import KEY, StreamServer, position

pytestmark = pytest.mark.slow

PAGES = sorted((REPOSITORY / "docs/howto").glob("*.md"))
ROLE = "event-archive"
NO_SETTINGS = {
    *("DAGSTER_HOME", "PRINCIPAL_ID", "ACCOUNT_ID", "DATABASE_URL"),
    *("PAYMENTS_DATABASE_URL", "PG_CONNECTION_STRING_OF_BILLING"),
    *("ORDERS_PG_CONNECTION_STRING", "LOGS_PG_CONNECTION_STRING"),
    *("APP_ID", "PARSER_VERSION", "HEADER_ROW", "ACCOUNT_NAME"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
}
"""Variables of Dagster, what a reader fills in, what examples of datasets name, and options of other programs."""


@pytest.fixture
def database(server_18: Server) -> Iterator[Database]:
    """``events``, as the pages call it, with the role that they grant to."""
    with psycopg.connect(server_18.dsn("postgres"), autocommit=True) as connection:
        connection.execute("CREATE DATABASE events TEMPLATE specification")
        connection.execute(f'CREATE ROLE "{ROLE}" LOGIN')
        events = Database(server_18, "events")
        # What everybody has by default would hide what a page forgets.
        events.execute("REVOKE TEMPORARY ON DATABASE events FROM PUBLIC; REVOKE USAGE ON SCHEMA public FROM PUBLIC")
        yield events
        events.execute(f'DROP OWNED BY "{ROLE}"')
        connection.execute("DROP DATABASE events WITH (FORCE)")
        connection.execute(f'DROP ROLE "{ROLE}"')


@pytest.fixture
def installed(local_installation: Installation, clean: pytest.MonkeyPatch, tmp_path: Path) -> Installation:
    """Three aged days, the days that the pages name, and a folder to be in."""
    clean.chdir(tmp_path)
    for day in (DAY - ONE_DAY, DAY, DAY + ONE_DAY):
        local_installation.add(3, day=day)
    return local_installation


ROWS_AT_THE_END = {
    "aks": 9,
    "api": 9,
    "doctor": 9,
    "embed": 9,
    "logs": 9,
    "partitions": 9,
    "read": 9,
    "retention": 3,
    "stream": 9,
    "tables": 9,
    "upgrade": 9,
}
"""Of nine; other pages leave none."""
OF_READERS = {
    *("sql duckdb", "python polars", "python pyarrow", "python pandas"),
    *("python spark", "sql synapse"),
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_commands_of_a_page_do_what_it_says(
    page: Path, installed: Installation, command: Commands, clean: pytest.MonkeyPatch, api_server: ApiServer,
    valkey: StreamServer,
):  # fmt: skip
    installed.variables |= {"API_BASE_URL": api_server.url, "API_KEY": api_server.key, "REDIS_URL": valkey.url}
    clean.setenv("HTTP_PORT", "0")
    if page.stem in SITUATIONS:
        SITUATIONS[page.stem](installed, command)
    for block in blocks(page):
        if block.kind in ("sh", "sql", "console"):
            do(block, installed, command, clean)
    assert installed.count() == ROWS_AT_THE_END.get(page.stem, 0)


def test_the_user_of_the_page_of_streams_may_do_what_a_worker_does(
    installed: Installation, command: Commands, valkey: StreamServer
):
    (line,) = [line for block in blocks(page_of("stream")) for line in block.lines if line.startswith("redis-cli ")]
    valkey.redis.execute_command(*shlex.split(line)[1:])  # type: ignore[no-untyped-call]
    valkey.redis.xadd(KEY, {"payload": json.dumps(position(1))})
    url = f"unix://event-archive:PASSWORD@{valkey.socket}"
    variables = {"REDIS_URL": url, "PG_CONNECTION_STRING": installed.database.dsn, "HTTP_PORT": "0"}
    assert command("ingest", "stream", "--drain", **variables).end["new"] == 1
    assert command("ingest", "stream", "--status", **variables).end["missing"] == []


def test_what_a_page_grants_is_enough(installed: Installation, command: Commands, clean: pytest.MonkeyPatch):
    """The AKS page's own commands, by the role that it makes."""
    clean.setenv("PG_CONNECTION_STRING", installed.database.server.dsn("events", ROLE))
    for block in blocks(REPOSITORY / "docs/howto/aks.md"):
        if block.kind in ("sql", "console"):
            do(block, installed, command, clean)
    assert command("run").end["deleted"] == 9


def test_what_the_page_of_the_api_grants_is_enough(
    installed: Installation, command: Commands, clean: pytest.MonkeyPatch, api_server: ApiServer
):
    clean.setenv("API_BASE_URL", api_server.url)
    clean.setenv("API_KEY", api_server.key)
    api_server.set(bad_events=(b"{}",), bad_after=1)
    owner, role = (installed.database.server.dsn("events", who) for who in ("postgres", ROLE))
    told = command("ingest", "api", PG_CONNECTION_STRING=role)
    assert (told.code, "this role may not make them" in told.said) == (1, True)
    assert command("ingest", "api", PG_CONNECTION_STRING=owner).code == 0
    installed.database.execute("TRUNCATE ingested_events, cursor_state, rejected_records")
    (grants,) = [of for of in blocks(REPOSITORY / "docs/howto/api.md") if of.text.startswith("GRANT")]
    do(grants, installed, command, clean)
    done = command("ingest", "api", PG_CONNECTION_STRING=role, API_CONFLICT="update")
    assert (done.code, done.end["new"], done.end["rejected"]) == (0, EVENTS, 1)
    windows = command("ingest", "api", PG_CONNECTION_STRING=role, API_SHARD="900 days", API_START="2024-03-01")
    # Events at the border of a window that was split come twice.
    assert (windows.code, windows.end["new"], windows.end["known"] > EVENTS) == (0, 0, True)


def test_what_the_page_of_log_files_grants_is_enough(
    installed: Installation, command: Commands, clean: pytest.MonkeyPatch
):
    logged(installed, command)
    clean.setenv("LOGS_URL", installed.variables["LOGS_URL"])
    owner, role = (installed.database.server.dsn("events", who) for who in ("postgres", ROLE))
    told = command("ingest", "logs", PG_CONNECTION_STRING=role)
    assert (told.code, "this role may not make them" in told.said) == (1, True)
    # The owner makes the tables, and knows one file; the other one, and its new version, are the role's.
    assert command("ingest", "logs", "--limit", "1", PG_CONNECTION_STRING=owner).code == 0
    (grants,) = [of for of in blocks(page_of("logs")) if of.text.startswith("GRANT")]
    do(grants, installed, command, clean)
    assert command("ingest", "logs", PG_CONNECTION_STRING=role).code == 0
    Path("shop/web/a.log").write_bytes(ndjson(entry(1), {"msg": "no time"}))
    Path("shop/b.log").write_bytes(ndjson(entry(3), entry(4)))
    done = command("ingest", "logs", "--retry-failed", PG_CONNECTION_STRING=role)
    assert (done.code, done.end["files"], done.end["new"], done.end["rejected"]) == (0, 2, 3, 1)
    mapping = Path("mapping.yaml")
    mapping.write_text("timestamp: [time, /msg]\n")
    assert command("rejected", "--replay", PG_CONNECTION_STRING=role, LOGS_MAPPING=str(mapping)).code == 0
    assert installed.database.execute("SELECT count(*)::int FROM logs") == [(3,)]


def test_the_mapping_of_the_page_of_log_files_is_one(tmp_path: Path):
    (text,) = [block.text for block in blocks(page_of("logs")) if block.kind == "yaml"]
    file = tmp_path / "mapping.yaml"
    file.write_text(text)
    assert load_mapping(file).fields["method"] == [("http.method",)]


def test_who_may_restore_and_hold_is_who_the_page_says(
    installed: Installation, command: Commands, clean: pytest.MonkeyPatch
):
    archived(installed, command)
    installed.database.execute(
        f"""GRANT TEMPORARY ON DATABASE events TO "{ROLE}"; GRANT USAGE, CREATE ON SCHEMA public TO "{ROLE}";
        GRANT SELECT, INSERT ON "Event" TO "{ROLE}" """
    )
    clean.setenv("PG_CONNECTION_STRING", installed.database.server.dsn("events", ROLE))
    for block in blocks(REPOSITORY / "docs/howto/restore.md"):
        if "event-archive run" not in block.text:
            do(block, installed, command, clean)
    assert installed.count() == 3


def test_what_puts_two_versions_of_a_file_together_passes_no_row_in_silence(database: Database):
    """A row whose key is new and whose other unique value stands in the later version, as of an event sent again."""
    section = page_of("failed-day").read_text().partition("## An older version of a file was put back")[2]
    make, clear, statement = re.findall(r"`((?:CREATE TABLE|DELETE|INSERT INTO) .+?)`", section, re.DOTALL)
    database.execute(
        """ALTER TABLE "Event" ADD kind text GENERATED ALWAYS AS (upper(event_type)) STORED;
        INSERT INTO "Event" VALUES (1, 'sent', 'a', '2024-03-01', NULL, '{}'), (2, '2', 'a', '2024-03-01', NULL, '{}');
        CREATE TABLE kept AS TABLE "Event"; UPDATE "Event" SET event_type = 'as in the later version' WHERE id = 1;
        INSERT INTO kept VALUES (3, 'new', 'a', '2024-03-01', NULL, '{}'), (4, 'sent', 'b', '2024-03-01', NULL, '{}')"""
    )
    database.execute(make)
    # Of the later version, a former form of one row, and the present one of each.
    database.execute("INSERT INTO later TABLE kept; DELETE FROM later WHERE id > 2")
    database.execute('INSERT INTO later TABLE "Event"')
    database.execute("UPDATE kept SET event_type = 'came since' WHERE id = 2")
    database.execute(clear)
    assert database.execute("SELECT id FROM kept ORDER BY id") == [(2,), (3,), (4,)]
    with pytest.raises(psycopg.errors.UniqueViolation):
        database.execute(statement)
    database.execute(statement.replace(" ON CONFLICT", " WHERE id <> 4 ON CONFLICT"))
    assert database.execute('SELECT id, event_type FROM "Event" ORDER BY id') == [
        (1, "as in the later version"), (2, "came since"), (3, "a"),
    ]  # fmt: skip


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_is_of_a_kind_that_is_checked(page: Path):
    kinds = {block.kind for block in blocks(page)}
    assert kinds <= {"sh", "console", "sql", "sql azure", "yaml"} | (OF_READERS if page.stem == "read" else set())
    assert page.read_text().count("```") == 2 * len(blocks(page))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_files_that_a_page_names_exist(page: Path):
    folders = [path.name for path in REPOSITORY.iterdir() if path.is_dir()]
    named = re.findall(rf"(?<![\w./-])(?:{'|'.join(map(re.escape, folders))})/[\w./-]+\w", page.read_text())
    assert [name for name in named if not (REPOSITORY / name).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_variables_that_a_page_names_exist(page: Path):
    code = [*re.findall(r"(?<!`)`([^`\n]+)`(?!`)", page.read_text()), *(block.text for block in blocks(page))]
    named = {name for text in code for name in re.findall(r"(?<![\w-])([A-Z]+(?:_[A-Z]+)+)(?=\W|$)", text)}
    assert named - CONTRACT - NO_SETTINGS == set()


def test_the_messages_that_are_explained_are_those_of_the_code():
    told = re.findall(r"^\| (`.+?) \| ", (REPOSITORY / "docs/howto/failed-day.md").read_text(), re.MULTILINE)
    messages = [message for cell in told for message in re.findall(r"`([^`]+)`", cell)]
    assert len(messages) > 15
    code = "\n".join(path.read_text() for path in (REPOSITORY / "event_archive").rglob("*.py"))
    joined = re.sub(r'"\s*\n\s*f?"', "", code)
    assert [message for message in messages if message not in joined] == []


def test_the_metrics_are_those_of_the_code():
    metrics = _METRICS | ingestion_metrics._METRICS
    page = (REPOSITORY / "docs/howto/alerts.md").read_text()
    assert dict(re.findall(r"^\| `(event_archive_\w+)` \| (.+) \|$", page, re.MULTILINE)) == metrics
    (rules,) = [
        yaml.safe_load(block.text) for block in blocks(REPOSITORY / "docs/howto/alerts.md") if block.kind == "yaml"
    ]
    (group,) = rules["groups"]
    named = {name for rule in group["rules"] for name in re.findall(r"\bevent_archive_\w+", rule["expr"])}
    assert named
    assert named <= metrics.keys()
