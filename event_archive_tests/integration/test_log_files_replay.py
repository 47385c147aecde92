"""Rejected entries of log files, tried again by other settings: each becomes the row that it would have been."""

import json
import os
import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from event_archive.domain.dataset import TableName
from event_archive.domain.days import now_utc
from event_archive.postgres.session import Connection
from event_archive.sources import rejected
from event_archive.sources.landing import Batch, Counts
from event_archive.sources.log_files.ingest import _Work
from event_archive.sources.log_files.places import open_store
from event_archive.sources.log_files.replay import replay
from event_archive.sources.log_files.rows import Place, locator_prefix, parse_locator
from event_archive.sources.rejected import RejectedRecords
from event_archive_tests.fixtures.log_files import Logs, archived_logs, entry, ndjson

pytestmark = pytest.mark.slow

WHEN = {"msg": "later", "when": "2024-03-01T11:00:30Z"}


@pytest.fixture
def mapping(tmp_path: Path) -> Path:
    """Knows another field for the time."""
    path = tmp_path / "mapping.yaml"
    path.write_text("timestamp: [time, when]\nmessage: msg\n")
    return path


def try_again(logs: Logs, mapping: Path) -> Counts:
    settings = logs.settings(logs_mapping=mapping)
    with settings.postgres.session() as session:
        counts = RejectedRecords(session, TableName("public", "rejected_records")).replay(replay(settings))
    assert counts.balance == 0
    return counts


def left(logs: Logs) -> int:
    return len(logs.database.execute("SELECT id FROM rejected_records"))


@pytest.mark.parametrize("bucket", ["s3://bucket", "az://container", "file://"])
@pytest.mark.parametrize("key", ["a.log", "/root.log", "a//b entry 7.log", "line\nend 1 entry .log", "ä://ö?x#y"])
def test_a_locator_names_version_and_position_whatever_the_key(bucket: str, key: str):
    for etag in ('"d41d8cd98f00b204e9800998ecf8427e-3"', "0x8DC0", "1709290800123456789-5"):
        assert parse_locator(f"{locator_prefix(bucket, key, etag)}12") == Place(bucket, key, etag, 12)


def test_a_replayed_entry_is_the_row_that_its_files_pass_would_have_made(logs: Logs, mapping: Path):
    logs.write("a b.log", ndjson(entry(1), WHEN, entry(2), {"msg": "never"}, WHEN))
    logs.write("c.log", ndjson(WHEN))
    assert logs.run().counts.rejected == 4
    counts = try_again(logs, mapping)
    assert (counts.new, counts.rejected, left(logs)) == (3, 0, 1)
    assert logs.files() == [("COMPLETED", 4, 1), ("COMPLETED", 1, 0)]
    replayed = logs.rows("id, timestamp, message, raw_data::text")
    assert try_again(logs, mapping).taken == 0
    logs.database.execute("TRUNCATE logs, rejected_records, processed_files, log_listing")
    logs.run(logs_mapping=mapping)
    assert logs.rows("id, timestamp, message, raw_data::text") == replayed


def test_an_entry_that_is_a_row_by_now_is_known_and_rejected_no_more(logs: Logs, mapping: Path):
    logs.write("a.log", ndjson(entry(1), WHEN))
    logs.run()
    kept = logs.database.execute("SELECT source, locator, reason, raw FROM rejected_records")
    try_again(logs, mapping)
    logs.database.execute(
        "INSERT INTO rejected_records (source, locator, reason, raw) VALUES (%s, %s, %s, %s)", *kept[0]
    )
    counts = try_again(logs, mapping)
    assert (counts.new, counts.known, left(logs)) == (0, 1, 0)
    assert len(logs.rows()) == 2
    assert logs.files() == [("COMPLETED", 2, 0)]


def test_a_trigger_on_rejected_records_finds_what_it_names_in_a_replay(logs: Logs, mapping: Path):
    logs.write("a.log", ndjson(entry(1), WHEN))
    assert logs.run().counts.rejected == 1
    logs.database.execute(
        """
        CREATE TABLE note (n bigint);
        CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN INSERT INTO note VALUES (old.id); RETURN old; END $$;
        CREATE TRIGGER note BEFORE DELETE ON rejected_records FOR EACH ROW EXECUTE FUNCTION note()
        """
    )
    assert try_again(logs, mapping).new == 1
    assert len(logs.database.execute("SELECT n FROM note")) == 1


def test_long_entries_are_replayed_a_few_at_a_time(logs: Logs, mapping: Path, monkeypatch: pytest.MonkeyPatch):
    logs.write("a.log", ndjson(*[WHEN | {"long": "x" * 400}] * 7))
    logs.run()
    monkeypatch.setattr(rejected, "_BYTES_AT_ONCE", 1000)
    of, some = replay(logs.settings(logs_mapping=mapping)), list[int]()

    def read(connection: Connection, records: Sequence[tuple[str, bytes]]) -> tuple[Batch, list[int]]:
        some.append(len(records))
        return of.read(connection, records)

    with logs.settings().postgres.session() as session:
        RejectedRecords(session, TableName("public", "rejected_records")).replay(replace(of, read=read))
    assert some == [3, 3, 1]
    assert (len(logs.rows()), left(logs)) == (7, 0)


