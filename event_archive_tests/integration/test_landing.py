"""A batch lands once, in one transaction, whatever is in it and whoever else is at the table."""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace

import psycopg
import pytest

from event_archive.domain.dataset import TableName
from event_archive.errors import BusyError, IntegrityError, RefusedError, UnreachableError
from event_archive.postgres.session import Connection, Postgres, Session
from event_archive.sources.copy_format import line
from event_archive.sources.landing import Batch, Counts, Rejected, land_in, rejected_table
from event_archive.sources.merge import Target
from event_archive.sources.rejected import RejectedRecords, Replay
from event_archive.sources.tables import make_missing
from event_archive_tests.fixtures.landing import land
from event_archive_tests.fixtures.postgres import Database
from event_archive_tests.fixtures.statements import LOGS_COMMANDS

TABLE = TableName("public", "measurements")
COLUMNS = (("id", "text"), ("at", "timestamptz"), ("n", "numeric(9)"), ("data", "jsonb"))
IGNORE = Target(TABLE, COLUMNS, ("id",))
UPDATE = Target(TABLE, COLUMNS, ("id",), "at")

Row = tuple[str, str, str]
"""Id, hour and number of a measurement."""


@pytest.fixture
def table(each_database: Database) -> Database:
    """A database with an empty table of measurements that refuses some of them."""
    each_database.execute(
        "CREATE TABLE measurements (id text PRIMARY KEY, at timestamptz NOT NULL, n numeric(4) CHECK (n <> 13), "
        "data jsonb)"
    )
    return each_database


@contextmanager
def opened(database: Database) -> Iterator[Session]:
    """A session, and the table of rejected records."""
    with Postgres(database.dsn, lock_timeout_seconds=5).session() as session:
        make_missing(session, rejected_table(IGNORE))
        yield session


def batch(*rows: Row, rejected: tuple[str, ...] = ()) -> Batch:
    lines = [
        line((key.encode(), f"2024-03-01T{hour}:00:00Z".encode(), number.encode(), f'{{"n":"{number}"}}'.encode()))
        for key, hour, number in rows
    ]
    made = Batch(lines, rejected=[Rejected(text, "it is odd", text.encode()) for text in rejected])
    made.origins.append((0, lambda index: (f"row {index}", json.dumps(rows[index]).encode())))
    return made


def nothing(_connection: Connection) -> None:
    """A source without a position."""


def landed(database: Database, target: Target, *batches: Batch) -> list[Counts]:
    with opened(database) as session:
        return [land(session, target, "test", of, nothing) for of in batches]


def rows(database: Database) -> list[tuple[object, ...]]:
    return database.execute("SELECT id, extract(hour FROM at)::int, n::int FROM measurements ORDER BY id")


def rejected(database: Database) -> list[tuple[object, ...]]:
    return database.execute("SELECT locator, reason, raw FROM rejected_records ORDER BY locator")


def test_the_first_record_of_a_key_stays(table: Database):
    first, second = landed(
        table, IGNORE, batch(("a", "01", "1"), ("a", "02", "2"), ("b", "01", "3")), batch(("a", "05", "9"))
    )
    assert rows(table) == [("a", 1, 1), ("b", 1, 3)]
    assert first == Counts(taken=3, new=2, known=1)
    assert second == Counts(taken=1, known=1)


def test_a_newer_record_takes_the_place_of_the_row_and_an_older_one_does_not(table: Database):
    counts = landed(
        table,
        UPDATE,
        batch(("a", "02", "1"), ("b", "02", "1"), ("c", "02", "1"), ("d", "02", "1")),
        batch(("a", "03", "2"), ("b", "01", "2"), ("c", "02", "2"), ("d", "02", "1"), ("e", "01", "5")),
    )
    assert rows(table) == [("a", 3, 2), ("b", 2, 1), ("c", 2, 2), ("d", 2, 1), ("e", 1, 5)]
    # Superseded: the old a, the late b, the old c, which is as new; d is known.
    assert counts[1] == Counts(taken=5, new=1, known=1, superseded=3)


def test_of_a_key_in_one_batch_the_newest_counts_and_of_equally_new_ones_the_last(table: Database):
    (counts,) = landed(
        table,
        UPDATE,
        batch(("a", "02", "1"), ("a", "03", "2"), ("a", "01", "3"), ("b", "01", "4"), ("b", "01", "5")),
    )
    assert rows(table) == [("a", 3, 2), ("b", 1, 5)]
    assert (counts.new, counts.superseded + counts.known, counts.balance) == (2, 3, 0)


