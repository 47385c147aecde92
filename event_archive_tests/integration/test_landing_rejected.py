"""Rejected records are kept to the byte, each of them once, and are taken in by a replay once."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

import pytest

from event_archive.errors import IntegrityError
from event_archive.postgres.session import Connection
from event_archive.sources.landing import Batch, Counts, Rejected, land_in, rejected_table
from event_archive.sources.rejected import RejectedRecords, Replay
from event_archive_tests.fixtures.landing import IGNORE, batch, landed, opened, rejected, rows
from event_archive_tests.fixtures.postgres import Database


def test_the_same_rejected_record_is_known_the_second_time(measurements: Database):
    counts = landed(
        measurements, IGNORE, batch(rejected=("x", "x", "y")), batch(("a", "01", "13"), rejected=("y", "z"))
    )
    assert counts[0] == Counts(taken=3, rejected=2, known=1)
    assert counts[1] == Counts(taken=3, rejected=2, known=1)
    again = landed(measurements, IGNORE, batch(("a", "01", "13")))
    assert again == [Counts(taken=1, known=1)]
    assert [locator for locator, *_ in rejected(measurements)] == ["row 0", "x", "y", "z"]


@pytest.mark.parametrize("trigger", ["BEFORE INSERT", "AFTER INSERT"])
def test_a_rejected_record_that_a_trigger_makes_nothing_of_is_an_error(measurements: Database, trigger: str):
    landed(measurements, IGNORE, batch(rejected=("x",)))
    measurements.execute(
        f"""
        CREATE FUNCTION forget() RETURNS trigger LANGUAGE plpgsql AS
          $$ BEGIN
            IF tg_when = 'AFTER' THEN DELETE FROM rejected_records WHERE locator = new.locator; END IF;
            RETURN NULL;
          END $$;
        CREATE TRIGGER forget {trigger} ON rejected_records FOR EACH ROW EXECUTE FUNCTION forget()
        """
    )
    with pytest.raises(IntegrityError, match="1 of 2 records that were rejected have no row: a trigger keeps them out"):
        landed(measurements, IGNORE, batch(("a", "01", "1"), rejected=("y", "x")))
    assert (rows(measurements), [locator for locator, *_ in rejected(measurements)]) == ([], ["x"])


def one_locator(*raws: bytes) -> Batch:
    """Rejected records that a source has given one locator."""
    return Batch(rejected=[Rejected("there", "it is odd", raw) for raw in raws])


def kept(database: Database) -> list[bytes]:
    return sorted(bytes(raw) for _, _, raw in rejected(database))  # type: ignore[call-overload]


def test_other_bytes_under_one_locator_are_kept_too_and_each_of_them_once(measurements: Database):
    counts = landed(
        measurements, IGNORE, one_locator(b"B"), one_locator(b"A", b"B", b"C", b"A"), one_locator(b"C", b"A")
    )
    assert kept(measurements) == [b"A", b"B", b"C"]
    assert [(of.rejected, of.known) for of in counts] == [(1, 0), (2, 2), (0, 2)]


def test_other_bytes_that_two_reject_under_one_locator_at_once_are_both_kept(measurements: Database):
    with opened(measurements):
        both = threading.Barrier(2)

    def reject(raw: bytes) -> Counts:
        with opened(measurements) as session, session.transaction("both") as connection:
            connection.execute("SELECT")
            both.wait(10)
            counts = land_in(connection, IGNORE, "test", one_locator(raw))
            # The other one waits for this commit.
            connection.execute("SELECT pg_sleep(0.3)")
            return counts

    with ThreadPoolExecutor(2) as pool:
        counts = list(pool.map(reject, (b"A", b"B")))
    assert counts == [Counts(taken=1, rejected=1)] * 2
    assert kept(measurements) == [b"A", b"B"]


def again(*raws: bytes) -> Replay:
    """Reads rejected records anew; those of some bytes are refused by PostgreSQL still."""

    def read(_connection: Connection, records: Sequence[tuple[str, bytes]]) -> tuple[Batch, list[int]]:
        made = batch(*((raw.decode(), "01", "13" if raw in raws else "1") for _, raw in records))
        made.origins.append((0, lambda index: records[index]))
        return made, [*range(len(records))]

    return Replay("test", IGNORE, read)


def test_other_bytes_under_one_locator_that_are_refused_again_are_all_kept(measurements: Database):
    landed(measurements, IGNORE, one_locator(b"A", b"B", b"C"))
    with opened(measurements) as session:
        counts = RejectedRecords(session, rejected_table(IGNORE)).replay(again(b"A", b"C"))
    assert counts == Counts(taken=3, new=1, rejected=2)
    assert kept(measurements) == [b"A", b"C"]
    assert [key for key, *_ in rows(measurements)] == ["B"]


def test_what_another_replay_has_just_taken_is_not_told_as_landed(measurements: Database):
    landed(measurements, IGNORE, one_locator(b"A", b"B"))
    both = threading.Barrier(2)

    def replay(_number: int) -> Counts:
        first = again(b"B")

        def read(connection: Connection, records: Sequence[tuple[str, bytes]]) -> tuple[Batch, list[int]]:
            with suppress(threading.BrokenBarrierError):
                both.wait(5)
            return first.read(connection, records)

        with opened(measurements) as session:
            return RejectedRecords(session, rejected_table(IGNORE)).replay(replace(first, read=read))

    with ThreadPoolExecutor(2) as pool:
        counts = sorted(pool.map(replay, range(2)), key=lambda of: of.taken)
    assert counts == [Counts(), Counts(taken=2, new=1, rejected=1)]
    assert kept(measurements) == [b"B"]


def test_a_rejected_record_is_kept_to_the_byte(measurements: Database):
    raw = bytes(range(256)) * 3
    landed(measurements, IGNORE, Batch(rejected=[Rejected("all bytes", 'a "reason"', raw)]))
    ((_, reason, kept),) = rejected(measurements)
    assert (reason, bytes(kept)) == ('a "reason"', raw)  # type: ignore[call-overload]