def test_a_new_version_replaces_replayed_rows_too(logs: Logs, mapping: Path):
    logs.write("a.log", ndjson(WHEN, WHEN))
    logs.run()
    logs.write("a.log", b"\x1f\x8b broken")
    logs.run()
    assert logs.files("status, loaded_etag <> etag") == [("FAILED", True)]
    assert try_again(logs, mapping).new == 2, "the rows of the former version are the ones that are there"
    logs.write("a.log", ndjson(entry(7)))
    logs.run()
    assert logs.rows() == ["request 7"]


def test_triggers_of_the_users_on_what_is_deleted_find_what_they_name_without_a_schema(logs: Logs, mapping: Path):
    logs.write("a.log", ndjson(entry(1), WHEN))
    logs.write("b.log", ndjson(WHEN))
    logs.run()
    logs.database.execute(
        """
        CREATE TABLE gone (of text);
        CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
          $$ BEGIN INSERT INTO gone VALUES (tg_table_name); RETURN old; END $$;
        CREATE TRIGGER note AFTER DELETE ON logs FOR EACH ROW EXECUTE FUNCTION note();
        CREATE TRIGGER note AFTER DELETE ON rejected_records FOR EACH ROW EXECUTE FUNCTION note()
        """
    )
    logs.write("a.log", ndjson(entry(1), entry(2)))
    logs.run()
    assert logs.rows() == ["request 1", "request 2"]
    assert logs.database.execute("SELECT * FROM gone") == [("logs",), ("rejected_records",)]
    assert (try_again(logs, mapping).new, left(logs)) == (1, 0)


def test_what_was_rejected_of_a_former_version_comes_not_back_beside_its_replacement(logs: Logs, mapping: Path):
    logs.write("a.log", ndjson(entry(1), WHEN))
    logs.run()
    kept = logs.database.execute("SELECT source, locator, reason, raw FROM rejected_records")
    logs.write("a.log", ndjson(entry(1), entry(2)))
    logs.run()
    # As if it had been left there.
    logs.database.execute(
        "INSERT INTO rejected_records (source, locator, reason, raw) VALUES (%s, %s, %s, %s)", *kept[0]
    )
    assert try_again(logs, mapping).taken == 0
    logs.database.execute("TRUNCATE processed_files")
    assert try_again(logs, mapping).taken == 0, "of a file that is not known, nobody knows what its rows are"
    assert (logs.rows(), left(logs)) == (["request 1", "request 2"], 1)


def test_a_replay_waits_for_a_new_version_that_is_being_loaded(logs: Logs, mapping: Path):
    logs.write("a.log", ndjson(WHEN))
    logs.run()
    logs.write("a.log", ndjson(entry(5)))
    run = logs.ingestion()
    waiting = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with run.settings.postgres.session() as session:
        work = _Work(run, session, open_store(run.settings), 0)
        work.ledger.discover([*open_store(run.settings).list()])
        claim = work.ledger.claim()
        assert claim is not None
        replaying = threading.Thread(target=try_again, args=(logs, mapping))
        loader, complete = work._loader(), type(work.ledger).complete
        with pytest.MonkeyPatch.context() as patch:

            def last(*given: object, **counts: object) -> bool:
                """Once its own rows are there, and those of the former version gone."""
                replaying.start()
                while replaying.is_alive() and not logs.database.execute(waiting):
                    pass
                return complete(*given, **counts)  # type: ignore[arg-type]

            patch.setattr(type(work.ledger), "complete", last)
            loader.load(claim)
    replaying.join()
    assert (logs.rows(), left(logs)) == (["request 5"], 0)


def test_an_entry_that_postgresql_refuses_again_stays_rejected_and_the_books_say_so(each_logs: Logs, mapping: Path):
    each_logs.write("a.log", ndjson(WHEN, WHEN | {"msg": "refused"}))
    each_logs.run()
    each_logs.database.execute("ALTER TABLE logs ADD CHECK (message <> 'refused')")
    counts = try_again(each_logs, mapping)
    assert (counts.new, counts.rejected, left(each_logs)) == (1, 1, 1)
    assert each_logs.files() == [("COMPLETED", 1, 1)]


@pytest.mark.parametrize("comes_back", [False, True], ids=["a new version", "the same once more"])
def test_what_was_rejected_of_an_aged_day_stays_where_the_version_that_comes_next_leaves_it_out(
    logs: Logs, mapping: Path, comes_back: bool
):
    aged, young = (now_utc() - timedelta(days=days) for days in (10, 2))
    of_both = [
        entry(1, time=aged.isoformat()),
        *({"msg": f"{when:%d}", "when": when.isoformat()} for when in (aged, young)),
    ]
    path = logs.write("a.log", ndjson(*of_both))
    logs.run()
    former = path.stat()
    logs.write("a.log", ndjson(*of_both, entry(2, time=young.isoformat())))
    if comes_back:
        logs.run(limit=0)
        logs.write("a.log", ndjson(*of_both))
        os.utime(path, ns=(former.st_mtime_ns, former.st_mtime_ns))
    # The mapping was mended, and the day has come of age since.
    counts = logs.run(datasets=[archived_logs("5 days")], logs_mapping=mapping).counts
    assert counts.too_old == 2
    assert sorted(logs.rows()) == sorted(["request 1", f"{young:%d}"] + ["request 2"] * (not comes_back))
    ((raw,),) = logs.database.execute("SELECT raw FROM rejected_records")
    assert json.loads(bytes(raw))["msg"] == f"{aged:%d}"  # type: ignore[call-overload]
    assert logs.files() == [("COMPLETED", 1 + (not comes_back), int(comes_back))]