GUARDS = {
    "a check": "ALTER TABLE measurements ADD CHECK (n > 5) NOT VALID",
    "a trigger": """CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF new.n <= 5 THEN RAISE EXCEPTION 'no'; END IF; RETURN new; END $$;
        CREATE TRIGGER t BEFORE INSERT ON measurements FOR EACH ROW EXECUTE FUNCTION refuse()""",
}


@pytest.mark.parametrize("guard", GUARDS.values(), ids=GUARDS)
def test_a_record_whose_row_stands_is_not_rejected_by_what_came_after_it(table: Database, guard: str):
    landed(table, IGNORE, batch(("a", "02", "1"), ("b", "02", "2")))
    table.execute(guard)
    again = batch(("a", "02", "1"), ("b", "02", "2"), ("c", "02", "3"), ("d", "02", "9"))
    assert landed(table, IGNORE, again) == [Counts(taken=4, new=1, known=2, rejected=1)]
    # Older, the same, and newer: this one would be another row.
    of_each = batch(("a", "01", "3"), ("b", "02", "2"), ("d", "03", "4"), rejected=("odd",))
    assert landed(table, UPDATE, of_each) == [Counts(taken=4, known=1, superseded=1, rejected=2)]
    assert rows(table) == [("a", 2, 1), ("b", 2, 2), ("d", 2, 9)]


def test_an_unchanged_row_is_not_written_again(table: Database):
    landed(table, UPDATE, batch(("a", "02", "1")))
    before = table.execute("SELECT ctid, xmin FROM measurements")
    landed(table, UPDATE, batch(("a", "02", "1")))
    assert table.execute("SELECT ctid, xmin FROM measurements") == before


@pytest.mark.parametrize("version", [None, "n"], ids=["ignore", "update"])
def test_a_partitioned_table_takes_a_batch_twice(each_database: Database, version: str | None):
    each_database.execute(
        "CREATE TABLE measurements (id text, at timestamptz, n numeric, data jsonb, PRIMARY KEY (id, at)) "
        "PARTITION BY RANGE (at);"
        "CREATE TABLE a_day PARTITION OF measurements FOR VALUES FROM ('2024-03-01Z') TO ('2024-03-02Z')"
    )
    counts = landed(
        each_database,
        Target(TABLE, COLUMNS, ("id", "at"), version),
        batch(("a", "01", "1"), ("b", "01", "1")),
        batch(("a", "01", "2"), ("b", "01", "1"), ("c", "01", "1")),
    )
    assert counts[0] == Counts(taken=2, new=2)
    newer = 1 if version else 0
    assert counts[1] == Counts(taken=3, new=1, known=2 - newer, superseded=newer)
    assert rows(each_database) == [("a", 1, 1 + newer), ("b", 1, 1), ("c", 1, 1)]


REFUSED = {"13": "measurements_n_check", "123456": "numeric", "three": "invalid text representation"}


def test_a_record_that_postgresql_refuses_is_rejected_alone(table: Database):
    good = [(f"k{number:02}", "01", str(number)) for number in range(12)]
    bad = [(f"bad {number}", "01", number) for number in REFUSED]
    mixed = [*good[:5], bad[0], *good[5:9], bad[1], bad[2], *good[9:]]
    (counts,) = landed(table, IGNORE, batch(*mixed))
    assert counts == Counts(taken=15, new=12, rejected=3)
    assert [key for key, *_ in rows(table)] == [key for key, *_ in good]
    found = {json.loads(bytes(raw))[2]: str(reason) for _, reason, raw in rejected(table)}  # type: ignore[call-overload]
    assert found.keys() == REFUSED.keys()
    for number, words in REFUSED.items():
        assert words in found[number]
        assert number not in found[number]
    assert [locator for locator, *_ in rejected(table)] == ["row 10", "row 11", "row 5"]


def test_a_record_that_a_trigger_refuses_is_rejected_alone(table: Database):
    table.execute(
        """
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN IF new.id = 'evil' THEN RAISE EXCEPTION 'no % here', new.id; END IF; RETURN new; END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON measurements FOR EACH ROW EXECUTE FUNCTION refuse()
        """
    )
    (counts,) = landed(table, IGNORE, batch(("a", "01", "1"), ("evil", "01", "2"), ("c", "01", "3")))
    assert counts == Counts(taken=3, new=2, rejected=1)
    ((_, reason, _),) = rejected(table)
    assert "a function raised an exception: refuse()" in str(reason)
    assert "evil" not in str(reason)


