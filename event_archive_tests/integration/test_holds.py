"""A held day is archived and never purged: what is held, how it is listed, what it is put on."""

from collections.abc import Callable
from dataclasses import replace
from datetime import date

import pytest

from event_archive.domain.days import ONE_DAY
from event_archive.errors import NoSuchTableError, RefusedError
from event_archive.operations.marker import marker_path, read_claim, write_marker
from event_archive.table.holds import held_days, hold, holds, release
from event_archive_tests.fixtures.installation import Commands, Installation
from event_archive_tests.fixtures.pipeline import DAY, Pipeline
from event_archive_tests.fixtures.statements import LOGS_COMMANDS


def test_a_held_day_is_archived_but_not_purged(each_pipeline: Pipeline):
    each_pipeline.add(3)
    hold(each_pipeline.dataset, DAY, DAY, "a lawsuit", each_pipeline.postgres)
    assert each_pipeline.archive().rows == 3
    purged = each_pipeline.purge()
    assert (purged.outcome, purged.reason, purged.deleted, purged.left) == ("held", "a lawsuit", 0, 3)
    assert release(each_pipeline.dataset, DAY, DAY, each_pipeline.postgres) == 1
    assert each_pipeline.purge().deleted == 3


def test_a_day_is_held_where_an_event_trigger_names_its_tables_without_a_schema(pipeline: Pipeline):
    pipeline.database.execute(LOGS_COMMANDS)
    hold(pipeline.dataset, DAY, DAY, "x", pipeline.postgres)
    with pipeline.postgres.transaction("test") as connection:
        assert held_days(connection, pipeline.dataset) == {DAY}
    assert pipeline.database.execute("SELECT DISTINCT tag FROM commands ORDER BY tag") == [
        ("CREATE TABLE",),
        ("GRANT",),
    ]


@pytest.mark.parametrize("event", ["INSERT", "DELETE"])
def test_nobody_is_told_of_a_hold_that_a_trigger_prevents(pipeline: Pipeline, event: str):
    kept = date(2024, 2, 1)
    hold(pipeline.dataset, kept, kept, "x", pipeline.postgres)
    pipeline.database.execute(
        f"""CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
        CREATE TRIGGER nothing BEFORE {event} ON event_archive_hold FOR EACH ROW EXECUTE FUNCTION nothing()"""
    )
    commands: dict[str, Callable[[], object]] = {
        "INSERT": lambda: hold(pipeline.dataset, DAY, DAY, "x", pipeline.postgres),
        "DELETE": lambda: release(pipeline.dataset, kept, kept, pipeline.postgres),
    }
    with pytest.raises(RefusedError, match=r"policy on public\.event_archive_hold .* Nothing was held or released"):
        commands[event]()


def test_a_release_that_a_trigger_prevents_in_part_releases_nothing(pipeline: Pipeline):
    first, last = date(2024, 2, 1), date(2024, 2, 3)
    hold(pipeline.dataset, first, last, "x", pipeline.postgres)
    pipeline.database.execute(
        """CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
        CREATE TRIGGER nothing BEFORE DELETE ON event_archive_hold FOR EACH ROW WHEN (OLD.day = '2024-02-02')
        EXECUTE FUNCTION nothing()"""
    )
    with pytest.raises(RefusedError, match="Nothing was held or released"):
        release(pipeline.dataset, first, last, pipeline.postgres)
    (held,) = holds(pipeline.dataset, pipeline.postgres)
    assert (held.first, held.last) == (first, last)


