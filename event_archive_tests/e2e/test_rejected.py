"""``event-archive rejected``: what could not be a row is listed, told about without its values, and tried again."""

import re
from datetime import UTC, datetime
from pathlib import Path

from event_archive_tests.api_server.running import ApiServer
from event_archive_tests.fixtures.api import ServeApi
from event_archive_tests.fixtures.installation import Commands
from event_archive_tests.fixtures.log_files import Logs, entry, ndjson
from event_archive_tests.fixtures.postgres import Database
from event_archive_tests.fixtures.valkey import KEY, Stream, position

SECRET = b"hunter2"
TIMELESS = b'{"id":"timeless","type":"x","note":"hunter2","when":"2024-03-01T00:00:00Z","n":[1],"o":{},"z":null}'
NUL = b'{"id":"nul","timestamp":1709251200000,"note":"hunter2\\u0000"}'


def of_api(api: ApiServer, database: Database) -> dict[str, str]:
    return {
        "PG_CONNECTION_STRING": database.dsn,
        "API_BASE_URL": api.url.removesuffix("/events"),
        "API_KEY": api.key,
    }


def test_rejected_records_are_listed_explained_and_replayed(serve_api: ServeApi, database: Database, command: Commands):
    api = serve_api(5)
    api.set(bad_events=[TIMELESS, NUL], bad_after=2)
    variables = {
        "PG_CONNECTION_STRING": database.dsn,
        "API_BASE_URL": api.url.removesuffix("/events"),
        "API_KEY": api.key,
    }
    taken = command("ingest", "api", **variables)
    assert (taken.code, taken.end["new"], taken.end["rejected"]) == (0, 5, 2)

    listed = command("rejected", **variables)
    assert listed.code == 0
    numbers = {line["reason"]: str(line["id"]) for line in listed.lines[:-1]}
    assert set(numbers) == {"it holds \\u0000, which PostgreSQL cannot keep", "it has no time"}
    assert (listed.end["records"], listed.end["outcome"]) == (2, "done")

    misspelt = command("rejected", "--replay", **variables, EVENT_RETENTION="30 days")
    assert (misspelt.code, "EVENT_RETENTION_PERIOD decides what is deleted" in misspelt.said) == (2, True)
    told = command("rejected", "--explain", numbers["it has no time"], **variables).lines[0]["look"]
    assert told == "Its fields: id (text), type (text), note (text), when (text), n (list), o (object), z (null)."
    assert command("rejected", "--explain", "7", **variables).code == 2

    again = command("rejected", "--replay", **variables)
    assert (again.code, again.end["new"], again.end["left"]) == (0, 0, 2)
    mended = command("rejected", "--replay", **variables, API_TIME_FIELD="when")
    assert (mended.code, mended.end["new"], mended.end["left"]) == (0, 1, 1)
    assert database.execute("SELECT data->>'note' FROM ingested_events WHERE id = 'timeless'") == [("hunter2",)]
    assert database.execute("SELECT raw FROM rejected_records") == [(NUL,)]
    assert not re.search(SECRET.decode(), "".join(of.said for of in (taken, listed, again, mended)) + told)


def test_a_record_that_postgresql_refuses_again_stays_rejected(
    serve_api: ServeApi, database: Database, command: Commands
):
    api = serve_api(3)
    variables = {
        "PG_CONNECTION_STRING": database.dsn,
        "API_BASE_URL": api.url.removesuffix("/events"),
        "API_KEY": api.key,
    }
    command("ingest", "api", **variables)
    database.execute("DELETE FROM cursor_state; DELETE FROM ingested_events")
    database.execute("ALTER TABLE ingested_events ADD CONSTRAINT none CHECK (event_type IS NULL)")
    assert command("ingest", "api", **variables).end["rejected"] == 3
    before = database.execute("SELECT locator, raw FROM rejected_records ORDER BY 1")
    refused = command("rejected", "--replay", **variables)
    assert (refused.end["new"], refused.end["left"]) == (0, 3)
    assert database.execute("SELECT locator, raw FROM rejected_records ORDER BY 1") == before
    database.execute("ALTER TABLE ingested_events DROP CONSTRAINT none")
    assert command("rejected", "--replay", **variables).end["left"] == 0
    assert database.execute("SELECT count(*) FROM ingested_events") == [(3,)]


def test_without_a_table_no_record_was_rejected(database: Database, command: Commands):
    listed = command("rejected", PG_CONNECTION_STRING=database.dsn)
    assert (listed.code, listed.end["records"]) == (0, 0)
    for source in ((), ("--source", "logs")):
        replayed = command("rejected", "--replay", *source, PG_CONNECTION_STRING=database.dsn)
        assert (replayed.code, replayed.end["outcome"], replayed.end["left"]) == (0, "done", 0)
    told = command("rejected", "--replay", PG_CONNECTION_STRING=database.dsn, LOG_FORMAT="console")
    assert told.stdout == "There is no rejected record.\n"


def test_rejected_entries_of_log_files_are_replayed_wherever_their_file_was(
    logs: Logs, command: Commands, tmp_path: Path
):
    one = tmp_path / "one.log"
    one.write_bytes(ndjson(entry(1), {"note": "hunter2", "when": "2024-03-01T00:00:00"}))
    assert command("ingest", "logs", "--file", str(one), PG_CONNECTION_STRING=logs.database.dsn).end["rejected"] == 1
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text("timestamp: [time, when]\nmessage: note\n")
    replayed = command(
        *("rejected", "--replay"),
        PG_CONNECTION_STRING=logs.database.dsn,
        LOGS_MAPPING=str(mapping),
        LOGS_TIMEZONE="Europe/Berlin",
    )
    assert (replayed.code, replayed.end["new"], replayed.end["left"]) == (0, 1, 0)
    assert logs.rows("message")[0] == "hunter2"
    assert logs.rows('"timestamp"')[0] == datetime(2024, 2, 29, 23, tzinfo=UTC)
    assert "hunter2" not in replayed.said


def test_of_an_entry_that_was_lost_nothing_is_said_to_be_kept(stream: Stream, command: Commands):
    variables = {"PG_CONNECTION_STRING": stream.database.dsn, "LOG_FORMAT": "console"}
    ids = stream.add(position(1))
    stream.read_as("tester", 1)
    stream.server.redis.xdel(KEY, *ids)
    stream.run()
    stream.add(b"?")
    stream.run()
    lost, short = sorted(stream.database.execute("SELECT octet_length(raw), id FROM rejected_records"))
    listed = command("rejected", **variables).stdout
    assert re.search(r" \d\d:\d\d:\d\d UTC  stream  0 bytes  ", listed)
    assert re.search(r" \d\d:\d\d:\d\d UTC  stream  1 byte  ", listed)
    told = command("rejected", "--explain", str(lost[1]), **variables).stdout
    assert told.endswith(" UTC: it was trimmed from the stream while it was pending. None of its bytes is kept.\n")
    told = command("rejected", "--explain", str(short[1]), **variables).stdout
    assert told.endswith(f". It is no JSON.\nIts 1 byte is in public.rejected_records, column raw, id {short[1]}.\n")
