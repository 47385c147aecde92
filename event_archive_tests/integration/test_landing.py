"""A batch lands once, in one transaction, whatever is in it: new, newer and known records, positions, books."""

import pytest

from event_archive.errors import IntegrityError, RefusedError
from event_archive.postgres.session import Connection
from event_archive.sources.copy_format import line
from event_archive.sources.landing import Batch, Counts, Rejected
from event_archive.sources.merge import Target
from event_archive_tests.fixtures.landing import (
    COLUMNS,
    IGNORE,
    TABLE,
    UPDATE,
    batch,
    land,
    landed,
    opened,
    rejected,
    rows,
)
from event_archive_tests.fixtures.postgres import Database


def test_the_first_record_of_a_key_stays(measurements: Database):
    first, second = landed(
        measurements, IGNORE, batch(("a", "01", "1"), ("a", "02", "2"), ("b", "01", "3")), batch(("a", "05", "9"))
    )
    assert rows(measurements) == [("a", 1, 1), ("b", 1, 3)]
    assert first == Counts(taken=3, new=2, known=1)
    assert second == Counts(taken=1, known=1)


def test_a_newer_record_takes_the_place_of_the_row_and_an_older_one_does_not(measurements: Database):
    counts = landed(
        measurements,
        UPDATE,
        batch(("a", "02", "1"), ("b", "02", "1"), ("c", "02", "1"), ("d", "02", "1")),
        batch(("a", "03", "2"), ("b", "01", "2"), ("c", "02", "2"), ("d", "02", "1"), ("e", "01", "5")),
    )
    assert rows(measurements) == [("a", 3, 2), ("b", 2, 1), ("c", 2, 2), ("d", 2, 1), ("e", 1, 5)]
    # Superseded: the old a, the late b, the old c, which is as new; d is known.
    assert counts[1] == Counts(taken=5, new=1, known=1, superseded=3)


def test_of_a_key_in_one_batch_the_newest_counts_and_of_equally_new_ones_the_last(measurements: Database):
    (counts,) = landed(
        measurements,
        UPDATE,
        batch(("a", "02", "1"), ("a", "03", "2"), ("a", "01", "3"), ("b", "01", "4"), ("b", "01", "5")),
    )
    assert rows(measurements) == [("a", 3, 2), ("b", 1, 5)]
    assert (counts.new, counts.superseded + counts.known, counts.balance) == (2, 3, 0)


GUARDS = {
    "a check": "ALTER TABLE measurements ADD CHECK (n > 5) NOT VALID",
    "a trigger": """CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF new.n <= 5 THEN RAISE EXCEPTION 'no'; END IF; RETURN new; END $$;
        CREATE TRIGGER t BEFORE INSERT ON measurements FOR EACH ROW EXECUTE FUNCTION refuse()""",
}


@pytest.mark.parametrize("guard", GUARDS.values(), ids=GUARDS)
def test_a_record_whose_row_stands_is_not_rejected_by_what_came_after_it(measurements: Database, guard: str):
    landed(measurements, IGNORE, batch(("a", "02", "1"), ("b", "02", "2")))
    measurements.execute(guard)
    again = batch(("a", "02", "1"), ("b", "02", "2"), ("c", "02", "3"), ("d", "02", "9"))
    assert landed(measurements, IGNORE, again) == [Counts(taken=4, new=1, known=2, rejected=1)]
    # Older, the same, and newer: this one would be another row.
    of_each = batch(("a", "01", "3"), ("b", "02", "2"), ("d", "03", "4"), rejected=("odd",))
    assert landed(measurements, UPDATE, of_each) == [Counts(taken=4, known=1, superseded=1, rejected=2)]
    assert rows(measurements) == [("a", 2, 1), ("b", 2, 2), ("d", 2, 9)]


def test_an_unchanged_row_is_not_written_again(measurements: Database):
    landed(measurements, UPDATE, batch(("a", "02", "1")))
    before = measurements.execute("SELECT ctid, xmin FROM measurements")
    landed(measurements, UPDATE, batch(("a", "02", "1")))
    assert measurements.execute("SELECT ctid, xmin FROM measurements") == before


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


def test_any_text_lands_as_it_is(each_database: Database):
    each_database.execute("CREATE TABLE measurements (id text PRIMARY KEY, at timestamptz, n text)")
    texts = ["", "\\N", "\\.", "a\tb\nc\r\n", "\x01\x02\x02", '"', "NULL", "ü\U0001f600", " ", "\x7f\x1b"]
    lines = [line((str(n).encode(), None, text.encode())) for n, text in enumerate(texts)]
    landed(each_database, Target(TABLE, [*COLUMNS[:2], ("n", "text")], ("id",)), Batch(lines))
    assert each_database.execute("SELECT n, at FROM measurements ORDER BY id") == [(text, None) for text in texts]


def test_too_old_and_lost_records_are_in_the_books(measurements: Database):
    made = batch(("a", "01", "1"), rejected=("x",))
    made.too_old, made.lost = 3, [Rejected(locator, "it is gone", b"") for locator in ("y", "z")]
    counts, again = landed(measurements, IGNORE, made, made)
    assert counts == Counts(taken=7, new=1, rejected=1, too_old=3, lost=2)
    assert again == Counts(taken=7, known=4, too_old=3), "a lost record is written down once"
    assert counts.balance == 0
    assert Counts(taken=2, new=1).balance == 1


def test_books_that_do_not_balance_undo_the_batch(measurements: Database, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("event_archive.sources.landing.Counts.balance", property(lambda _counts: 1))
    with pytest.raises(IntegrityError, match="do not balance"):
        landed(measurements, IGNORE, batch(("a", "01", "1")))
    assert rows(measurements) == []


def positions(database: Database) -> list[tuple[object, ...]]:
    return database.execute("SELECT n FROM position")


def test_the_position_is_committed_with_the_rows_or_not_at_all(measurements: Database):
    measurements.execute("CREATE TABLE position (n int)")

    def save(connection: Connection) -> None:
        connection.execute("INSERT INTO public.position SELECT pg_catalog.count(*) + 1 FROM public.position")

    def fail(connection: Connection) -> None:
        save(connection)
        raise RefusedError("no")

    with opened(measurements) as session:
        land(session, IGNORE, "test", batch(("a", "01", "1"), rejected=("x",)), save)
        with pytest.raises(RefusedError):
            land(session, IGNORE, "test", batch(("b", "01", "1"), rejected=("y",)), fail)
        assert (positions(measurements), len(rows(measurements)), len(rejected(measurements))) == ([(1,)], 1, 1)
        # The session is of use still.
        land(session, IGNORE, "test", batch(("b", "01", "1"), ("c", "01", "1")), save)
        measurements.execute("ALTER TABLE rejected_records RENAME TO elsewhere")
        with pytest.raises(RefusedError):
            land(session, IGNORE, "test", batch(("d", "01", "1"), rejected=("z",)), save)
    assert (positions(measurements), len(rows(measurements))) == ([(1,), (2,)], 3)
