"""A copy of a server's disk that was started as it is: it has the identifier and the timeline of its original."""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from event_archive.errors import OtherSourceError, RefusedError, UnreachableError
from event_archive.operations import claim as claiming
from event_archive.operations.claim import adopt_source, owner
from event_archive.operations.marker import marker_path, read_claim
from event_archive.postgres.catalogue.server import Identity, identity
from event_archive.postgres.session import Connection
from event_archive_tests.fixtures.pipeline import Pipeline
from event_archive_tests.fixtures.postgres import Database
from event_archive_tests.fixtures.standby import copy_of
from event_archive_tests.fixtures.strangers import OTHER_DAY

pytestmark = pytest.mark.slow

OLDER = "this server's stands at .*, before that: one of the two is a copy of the other's disk, or this server was"


@pytest.fixture
def copied(pipeline: Pipeline) -> Iterator[tuple[Pipeline, Callable[[], None]]]:
    """The copy of a server that has archived before, and what crashes it."""
    pipeline.add(2)
    pipeline.archive()
    with copy_of(pipeline.database.server) as (server, crash):
        yield Pipeline(Database(server, pipeline.database.name), pipeline.lake), crash


@pytest.fixture
def copy(copied: tuple[Pipeline, Callable[[], None]]) -> Pipeline:
    return copied[0]


def works(pipeline: Pipeline) -> None:
    """What an application writes in a day: some files of WAL."""
    for _ in range(3):
        pipeline.database.execute("SELECT pg_logical_emit_message(false, 'the application', 'works')")
        pipeline.database.execute("SELECT pg_switch_wal()")


def night(pipeline: Pipeline) -> None:
    """A run of its own, of a day with a late row."""
    pipeline.add(1, day=OTHER_DAY, prefix=os.urandom(4).hex())
    replace(pipeline, records={}).archive(OTHER_DAY)


def yesterday(pipeline: Pipeline) -> None:
    """Lets it be the day after that on which the server's position was noted."""
    marker = Path(pipeline.lake.url(marker_path(pipeline.dataset)).removeprefix("file://"))
    before = marker.stat().st_mtime - 24 * 3600
    os.utime(marker, (before, before))


def test_an_older_copy_is_refused_once_the_original_has_run_since(pipeline: Pipeline, copy: Pipeline):
    yesterday(pipeline)
    works(pipeline)
    night(pipeline)
    for _ in range(2):
        with pytest.raises(OtherSourceError, match=OLDER):
            night(copy)
    night(pipeline)


def test_a_copy_that_comes_first_is_refused_from_the_original_s_next_run_on(pipeline: Pipeline, copy: Pipeline):
    night(copy)
    works(pipeline)
    night(pipeline)
    with pytest.raises(OtherSourceError, match=OLDER):
        night(copy)
    night(pipeline)


def test_a_server_that_was_set_back_goes_on_once_it_is_accepted(pipeline: Pipeline, copy: Pipeline):
    yesterday(pipeline)
    works(pipeline)
    night(pipeline)
    with pytest.raises(OtherSourceError, match="accept it once: event-archive adopt --source"):
        night(copy)
    adopt_source(copy.site)
    night(copy)


def test_a_crash_does_not_make_an_older_copy_of_a_server(copied: tuple[Pipeline, Callable[[], None]]):
    """What a crash may take from the WAL was not noted."""
    copy, crash = copied
    night(copy)
    for _ in range(3):
        with suppress(UnreachableError), copy.postgres.transaction("test") as connection:
            connection.execute("SELECT pg_logical_emit_message(false, 'test', repeat('x', 3000))")
            claimed = identity(connection)
            crash()
        with copy.postgres.transaction("test") as connection:
            assert identity(connection).position >= claimed.position
    night(copy)


def test_a_run_beside_that_notes_a_later_position_makes_no_older_copy_of_the_server(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    pipeline.add(2)
    pipeline.archive()
    yesterday(pipeline)
    asked: list[Identity] = []

    def slowly(connection: Connection) -> Identity:
        found = identity(connection)
        asked.append(found)
        if len(asked) == 1:
            works(pipeline)
            night(pipeline)
        return found

    monkeypatch.setattr(claiming, "identity", slowly)
    night(pipeline)
    yesterday(pipeline)
    asked.clear()
    assert owner(pipeline.of().site)


def test_where_no_file_may_be_written_anew_the_position_is_not_noted_and_a_night_goes_on(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    pipeline.add(2)
    pipeline.archive()
    before = read_claim(pipeline.dataset, pipeline.lake)
    yesterday(pipeline)

    refused = 0

    def refuse(*_: object, **__: object) -> None:
        nonlocal refused
        refused += 1
        raise RefusedError("An immutability policy is in force.")

    monkeypatch.setattr(claiming, "write_marker", refuse)
    night(pipeline)
    assert (refused, read_claim(pipeline.dataset, pipeline.lake)) == (1, before)
    # Whose the files are has to be written.
    with pytest.raises(RefusedError, match="immutability"):
        night(pipeline.of(folder="elsewhere"))
