"""The whole thing alive: separate services, a schedule that ticks, and what goes wrong in a year, in a few minutes.

One scenario in phases. They run in this order on one installation, and a phase that fails ends it.
"""

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from playwright.sync_api import expect

from event_archive.defs.last_runs import TICK_TAG
from event_archive.domain.days import ONE_DAY
from event_archive.lake.azure.container import AzureLake
from event_archive_tests.alive.browser import browser, materialize, picture, show_partition, show_plots
from event_archive_tests.alive.graphql import Run
from event_archive_tests.alive.installed import Alive, installed
from event_archive_tests.alive.services import await_that
from event_archive_tests.azurite import Azurite
from event_archive_tests.fixtures.graphql import LOCATION
from event_archive_tests.fixtures.installation import ASSETS, Installation
from event_archive_tests.fixtures.pipeline import SPECIFICATION
from event_archive_tests.fixtures.postgres import Server, new_database

LAST = SPECIFICATION.retention.last_aged_day(datetime.now(UTC))
DAYS = [LAST - n * ONE_DAY for n in reversed(range(34))]
MONTH, FIRST, MISSED = DAYS[:28], DAYS[28:31], DAYS[31:]
TICK_SECONDS = 150
"""How long until a tick, a minute away at most, has been evaluated and its few runs have ended."""

SPITEFUL = "![](/graphql?spiteful)"
"""An image in Markdown, whose address launches what it asks for."""

pytestmark = pytest.mark.timeout(1200)


def keys(days: list[date]) -> list[str]:
    return [day.isoformat() for day in days]


@pytest.fixture(scope="module")
def alive(server_18: Server, azurite: Azurite, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alive]:
    home = tmp_path_factory.mktemp("dagster-home")
    variables = {"AZURE_STORAGE_CONNECTION_STRING": azurite.connection_string}
    with (
        contextmanager(new_database)(server_18) as database,
        AzureLake.from_connection_string(azurite.connection_string, "archive", retry_seconds=10) as lake,
    ):
        events = Installation(database, lake, variables={**variables, "PG_CONNECTION_STRING": database.dsn})
        with installed(
            events,
            server_18,
            home,
            ARCHIVE_CRON="* * * * *",
            ARCHIVE_START_DATE=DAYS[0].isoformat(),
            VERIFY_NIGHTLY="true",
        ) as alive:
            yield alive


@pytest.fixture(scope="module")
def pictures(request: pytest.FixtureRequest) -> Path | None:
    """Where pictures of the pages go, if they are wanted."""
    folder = request.config.getoption("--screenshots")
    return Path(folder) if folder else None


def add(alive: Alive, days: list[date], *, prefix: str = "evt") -> None:
    dice = random.Random(prefix)
    for day in days:
        alive.events.add(dice.randrange(300, 1500) if prefix == "evt" else 3, day=day, prefix=prefix)


def assert_done(alive: Alive, days: list[date]) -> None:
    await_that("the runs have ended", lambda: alive.dagster.idle, TICK_SECONDS)
    assert alive.emptied(days)


def test_the_schedules_tick_archives_and_purges_days(alive: Alive):
    add(alive, FIRST)
    alive.start()
    alive.say("code server, daemon and webserver listen")
    assert alive.dagster.schedule_state()["status"] == "RUNNING"
    seconds = await_that("the days are purged", lambda: alive.emptied(FIRST), TICK_SECONDS)
    assert_done(alive, FIRST)
    runs = alive.dagster.scheduled(keys(FIRST))
    assert sorted((run.day, run.status) for run in runs) == [(day, "SUCCESS") for day in keys(FIRST)]
    assert all(TICK_TAG in run.tags for run in runs)
    alive.say(f"{len(FIRST)} days archived and purged by the schedule, {seconds:.0f} s after the start")


def test_a_late_row_is_picked_up_at_the_next_tick(alive: Alive):
    late = FIRST[:1]
    add(alive, late, prefix="late")
    seconds = await_that("the late rows are purged", lambda: alive.emptied(late), TICK_SECONDS)
    assert_done(alive, late)
    assert [run.status for run in alive.dagster.scheduled(keys(late))] == ["SUCCESS", "SUCCESS"]
    alive.say(f"late rows archived and purged after {seconds:.0f} s")