def test_no_hold_is_put_on_a_server_from_before_a_failover(local_installation: Installation, command: Commands):
    """Its successor, which has used the files since, would not know of it."""
    local_installation.add(1)
    assert command("run").code == 0
    dataset, lake = local_installation.dataset, local_installation.lake
    claimed = read_claim(dataset, lake)
    assert claimed is not None
    later = replace(claimed, timeline=claimed.timeline + 1)
    write_marker(dataset, lake, later, replaces=lake.stat(marker_path(dataset)))
    day = DAY.isoformat()
    for words in (["hold", day, "--reason", "x"], ["release", day]):
        done = command(*words)
        assert done.code == 2
        assert f"on timeline {later.timeline}; this server is on timeline {claimed.timeline}" in done.said
    assert holds(dataset, local_installation.postgres) == []


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"EVENT_TABLE": "public.Evnt", "EVENT_FILE_PREFIX": "events"}, 'public."Evnt" does not exist'),
        ({"EVENT_TIME_COLUMN": "nope"}, "has no column nope"),
    ],
)
def test_a_misspelt_table_belongs_to_nobody(
    local_installation: Installation, command: Commands, setting: dict[str, str], words: str
):
    local_installation.add(1)
    assert command("run").code == 0
    for hold_or_release in (["hold", DAY.isoformat(), "--reason", "x"], ["release", DAY.isoformat()]):
        done = command(*hold_or_release, **setting)
        assert done.code == 2
        assert words in done.said


@pytest.mark.parametrize("reason", ["x\nno day is held", "x\x1b[2Jy", "x\u202ey", "x\u2028y"])
def test_a_reason_is_one_line_that_no_terminal_obeys(local_installation: Installation, command: Commands, reason: str):
    day = DAY.isoformat()
    assert command("hold", day, "--reason", reason).code == 2
    assert holds(local_installation.dataset, local_installation.postgres) == []
    hold(local_installation.dataset, DAY, DAY, reason, local_installation.postgres)
    shown = command("holds", LOG_FORMAT="console").stdout
    assert shown.count("\n") == 1
    assert reason.encode("unicode_escape").decode() in shown


def test_a_tables_name_is_one_line_that_no_terminal_obeys(local_installation: Installation, command: Commands):
    local_installation.add(2)
    name, day = "Ev\n\x1b[2Jent", DAY.isoformat()
    local_installation.database.execute(f'ALTER TABLE "Event" RENAME TO "{name}"')
    settings = {"EVENT_TABLE": f'public."{name}"', "EVENT_FILE_PREFIX": "events", "LOG_FORMAT": "console"}
    for arguments in (
        ["days"],
        ["run", "--plan"],
        ["hold", day, "--reason", "x"],
        ["holds"],
        ["run"],
        ["release", day],
        ["release", day],
        ["holds"],
        ["run"],
        ["days"],
        ["verify", day],
        ["restore", day],
        ["run"],
        ["run"],
        ["doctor"],
    ):
        said = command(*arguments, **settings)
        assert "\x1b" not in said.said
        assert "Ev\n" not in said.said
        if arguments[0] in ("days", "hold", "release"):
            assert r"Ev\n\x1b[2Jent" in said.stdout, (arguments, said.said)


def test_a_hold_is_put_although_nobody_can_tell_whose_the_files_are(
    local_installation: Installation, command: Commands
):
    dataset, lake = local_installation.dataset, local_installation.lake
    with lake.write(marker_path(dataset), replaces=None) as upload:
        upload.write(b"no marker")
        upload.commit({})
    done = command("hold", DAY.isoformat(), "--reason", "x")
    assert (done.code, len(holds(dataset, local_installation.postgres))) == (0, 1)
    assert "it says whose files lie here, and it cannot be read" in done.said
    assert "Nothing was written" not in done.said


def test_other_days_and_tables_are_not_held(pipeline: Pipeline):
    pipeline.add(3)
    pipeline.database.execute('CREATE TABLE other (LIKE "Event" INCLUDING ALL)')
    other = pipeline.of(table=type(pipeline.dataset.table)("public", "other"))
    hold(pipeline.dataset, date(2024, 2, 1), date(2024, 2, 29), "x", pipeline.postgres)
    hold(pipeline.dataset, date(2024, 3, 2), date(2024, 3, 2), "x", pipeline.postgres)
    hold(other.dataset, DAY, DAY, "x", pipeline.postgres)
    assert pipeline.run().deleted == 3
    with pipeline.postgres.transaction("test") as connection:
        assert held_days(connection, other.dataset) == {DAY}


def test_no_day_is_held_of_a_table_that_is_not_there(pipeline: Pipeline):
    nothing = pipeline.of(table=type(pipeline.dataset.table)("public", "Evnt"))
    with pytest.raises(NoSuchTableError, match="does not exist"):
        hold(nothing.dataset, DAY, DAY, "x", pipeline.postgres)
    assert pipeline.database.execute("SELECT to_regclass('event_archive_hold')") == [(None,)]


