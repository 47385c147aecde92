"""``hold``, ``release`` and ``holds`` as commands, and days that are kept: what they say, how they end."""

import re

import pytest

from event_archive_tests.fixtures.archived import KEY
from event_archive_tests.fixtures.installation import Commands, Installation

pytestmark = pytest.mark.slow


def test_a_held_day_is_archived_and_not_purged(installation: Installation, command: Commands):
    installation.add(5)
    assert command("holds").stdout == ""
    (told,) = command("hold", KEY, "--to", "2024-03-31", "--reason", "a lawsuit").lines
    assert told == {"first": KEY, "last": "2024-03-31", "outcome": "held", "reason": "a lawsuit"}
    done = command("run")
    assert (done.code, done.days[KEY]["outcome"], done.days[KEY]["reason"]) == (0, "held", "a lawsuit")
    assert (done.days[KEY]["rows"], installation.count()) == (5, 5)
    assert "held, not purged: a lawsuit" in command("run", LOG_FORMAT="console").stdout
    (line,) = command("holds").lines
    assert (line["first"], line["last"], line["reason"]) == (KEY, "2024-03-31", "a lawsuit")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", line["since"]), "as a log line's timestamp"
    assert command("hold", KEY, "--reason", "a lawsuit", LOG_FORMAT="console").stdout.endswith("held: a lawsuit\n")
    other = command("hold", KEY, "--reason", "restoring")
    assert (other.code, "is held already: a lawsuit" in other.stderr) == (1, True)
    assert "2024-03-31 released." in command("release", "2024-03-31", LOG_FORMAT="console").stdout
    (told,) = command("release", KEY, "--to", "2024-03-31").lines
    assert told == {"first": KEY, "last": "2024-03-31", "outcome": "released", "days": 30, "of_days": 31}
    assert command("run").end["deleted"] == 5


def test_a_hold_that_comes_after_the_purge_says_so(archived: Installation, command: Commands):
    """As one that waited for a purge which was under way: whoever holds a day counts on its rows."""
    late = command("hold", KEY, "--reason", "a lawsuit")
    assert (late.code, [line["outcome"] for line in late.lines]) == (0, ["held"])
    told = "2024-03-01 has no row in the table: what was purged before the hold is in the files alone"
    assert told in late.stderr
    assert (
        "2 days, 2024-03-01 the first, have no row"
        in command("hold", KEY, "--to", "2024-03-02", "--reason", "a lawsuit").stderr
    )
    assert command("restore", KEY, "--in-place").code == 0
    assert "no row" not in command("hold", KEY, "--reason", "a lawsuit").stderr


@pytest.mark.parametrize(
    "since", [{"EVENT_RETENTION_PERIOD": "100 years"}, {"ARCHIVE_START_DATE": "2024-04-01"}], ids=["longer", "later"]
)
def test_a_hold_of_a_purged_day_that_is_not_archived_any_more_says_so(
    archived: Installation, command: Commands, since: dict[str, str]
):
    assert "2024-03-01 has no row in the table" in command("hold", KEY, "--reason", "a lawsuit", **since).stderr


def test_a_hold_that_cannot_see_the_rows_says_so(archived: Installation, command: Commands):
    archived.database.execute('ALTER TABLE "Event" DROP CONSTRAINT "Event_pkey", DROP CONSTRAINT "Event_event_id_key"')
    done = command("hold", KEY, "--reason", "a lawsuit")
    assert (done.code, [line["outcome"] for line in done.lines]) == (0, ["held"])
    assert "could not be seen" in done.stderr


def test_a_day_whose_rows_a_trigger_keeps_is_not_told_as_purged(local_installation: Installation, command: Commands):
    """A trigger BEFORE DELETE that returns NEW, as its author is used to, keeps every row for ever."""
    local_installation.add(3)
    local_installation.database.execute(
        """CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
        CREATE TRIGGER keep BEFORE DELETE ON "Event" FOR EACH ROW EXECUTE FUNCTION keep()"""
    )
    why = "3 rows stay although the file holds them: a trigger of the table keeps them from being deleted (keep)"
    assert f"none deleted; {why}" in command("run", "--dry-run", LOG_FORMAT="console").stdout
    done = command("run")
    line = done.days[KEY]
    assert (done.code, line["outcome"], line["deleted"], line["left"]) == (0, "kept", 0, 3)
    assert line["reason"].startswith(why)
    assert why in command("run", LOG_FORMAT="console").stdout


def test_a_release_of_what_is_not_held_says_so(local_installation: Installation, command: Commands):
    done = command("release", KEY)
    told = {"first": KEY, "last": KEY, "outcome": "not held", "days": 0, "of_days": 1}
    assert (done.code, done.lines) == (0, [told])
    said = command("release", KEY, "--to", "2024-03-02", LOG_FORMAT="console")
    assert (said.code, said.stdout) == (
        0,
        'public."Event": 2024-03-01 to 2024-03-02 not held, so nothing was released.\n',
    )
    assert command("hold", "2024-03-02", "--reason", "a lawsuit").code == 0
    said = command("release", KEY, "--to", "2024-03-03", LOG_FORMAT="console")
    assert said.stdout == 'public."Event": 1 of 3 days released, 2024-03-01 to 2024-03-03.\n'