@pytest.mark.parametrize("target", [IGNORE, UPDATE], ids=["ignore", "update"])
def test_a_record_that_a_deferred_foreign_key_refuses_is_rejected_alone(table: Database, target: Target):
    table.execute(
        """
        CREATE TABLE device (id text PRIMARY KEY);
        INSERT INTO device VALUES ('a'), ('c');
        ALTER TABLE measurements ADD FOREIGN KEY (id) REFERENCES device DEFERRABLE INITIALLY DEFERRED
        """
    )
    (counts,) = landed(table, target, batch(("a", "01", "1"), ("b", "01", "2"), ("c", "01", "3")))
    assert counts == Counts(taken=3, new=2, rejected=1)
    assert [key for key, *_ in rows(table)] == ["a", "c"]
    ((locator, reason, _),) = rejected(table)
    assert (locator, "foreign key" in str(reason)) == ("row 1", True)


def test_what_the_position_defers_is_no_records_fault(table: Database):
    table.execute(
        """
        CREATE TABLE place (id text PRIMARY KEY);
        CREATE TABLE position (n text REFERENCES place DEFERRABLE INITIALLY DEFERRED)
        """
    )

    def save(connection: Connection) -> None:
        connection.execute("INSERT INTO public.position VALUES ('x')")

    with opened(table) as session, pytest.raises(RefusedError, match="position_n_fkey"):
        land(session, IGNORE, "test", batch(("a", "01", "1")), save)
    assert (rows(table), rejected(table)) == ([], [])


def test_what_the_position_defers_finds_what_it_names(table: Database):
    table.execute(
        """
        CREATE TABLE position (n text); CREATE TABLE note (n text);
        CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN INSERT INTO note VALUES (new.n); RETURN new; END $$;
        CREATE CONSTRAINT TRIGGER note AFTER INSERT ON position DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION note()
        """
    )

    def save(connection: Connection) -> None:
        connection.execute("INSERT INTO public.position VALUES ('x')")

    with opened(table) as session:
        land(session, IGNORE, "test", batch(("a", "01", "1")), save)
    assert (len(rows(table)), table.execute("SELECT n FROM note")) == (1, [("x",)])


@pytest.mark.parametrize("code", ["P0002", "P0003", "P0004", "ZX001", "45000"])
def test_a_record_that_a_trigger_refuses_in_any_words_of_its_own_is_rejected_alone(table: Database, code: str):
    table.execute(
        f"""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN IF new.id = 'evil' THEN RAISE EXCEPTION 'no' USING ERRCODE = '{code}'; END IF; RETURN new; END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON measurements FOR EACH ROW EXECUTE FUNCTION refuse()
        """
    )
    (counts,) = landed(table, IGNORE, batch(("a", "01", "1"), ("evil", "01", "2"), ("c", "01", "3")))
    assert counts == Counts(taken=3, new=2, rejected=1)
    assert len(rejected(table)) == 1


SWALLOW = """
CREATE SEQUENCE attempts;
CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RETURN CASE WHEN new.id <> 'b' OR nextval('attempts') > {} THEN new END; END $$;
CREATE TRIGGER swallow BEFORE INSERT ON measurements FOR EACH ROW EXECUTE FUNCTION swallow()
"""


@pytest.mark.parametrize("target", [IGNORE, UPDATE], ids=["ignore", "update"])
def test_a_record_that_a_trigger_makes_nothing_of_is_not_known_but_an_error(table: Database, target: Target):
    table.execute(SWALLOW.format(1000))
    landed(table, target, batch(("a", "01", "1")))
    with pytest.raises(IntegrityError, match="1 of 3 records that were inserted have no row: a trigger keeps them out"):
        landed(table, target, batch(("a", "01", "1"), ("b", "01", "2"), ("c", "01", "3")))
    assert [key for key, *_ in rows(table)] == ["a"]