def test_a_release_releases_no_day_of_another_table(pipeline: Pipeline):
    pipeline.database.execute('CREATE TABLE other (LIKE "Event" INCLUDING ALL)')
    other = pipeline.of(table=type(pipeline.dataset.table)("public", "other"))
    hold(other.dataset, DAY, DAY, "x", pipeline.postgres)
    hold(pipeline.dataset, DAY, DAY, "x", pipeline.postgres)
    assert release(pipeline.dataset, DAY, DAY, pipeline.postgres) == 1
    assert [(held.first, held.last) for held in holds(other.dataset, other.postgres)] == [(DAY, DAY)]


def test_days_of_one_reason_are_listed_as_one_hold(pipeline: Pipeline):
    def put(first: int, last: int, reason: str) -> None:
        hold(pipeline.dataset, date(2024, 3, first), date(2024, 3, last), reason, pipeline.postgres)

    put(1, 4, "a")
    put(7, 10, "a")
    put(5, 6, "b")
    assert release(pipeline.dataset, date(2024, 3, 2), date(2024, 3, 3), pipeline.postgres) == 2
    assert [(h.first.day, h.last.day, h.reason, h.by) for h in holds(pipeline.dataset, pipeline.postgres)] == [
        (1, 1, "a", "postgres"), (4, 4, "a", "postgres"), (5, 6, "b", "postgres"), (7, 10, "a", "postgres"),
    ]  # fmt: skip


def test_without_a_hold_there_is_no_table(pipeline: Pipeline):
    assert holds(pipeline.dataset, pipeline.postgres) == []
    assert release(pipeline.dataset, DAY, DAY, pipeline.postgres) == 0


def test_a_range_is_held_in_one_transaction(pipeline: Pipeline):
    hold(pipeline.dataset, DAY, DAY, "the table exists", pipeline.postgres)
    release(pipeline.dataset, DAY, DAY, pipeline.postgres)
    hold(pipeline.dataset, DAY, DAY + 365 * ONE_DAY, "x", pipeline.postgres)
    assert pipeline.database.execute("SELECT count(*), count(DISTINCT xmin::text) FROM event_archive_hold") == [
        (366, 1)
    ]


def test_a_hold_without_an_end_is_refused_before_it_begins(command: Commands, local_installation: Installation):
    done = command("hold", "2024-03-01", "--to", "9999-12-31", "--reason", "x", LOG_FORMAT="json")
    assert done.code == 2
    assert "2024-03-01 to 9999-12-31 are 2,913,114 days; at most 1,000 are held at once. No day was held" in done.error
    assert command("hold", "2024-03-01", "--to", "2026-11-25", "--reason", "x").code == 0


def test_days_that_were_held_later_are_not_listed_as_held_since(pipeline: Pipeline):
    hold(pipeline.dataset, DAY, DAY + ONE_DAY, "x", pipeline.postgres)
    pipeline.database.execute("UPDATE event_archive_hold SET held_since = '2024-06-01 12:00Z' WHERE day = %s", DAY)
    first, second = holds(pipeline.dataset, pipeline.postgres)
    assert (first.first, first.last, f"{first.since:%Y-%m-%d}") == (DAY, DAY, "2024-06-01")
    assert (second.first, second.last) == (DAY + ONE_DAY, DAY + ONE_DAY)
    assert second.since > first.since


def test_a_hold_for_another_reason_is_not_overwritten(pipeline: Pipeline):
    hold(pipeline.dataset, DAY, DAY, "case 17", pipeline.postgres)
    hold(pipeline.dataset, DAY, DAY, "case 17", pipeline.postgres)
    with pytest.raises(RefusedError, match="2024-03-01 is held already: case 17.*No day was held by this command"):
        hold(pipeline.dataset, date(2024, 2, 28), date(2024, 3, 2), "restoring", pipeline.postgres)
    assert [(h.first, h.reason) for h in holds(pipeline.dataset, pipeline.postgres)] == [(DAY, "case 17")]
