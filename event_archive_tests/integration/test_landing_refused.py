"""Records that PostgreSQL or a trigger refuses are rejected alone; what makes nothing of them is an error."""

import json

import pytest

from event_archive.errors import IntegrityError, RefusedError
from event_archive.postgres.session import Connection
from event_archive.sources.landing import Counts
from event_archive.sources.merge import Target
from event_archive_tests.fixtures.landing import IGNORE, UPDATE, batch, land, landed, opened, rejected, rows
from event_archive_tests.fixtures.postgres import Database

REFUSED = {"13": "measurements_n_check", "123456": "numeric", "three": "invalid text representation"}


def test_a_record_that_postgresql_refuses_is_rejected_alone(measurements: Database):
    good = [(f"k{number:02}", "01", str(number)) for number in range(12)]
    bad = [(f"bad {number}", "01", number) for number in REFUSED]
    mixed = [*good[:5], bad[0], *good[5:9], bad[1], bad[2], *good[9:]]
    (counts,) = landed(measurements, IGNORE, batch(*mixed))
    assert counts == Counts(taken=15, new=12, rejected=3)
    assert [key for key, *_ in rows(measurements)] == [key for key, *_ in good]
    found = {json.loads(bytes(raw))[2]: str(reason) for _, reason, raw in rejected(measurements)}  # type: ignore[call-overload]
    assert found.keys() == REFUSED.keys()
    for number, words in REFUSED.items():
        assert words in found[number]
        assert number not in found[number]
    assert [locator for locator, *_ in rejected(measurements)] == ["row 10", "row 11", "row 5"]


def test_a_record_that_a_trigger_refuses_is_rejected_alone(measurements: Database):
    measurements.execute(
        """
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN IF new.id = 'evil' THEN RAISE EXCEPTION 'no % here', new.id; END IF; RETURN new; END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON measurements FOR EACH ROW EXECUTE FUNCTION refuse()
        """
    )
    (counts,) = landed(measurements, IGNORE, batch(("a", "01", "1"), ("evil", "01", "2"), ("c", "01", "3")))
    assert counts == Counts(taken=3, new=2, rejected=1)
    ((_, reason, _),) = rejected(measurements)
    assert "a function raised an exception: refuse()" in str(reason)
    assert "evil" not in str(reason)


@pytest.mark.parametrize("target", [IGNORE, UPDATE], ids=["ignore", "update"])
def test_a_record_that_a_deferred_foreign_key_refuses_is_rejected_alone(measurements: Database, target: Target):
    measurements.execute(
        """
        CREATE TABLE device (id text PRIMARY KEY);
        INSERT INTO device VALUES ('a'), ('c');
        ALTER TABLE measurements ADD FOREIGN KEY (id) REFERENCES device DEFERRABLE INITIALLY DEFERRED
        """
    )
    (counts,) = landed(measurements, target, batch(("a", "01", "1"), ("b", "01", "2"), ("c", "01", "3")))
    assert counts == Counts(taken=3, new=2, rejected=1)
    assert [key for key, *_ in rows(measurements)] == ["a", "c"]
    ((locator, reason, _),) = rejected(measurements)
    assert (locator, "foreign key" in str(reason)) == ("row 1", True)


def test_what_the_position_defers_is_no_records_fault(measurements: Database):
    measurements.execute(
        """
        CREATE TABLE place (id text PRIMARY KEY);
        CREATE TABLE position (n text REFERENCES place DEFERRABLE INITIALLY DEFERRED)
        """
    )

    def save(connection: Connection) -> None:
        connection.execute("INSERT INTO public.position VALUES ('x')")

    with opened(measurements) as session, pytest.raises(RefusedError, match="position_n_fkey"):
        land(session, IGNORE, "test", batch(("a", "01", "1")), save)
    assert (rows(measurements), rejected(measurements)) == ([], [])