@pytest.mark.parametrize("target", [IGNORE, UPDATE], ids=["ignore", "update"])
@pytest.mark.parametrize(
    "trigger",
    [
        "BEFORE INSERT ON measurements FOR EACH ROW EXECUTE FUNCTION another('key')",
        "AFTER INSERT ON measurements FOR EACH ROW EXECUTE FUNCTION another('away')",
        "AFTER INSERT ON measurements FOR EACH STATEMENT EXECUTE FUNCTION another('all away')",
        "AFTER INSERT ON measurements DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION another('away')",
    ],
)
def test_a_new_record_that_a_trigger_makes_another_row_of_or_none_is_an_error(
    table: Database, target: Target, trigger: str
):
    table.execute(
        f"""
        CREATE FUNCTION another() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
          IF tg_argv[0] = 'key' THEN new.id := gen_random_uuid()::text; RETURN new; END IF;
          IF tg_argv[0] = 'away' THEN DELETE FROM measurements WHERE id = new.id; ELSE DELETE FROM measurements; END IF;
          RETURN new;
        END $$;
        CREATE {"CONSTRAINT " if "DEFERRED" in trigger else ""}TRIGGER another {trigger}
        """
    )
    with pytest.raises(IntegrityError, match="2 of 2 records that were inserted have no row: a trigger keeps them out"):
        landed(table, target, batch(("a", "01", "1"), ("b", "01", "2")))
    assert rows(table) == []


@pytest.mark.parametrize("target", [IGNORE, UPDATE], ids=["ignore", "update"])
def test_a_record_that_a_trigger_gives_another_key_beside_its_row_is_an_error(table: Database, target: Target):
    table.execute(
        """
        CREATE FUNCTION rename() RETURNS trigger LANGUAGE plpgsql AS
          $$ BEGIN IF new.n = 8 THEN new.id := upper(new.id); END IF; RETURN new; END $$;
        CREATE TRIGGER rename BEFORE INSERT ON measurements FOR EACH ROW EXECUTE FUNCTION rename()
        """
    )
    landed(table, target, batch(("a", "01", "1")))
    with pytest.raises(IntegrityError, match="1 of 2 records that were inserted have no row: .* another key"):
        landed(table, target, batch(("a", "02", "8"), ("b", "02", "2")))
    assert rows(table) == [("a", 1, 1)]


@pytest.mark.parametrize("statement", ["INSERT", "UPDATE"])
def test_a_newer_record_that_a_trigger_keeps_from_its_row_is_not_known_but_an_error(table: Database, statement: str):
    table.execute(
        f"""
        CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS
          $$ BEGIN RETURN CASE WHEN new.id <> 'b' OR new.n <> 3 THEN new END; END $$;
        CREATE TRIGGER keep BEFORE {statement} ON measurements FOR EACH ROW EXECUTE FUNCTION keep()
        """
    )
    first = batch(("a", "02", "1"), ("b", "02", "1"))
    older = batch(("a", "03", "2"), ("b", "01", "2"), ("c", "01", "2"))
    assert landed(table, UPDATE, first, older, first)[1:] == [
        Counts(taken=3, new=1, superseded=2),
        Counts(taken=2, known=1, superseded=1),
    ]
    with pytest.raises(IntegrityError, match="1 of 2 records are newer than their rows, and a trigger keeps those"):
        landed(table, UPDATE, batch(("a", "04", "3"), ("b", "04", "3")))
    assert rows(table) == [("a", 3, 2), ("b", 2, 1), ("c", 1, 2)]


def test_a_row_that_vanishes_in_the_midst_is_landed_by_the_next_attempt(table: Database):
    table.execute(SWALLOW.format(1))
    (counts,) = landed(table, IGNORE, batch(("a", "01", "1"), ("b", "01", "2")))
    assert counts == Counts(taken=2, new=2)
    assert len(rows(table)) == 2


def test_the_same_rejected_record_is_known_the_second_time(table: Database):
    counts = landed(table, IGNORE, batch(rejected=("x", "x", "y")), batch(("a", "01", "13"), rejected=("y", "z")))
    assert counts[0] == Counts(taken=3, rejected=2, known=1)
    assert counts[1] == Counts(taken=3, rejected=2, known=1)
    again = landed(table, IGNORE, batch(("a", "01", "13")))
    assert again == [Counts(taken=1, known=1)]
    assert [locator for locator, *_ in rejected(table)] == ["row 0", "x", "y", "z"]