def test_three_nights_without_the_daemon_are_caught_up(alive: Alive):
    alive.daemon.stop()
    alive.events.add(1, day=MISSED[0], prefix=SPITEFUL)
    add(alive, MISSED)
    missed = time.time() // 60 + 1
    await_that("a tick is missed", lambda: time.time() // 60 >= missed, 61)
    assert not alive.dagster.scheduled(keys(MISSED))
    previewed = alive.dagster.preview(time.time())
    assert [tags["dagster/partition"] for tags in previewed] == keys(MISSED)
    assert not any(TICK_TAG in tags for tags in previewed), "it is no night"
    alive.daemon.start()
    seconds = await_that("the days are purged", lambda: alive.emptied(MISSED), TICK_SECONDS)
    assert_done(alive, MISSED)
    assert sorted((run.day, run.status) for run in alive.dagster.scheduled(keys(MISSED))) == [
        (day, "SUCCESS") for day in keys(MISSED)
    ]
    alive.say(f"{len(MISSED)} days caught up {seconds:.0f} s after the daemon came back")


def test_a_backfill_of_a_month_outlives_a_kill_of_the_code_server(alive: Alive):
    alive.dagster.stop_schedule()
    add(alive, MONTH)
    began = time.monotonic()
    backfill = alive.dagster.launch_backfill(ASSETS, keys(MONTH))

    def statuses() -> dict[str, int]:
        return alive.dagster.statuses(dagster_backfill=backfill)

    await_that("some of its runs have started, others wait", lambda: {"STARTED", "QUEUED"} <= statuses().keys(), 120)
    alive.code_server.kill()
    alive.say(f"code server killed: {statuses()}")
    alive.start_code_server()
    alive.say(f"code server back: {statuses()}")
    await_that("it ended", lambda: alive.dagster.backfill_status(backfill).startswith("COMPLETED"), 900)
    alive.say(
        f"backfill of {len(MONTH)} days {alive.dagster.backfill_status(backfill)} after "
        f"{time.monotonic() - began:.0f} s: {statuses()}"
    )
    assert (alive.dagster.backfill_status(backfill), set(statuses())) == ("COMPLETED_SUCCESS", {"SUCCESS"})
    assert_done(alive, MONTH)


def test_the_asset_page_shows_partitions_metadata_and_plots(alive: Alive, pictures: Path | None):
    day = keys(FIRST)[0]
    rows = len(alive.events.records_of_file(FIRST[0]))
    with browser(alive.dagster.address) as page:
        show_partition(page, "archive_csv", day)
        expect(page.get_by_text(f"Materialized ({len(DAYS)})")).to_be_visible()
        expect(page.get_by_text(f"titan-pulse-event-archive/events_{day}.csv", exact=True)).to_be_visible()
        expect(page.get_by_role("row", name="dagster/row_count")).to_contain_text(str(rows))
        picture(page, pictures, "archive-csv")
        show_plots(page, "archive_csv")
        expect(page.get_by_text("rows_appended")).to_be_visible()
        picture(page, pictures, "archive-csv-plots")
        page.goto(f"/locations/{LOCATION}/asset-groups/event_archive")
        for asset in ASSETS:
            expect(page.get_by_text(asset, exact=True)).to_be_visible()
        picture(page, pictures, "asset-graph")
    alive.say("the asset page shows partitions, metadata and plots")


def test_what_a_row_names_is_shown_to_the_letter_and_fetched_by_nobody(alive: Alive):
    asked: list[str] = []
    with browser(alive.dagster.address) as page:
        page.on("request", lambda request: asked.append(request.url))
        show_partition(page, "archive_csv", keys(MISSED)[0])
        expect(page.get_by_text(SPITEFUL).first).to_be_visible()
    assert asked
    assert not [address for address in asked if "spiteful" in address]
    alive.say("what a row names is shown to the letter, and fetched by nobody")


def test_a_partition_is_materialized_again_by_clicking(alive: Alive):
    days = MONTH[14:15]
    with browser(alive.dagster.address) as page:
        # Not before: without a browser this is skipped, and the rows would stay.
        add(alive, days, prefix="late")
        for asset in ("archive_csv", "purged_events"):
            known = {run.id for run in alive.dagster.runs()}
            materialize(page, asset, keys(days)[0])
            run = ended_run_besides(alive, known)
            assert (run.day, run.status) == (keys(days)[0], "SUCCESS")
    assert alive.emptied(days)
    alive.say("late rows archived and purged by clicking")


def ended_run_besides(alive: Alive, known: set[str]) -> Run:
    """The run that was just launched, when it has ended."""

    def new() -> list[Run]:
        return [run for run in alive.dagster.runs() if run.id not in known and run.ended]

    await_that("the run has ended", new, 90)
    (run,) = new()
    return run


def test_in_the_end_the_lake_holds_each_row_exactly_once_and_the_table_none(alive: Alive):
    assert alive.events.count() == 0
    rows = sorted(alive.events.archived(*DAYS), key=lambda row: int(str(row[0])))
    assert rows == alive.inserted()
    alive.say(f"{len(rows)} rows in {len(DAYS)} files, each once; none in the table")