def test_what_the_position_defers_finds_what_it_names(measurements: Database):
    measurements.execute(
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

    with opened(measurements) as session:
        land(session, IGNORE, "test", batch(("a", "01", "1")), save)
    assert (len(rows(measurements)), measurements.execute("SELECT n FROM note")) == (1, [("x",)])


@pytest.mark.parametrize("code", ["P0002", "P0003", "P0004", "ZX001", "45000"])
def test_a_record_that_a_trigger_refuses_in_any_words_of_its_own_is_rejected_alone(measurements: Database, code: str):
    measurements.execute(
        f"""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN IF new.id = 'evil' THEN RAISE EXCEPTION 'no' USING ERRCODE = '{code}'; END IF; RETURN new; END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON measurements FOR EACH ROW EXECUTE FUNCTION refuse()
        """
    )
    (counts,) = landed(measurements, IGNORE, batch(("a", "01", "1"), ("evil", "01", "2"), ("c", "01", "3")))
    assert counts == Counts(taken=3, new=2, rejected=1)
    assert len(rejected(measurements)) == 1


SWALLOW = """
CREATE SEQUENCE attempts;
CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RETURN CASE WHEN new.id <> 'b' OR nextval('attempts') > {} THEN new END; END $$;
CREATE TRIGGER swallow BEFORE INSERT ON measurements FOR EACH ROW EXECUTE FUNCTION swallow()
"""


@pytest.mark.parametrize("target", [IGNORE, UPDATE], ids=["ignore", "update"])
def test_a_record_that_a_trigger_makes_nothing_of_is_not_known_but_an_error(measurements: Database, target: Target):
    measurements.execute(SWALLOW.format(1000))
    landed(measurements, target, batch(("a", "01", "1")))
    with pytest.raises(IntegrityError, match="1 of 3 records that were inserted have no row: a trigger keeps them out"):
        landed(measurements, target, batch(("a", "01", "1"), ("b", "01", "2"), ("c", "01", "3")))
    assert [key for key, *_ in rows(measurements)] == ["a"]


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
    measurements: Database, target: Target, trigger: str
):
    measurements.execute(
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
        landed(measurements, target, batch(("a", "01", "1"), ("b", "01", "2")))
    assert rows(measurements) == []


@pytest.mark.parametrize("target", [IGNORE, UPDATE], ids=["ignore", "update"])
def test_a_record_that_a_trigger_gives_another_key_beside_its_row_is_an_error(measurements: Database, target: Target):
    measurements.execute(
        """
        CREATE FUNCTION rename() RETURNS trigger LANGUAGE plpgsql AS
          $$ BEGIN IF new.n = 8 THEN new.id := upper(new.id); END IF; RETURN new; END $$;
        CREATE TRIGGER rename BEFORE INSERT ON measurements FOR EACH ROW EXECUTE FUNCTION rename()
        """
    )
    landed(measurements, target, batch(("a", "01", "1")))
    with pytest.raises(IntegrityError, match="1 of 2 records that were inserted have no row: .* another key"):
        landed(measurements, target, batch(("a", "02", "8"), ("b", "02", "2")))
    assert rows(measurements) == [("a", 1, 1)]


@pytest.mark.parametrize("statement", ["INSERT", "UPDATE"])
def test_a_newer_record_that_a_trigger_keeps_from_its_row_is_not_known_but_an_error(
    measurements: Database, statement: str
):
    measurements.execute(
        f"""
        CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS
          $$ BEGIN RETURN CASE WHEN new.id <> 'b' OR new.n <> 3 THEN new END; END $$;
        CREATE TRIGGER keep BEFORE {statement} ON measurements FOR EACH ROW EXECUTE FUNCTION keep()
        """
    )
    first = batch(("a", "02", "1"), ("b", "02", "1"))
    older = batch(("a", "03", "2"), ("b", "01", "2"), ("c", "01", "2"))
    assert landed(measurements, UPDATE, first, older, first)[1:] == [
        Counts(taken=3, new=1, superseded=2),
        Counts(taken=2, known=1, superseded=1),
    ]
    with pytest.raises(IntegrityError, match="1 of 2 records are newer than their rows, and a trigger keeps those"):
        landed(measurements, UPDATE, batch(("a", "04", "3"), ("b", "04", "3")))
    assert rows(measurements) == [("a", 3, 2), ("b", 2, 1), ("c", 1, 2)]


def test_a_row_that_vanishes_in_the_midst_is_landed_by_the_next_attempt(measurements: Database):
    measurements.execute(SWALLOW.format(1))
    (counts,) = landed(measurements, IGNORE, batch(("a", "01", "1"), ("b", "01", "2")))
    assert counts == Counts(taken=2, new=2)
    assert len(rows(measurements)) == 2