@pytest.mark.parametrize("trigger", ["BEFORE INSERT", "AFTER INSERT"])
def test_a_rejected_record_that_a_trigger_makes_nothing_of_is_an_error(table: Database, trigger: str):
    landed(table, IGNORE, batch(rejected=("x",)))
    table.execute(
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
        landed(table, IGNORE, batch(("a", "01", "1"), rejected=("y", "x")))
    assert (rows(table), [locator for locator, *_ in rejected(table)]) == ([], ["x"])


def one_locator(*raws: bytes) -> Batch:
    """Rejected records that a source has given one locator."""
    return Batch(rejected=[Rejected("there", "it is odd", raw) for raw in raws])


def kept(database: Database) -> list[bytes]:
    return sorted(bytes(raw) for _, _, raw in rejected(database))  # type: ignore[call-overload]


def test_other_bytes_under_one_locator_are_kept_too_and_each_of_them_once(table: Database):
    counts = landed(table, IGNORE, one_locator(b"B"), one_locator(b"A", b"B", b"C", b"A"), one_locator(b"C", b"A"))
    assert kept(table) == [b"A", b"B", b"C"]
    assert [(of.rejected, of.known) for of in counts] == [(1, 0), (2, 2), (0, 2)]


def test_other_bytes_that_two_reject_under_one_locator_at_once_are_both_kept(table: Database):
    with opened(table):
        both = threading.Barrier(2)

    def reject(raw: bytes) -> Counts:
        with opened(table) as session, session.transaction("both") as connection:
            connection.execute("SELECT")
            both.wait(10)
            counts = land_in(connection, IGNORE, "test", one_locator(raw))
            # The other one waits for this commit.
            connection.execute("SELECT pg_sleep(0.3)")
            return counts

    with ThreadPoolExecutor(2) as pool:
        counts = list(pool.map(reject, (b"A", b"B")))
    assert counts == [Counts(taken=1, rejected=1)] * 2
    assert kept(table) == [b"A", b"B"]


def again(*raws: bytes) -> Replay:
    """Reads rejected records anew; those of some bytes are refused by PostgreSQL still."""

    def read(_connection: Connection, records: Sequence[tuple[str, bytes]]) -> tuple[Batch, list[int]]:
        made = batch(*((raw.decode(), "01", "13" if raw in raws else "1") for _, raw in records))
        made.origins.append((0, lambda index: records[index]))
        return made, [*range(len(records))]

    return Replay("test", IGNORE, read)


def test_other_bytes_under_one_locator_that_are_refused_again_are_all_kept(table: Database):
    landed(table, IGNORE, one_locator(b"A", b"B", b"C"))
    with opened(table) as session:
        counts = RejectedRecords(session, rejected_table(IGNORE)).replay(again(b"A", b"C"))
    assert counts == Counts(taken=3, new=1, rejected=2)
    assert kept(table) == [b"A", b"C"]
    assert [key for key, *_ in rows(table)] == ["B"]


def test_what_another_replay_has_just_taken_is_not_told_as_landed(table: Database):
    landed(table, IGNORE, one_locator(b"A", b"B"))
    both = threading.Barrier(2)

    def replay(_number: int) -> Counts:
        first = again(b"B")

        def read(connection: Connection, records: Sequence[tuple[str, bytes]]) -> tuple[Batch, list[int]]:
            with suppress(threading.BrokenBarrierError):
                both.wait(5)
            return first.read(connection, records)

        with opened(table) as session:
            return RejectedRecords(session, rejected_table(IGNORE)).replay(replace(first, read=read))

    with ThreadPoolExecutor(2) as pool:
        counts = sorted(pool.map(replay, range(2)), key=lambda of: of.taken)
    assert counts == [Counts(), Counts(taken=2, new=1, rejected=1)]
    assert kept(table) == [b"B"]


def test_a_rejected_record_is_kept_to_the_byte(table: Database):
    raw = bytes(range(256)) * 3
    landed(table, IGNORE, Batch(rejected=[Rejected("all bytes", 'a "reason"', raw)]))
    ((_, reason, kept),) = rejected(table)
    assert (reason, bytes(kept)) == ('a "reason"', raw)  # type: ignore[call-overload]


def test_any_text_lands_as_it_is(each_database: Database):
    each_database.execute("CREATE TABLE measurements (id text PRIMARY KEY, at timestamptz, n text)")
    texts = ["", "\\N", "\\.", "a\tb\nc\r\n", "\x01\x02\x02", '"', "NULL", "ü\U0001f600", " ", "\x7f\x1b"]
    lines = [line((str(n).encode(), None, text.encode())) for n, text in enumerate(texts)]
    landed(each_database, Target(TABLE, [*COLUMNS[:2], ("n", "text")], ("id",)), Batch(lines))
    assert each_database.execute("SELECT n, at FROM measurements ORDER BY id") == [(text, None) for text in texts]


def test_too_old_and_lost_records_are_in_the_books(table: Database):
    made = batch(("a", "01", "1"), rejected=("x",))
    made.too_old, made.lost = 3, [Rejected(locator, "it is gone", b"") for locator in ("y", "z")]
    counts, again = landed(table, IGNORE, made, made)
    assert counts == Counts(taken=7, new=1, rejected=1, too_old=3, lost=2)
    assert again == Counts(taken=7, known=4, too_old=3), "a lost record is written down once"
    assert counts.balance == 0
    assert Counts(taken=2, new=1).balance == 1


def test_books_that_do_not_balance_undo_the_batch(table: Database, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("event_archive.sources.landing.Counts.balance", property(lambda _counts: 1))
    with pytest.raises(IntegrityError, match="do not balance"):
        landed(table, IGNORE, batch(("a", "01", "1")))
    assert rows(table) == []


def positions(database: Database) -> list[tuple[object, ...]]:
    return database.execute("SELECT n FROM position")


def test_the_position_is_committed_with_the_rows_or_not_at_all(table: Database):
    table.execute("CREATE TABLE position (n int)")

    def save(connection: Connection) -> None:
        connection.execute("INSERT INTO public.position SELECT pg_catalog.count(*) + 1 FROM public.position")

    def fail(connection: Connection) -> None:
        save(connection)
        raise RefusedError("no")

    with opened(table) as session:
        land(session, IGNORE, "test", batch(("a", "01", "1"), rejected=("x",)), save)
        with pytest.raises(RefusedError):
            land(session, IGNORE, "test", batch(("b", "01", "1"), rejected=("y",)), fail)
        assert (positions(table), len(rows(table)), len(rejected(table))) == ([(1,)], 1, 1)
        # The session is of use still.
        land(session, IGNORE, "test", batch(("b", "01", "1"), ("c", "01", "1")), save)
        table.execute("ALTER TABLE rejected_records RENAME TO elsewhere")
        with pytest.raises(RefusedError):
            land(session, IGNORE, "test", batch(("d", "01", "1"), rejected=("z",)), save)
    assert (positions(table), len(rows(table))) == ([(1,), (2,)], 3)


def test_a_lost_connection_leaves_nothing_and_another_session_lands_it_all(table: Database):
    def die(connection: Connection) -> None:
        table.execute("SELECT pg_terminate_backend(%s)", connection.info.backend_pid)

    of = batch(("a", "01", "1"), rejected=("x",))
    with opened(table) as session, pytest.raises(UnreachableError, match="goes on where the last commit ended"):
        land(session, IGNORE, "test", of, die)
    assert (rows(table), rejected(table)) == ([], [])
    assert landed(table, IGNORE, of) == [Counts(taken=2, new=1, rejected=1)]


def until_blocked(database: Database) -> None:
    """Returns once a session waits for another one's lock."""
    while database.execute("SELECT count(*) FROM pg_locks WHERE NOT granted") == [(0,)]:
        pass


@contextmanager
def another(database: Database) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database.dsn) as connection:
        yield connection


def run_twice(table: Database, first: Callable[[Connection], None]) -> tuple[int, Counts]:
    """Lands a batch whose first attempt does something at its end; returns how many attempts there were."""
    attempts: list[int] = []

    def position(connection: Connection) -> None:
        attempts.append(1)
        if len(attempts) == 1:
            first(connection)

    waited: list[float] = []
    with opened(table) as session:
        counts = land(session, IGNORE, "test", batch(("a", "01", "1"), rejected=("x",)), position, pause=waited.append)
    assert len(waited) == len(attempts) - 1
    assert len(rows(table)) == len(rejected(table)) == 1
    return len(attempts), counts


def test_a_deadlock_lands_the_whole_batch_again(table: Database):
    table.execute("CREATE TABLE pair (n int PRIMARY KEY); INSERT INTO pair VALUES (1), (2)")
    with another(table) as other, ThreadPoolExecutor(1) as pool:
        other.execute("SET deadlock_timeout TO '1min'")
        other.execute("UPDATE pair SET n = n WHERE n = 2")

        def cross(connection: Connection) -> None:
            connection.execute("SET LOCAL deadlock_timeout TO '50ms'")
            connection.execute("UPDATE public.pair SET n = n WHERE n = 1")
            waits = pool.submit(other.execute, "UPDATE pair SET n = n WHERE n = 1")
            until_blocked(table)
            try:
                connection.execute("UPDATE public.pair SET n = n WHERE n = 2")
            except psycopg.errors.DeadlockDetected:
                # What waited for this transaction goes on as it ends.
                done.append(waits)
                raise

        done: list[object] = []
        assert run_twice(table, cross) == (2, Counts(taken=2, new=1, rejected=1))
        assert len(done) == 1


def test_a_failed_serialization_lands_the_whole_batch_again(table: Database):
    table.execute(
        "CREATE TABLE parts (n int) PARTITION BY LIST (n); CREATE TABLE one PARTITION OF parts FOR VALUES IN (1);"
        "CREATE TABLE two PARTITION OF parts FOR VALUES IN (2); INSERT INTO parts VALUES (1)"
    )
    failed = []
    with another(table) as other, ThreadPoolExecutor(1) as pool:
        other.execute("UPDATE parts SET n = 2")

        def commit() -> None:
            until_blocked(table)
            other.commit()

        def collide(connection: Connection) -> None:
            committed = pool.submit(commit)
            try:
                connection.execute("UPDATE public.parts SET n = n WHERE n = 1")
            except psycopg.errors.SerializationFailure:
                failed.append(committed)
                raise

        assert run_twice(table, collide) == (2, Counts(taken=2, new=1, rejected=1))
    assert len(failed) == 1


def test_a_batch_whose_locks_others_keep_is_given_up_after_five_attempts(table: Database):
    attempts = []

    def always(_connection: Connection) -> None:
        attempts.append(1)
        raise BusyError("a lock")

    waited: list[float] = []
    with opened(table) as session, pytest.raises(BusyError):
        land(session, IGNORE, "test", batch(("a", "01", "1")), always, pause=waited.append)
    assert (len(attempts), waited) == (5, [0.2, 0.4, 0.8, 1.6])
    assert rows(table) == []


def test_two_landings_of_the_same_keys_in_opposite_order_never_wait_in_a_ring(table: Database):
    keys = [f"k{number:03}" for number in range(200)]
    barrier = threading.Barrier(2)

    def writes(order: list[str], number: int) -> Counts:
        total = Counts()
        with opened(table) as session:
            for hour in range(10):
                barrier.wait()
                of = batch(*((key, f"{hour:02}", str(number)) for key in order))
                total.add(land(session, UPDATE, "test", of, nothing, pause=ring.append))
        return total

    ring: list[float] = []
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(writes, (keys, keys[::-1]), (1, 2))
    assert ring == []
    assert one.new + other.new == 200
    assert one.balance == other.balance == 0


def test_a_trigger_of_the_users_finds_what_it_names_without_a_schema(table: Database):
    landed(table, UPDATE, Batch())
    table.execute(
        """
        CREATE TABLE audit (id text, what text);
        CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
          $$ BEGIN INSERT INTO audit VALUES (new.id, tg_op); RETURN NULL; END $$;
        CREATE TRIGGER note AFTER INSERT OR UPDATE ON measurements FOR EACH ROW EXECUTE FUNCTION note();
        CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS
          $$ BEGIN INSERT INTO audit VALUES (new.locator, 'REJECTED'); RETURN NULL; END $$;
        CREATE TRIGGER tell AFTER INSERT ON rejected_records FOR EACH ROW EXECUTE FUNCTION tell()
        """
    )
    landed(table, UPDATE, batch(("a", "01", "1")), batch(("a", "02", "2")), batch(("a", "02", "2"), rejected=("x",)))
    assert table.execute("SELECT what FROM audit") == [("INSERT",), ("UPDATE",), ("REJECTED",)]


def test_names_that_need_quotes_are_quoted(each_database: Database):
    each_database.execute('CREATE SCHEMA "My ""schema"; CREATE TABLE "My ""schema"."T%x" ("The id" text PRIMARY KEY)')
    target = Target(TableName('My "schema', "T%x"), [("The id", "text")], ("The id",))
    with Postgres(each_database.dsn).session() as session:
        make_missing(session, rejected_table(target))
        land(session, target, "test", Batch([line((b"a",))], rejected=[Rejected("x", "y", b"z")]), nothing)
    assert each_database.execute('SELECT "The id" FROM "My ""schema"."T%x"') == [("a",)]
    assert each_database.execute('SELECT locator FROM "My ""schema".rejected_records') == [("x",)]


SOURCES = [TableName("public", name) for name in ("ingested_events", "cursor_state", "rejected_records")]


def test_processes_that_start_at_once_make_the_missing_tables_once(each_database: Database):
    barrier = threading.Barrier(4)

    def make(_number: int) -> int:
        with Postgres(each_database.dsn).session() as session:
            barrier.wait()
            return len(make_missing(session, *SOURCES))

    with ThreadPoolExecutor(4) as pool:
        assert max(pool.map(make, range(4))) == 3
    with Postgres(each_database.dsn).session() as session:
        assert make_missing(session, *SOURCES) == []


@pytest.fixture
def poor_role(each_database: Database) -> Iterator[str]:
    """A role that may connect, and nothing else."""
    role = f"poor_{each_database.name}"
    each_database.execute(f"CREATE ROLE {role} LOGIN; REVOKE CREATE ON SCHEMA public FROM public")
    yield role
    each_database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_a_role_that_may_not_make_a_table_is_told_the_statement_which_works(each_database: Database, poor_role: str):
    poor = Postgres(each_database.server.dsn(each_database.name, poor_role))
    for table in SOURCES:
        with poor.session() as session, pytest.raises(RefusedError, match="may not make it") as refused:
            make_missing(session, table)
        each_database.execute(str(refused.value).partition("on it:\n")[2].partition(" [SQLSTATE")[0])
    with poor.session() as session:
        assert make_missing(session, *SOURCES) == []


def test_a_role_that_may_make_no_table_is_told_all_the_statements_at_once(each_database: Database, poor_role: str):
    poor = Postgres(each_database.server.dsn(each_database.name, poor_role))
    with poor.session() as session, pytest.raises(RefusedError, match="may not make them") as refused:
        make_missing(session, *SOURCES)
    each_database.execute(str(refused.value).partition("on them:\n")[2].partition(" [SQLSTATE")[0])
    with poor.session() as session:
        assert make_missing(session, *SOURCES) == []


def test_a_role_that_may_not_insert_is_told_what_to_grant(table: Database, poor_role: str):
    landed(table, IGNORE, Batch())
    poor = Postgres(table.server.dsn(table.name, poor_role))
    with poor.session() as session, pytest.raises(RefusedError, match="needs SELECT, INSERT and UPDATE on public.mea"):
        land(session, IGNORE, "test", batch(("a", "01", "1")), nothing)
    table.execute(f"GRANT SELECT, INSERT ON measurements, rejected_records TO {poor_role}")
    with poor.session() as session:
        land(session, IGNORE, "test", batch(("a", "01", "1"), rejected=("x",)), nothing)
    assert len(rows(table)) == 1


def test_a_schema_of_its_own_takes_the_tables(each_database: Database):
    each_database.execute('CREATE SCHEMA "Ingest"')
    with Postgres(each_database.dsn).session() as session:
        make_missing(session, *(TableName("Ingest", table.name) for table in SOURCES))
    query = "SELECT count(*) FROM pg_tables WHERE schemaname = 'Ingest'"
    assert each_database.execute(query) == [(3,)]


def test_an_event_trigger_of_the_users_finds_what_it_names_without_a_schema(table: Database):
    table.execute(LOGS_COMMANDS)
    assert landed(table, UPDATE, batch(("a", "01", "1"), rejected=("x",))) == [Counts(taken=2, new=1, rejected=1)]
    with Postgres(table.dsn).session() as session:
        assert make_missing(session, *SOURCES) == SOURCES[:2]
    (made,) = table.execute("SELECT count(*) FROM commands WHERE tag = 'CREATE TABLE'")
    assert made == (5,)


GIVES_TRIGGERS = """
CREATE FUNCTION moves() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN new.at := now(); RETURN new; END $$;
CREATE FUNCTION gives() RETURNS event_trigger LANGUAGE plpgsql AS $$ DECLARE made record; BEGIN
  FOR made IN SELECT * FROM pg_event_trigger_ddl_commands() WHERE object_identity LIKE '%measurements' LOOP
    EXECUTE format('CREATE TRIGGER moves BEFORE INSERT ON %s FOR EACH ROW EXECUTE FUNCTION moves()',
                   made.object_identity);
  END LOOP; END $$;
CREATE EVENT TRIGGER gives ON ddl_command_end WHEN tag IN ('CREATE TABLE') EXECUTE FUNCTION gives()
"""


def test_triggers_that_an_event_trigger_gives_new_tables_do_not_touch_what_lands(table: Database):
    table.execute(GIVES_TRIGGERS)
    landed(table, UPDATE, batch(("a", "02", "1")), batch(("b", "03", "1")))
    assert rows(table) == [("a", 2, 1), ("b", 3, 1)]
