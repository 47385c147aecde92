"""The one thread that hires workers, and lands what they bring, on one connection.

So every position is written in its order, with the rows it stands for. Not here: how a page is fetched, what it does to
a position.
"""

import logging
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from event_archive.domain.dataset import TableName
from event_archive.domain.days import iso
from event_archive.errors import BusyError, EventArchiveError, RefusedError
from event_archive.postgres.session import Connection, Session
from event_archive.sources.former import Former
from event_archive.sources.http_api.aged import AgedEvents
from event_archive.sources.http_api.fetching import NoEntryError
from event_archive.sources.http_api.pages import Page
from event_archive.sources.http_api.paging import paging
from event_archive.sources.http_api.place import Arrivals, Trace
from event_archive.sources.http_api.positions import Position, Positions, TakenError, resumed
from event_archive.sources.http_api.records import SOURCE, reader
from event_archive.sources.http_api.shards import Shard
from event_archive.sources.http_api.task import Task
from event_archive.sources.http_api.walking import Ended, Fetched
from event_archive.sources.http_api.watermarks import reached
from event_archive.sources.http_api.windows import new_windows
from event_archive.sources.http_api.workers import Workers
from event_archive.sources.landing import Batch, Counts, in_transaction, land_in, rejected_table
from event_archive.sources.runs import DayAgedError
from event_archive.sources.tables import make_missing

_BATCH_BYTES = 8 * 1024 * 1024
_WAIT_SECONDS = 0.2
_PROGRESS_SECONDS = 5.0
_IN_FLIGHT_SECONDS = 5.0
"""How long requests that are on their way may take once somebody stops."""
_FAILURES_UNTIL_END = 3
"""Shards in a row that fail, with no page in between: the API is away."""

_log = logging.getLogger(__name__)


class Crew:
    """One landing thread and its workers, for as long as a connection lasts."""

    def __init__(self, run: Task, session: Session, former: Former, began: float) -> None:
        """Hires nobody yet.

        Args:
            run: what they work for.
            session: with the database.
            former: takes down what is committed.
            began: when the run began, by ``time.monotonic``.
        """
        self._run, self._session, self._former, self._began = run, session, former, began
        settings = run.settings
        self._workers = Workers(settings, run.clock)
        self._paging = paging(settings)
        self._reader = reader(settings)
        self._arrivals = Arrivals(session, run.target, self._reader)
        self._positions = Positions(TableName(settings.ingest_schema, "cursor_state"), settings.url)
        self._waiting: deque[Position] = deque()
        self._shards: list[Shard] = []
        self._known: dict[str, Position] = {}
        self._committed: dict[str, Position] = {}
        self._read: set[str] = set()
        self._has_left_some = self._is_shared = False
        self._aged = AgedEvents(run.datasets, run.target.table)
        self._failures_in_a_row = 0
        self._told = began

    def work(self) -> None:
        """Reads every shard to its end, or until somebody stops; then all that arrived is landed."""
        if self._run.totals.ended == "complete":
            # What failed before a connection broke is read once more.
            self._run.totals.failures.clear()
        try:
            make_missing(self._session, self._run.target.table, rejected_table(self._run.target), self._positions.table)
            self._plan()
            until = None
            while True:
                self._hire()
                arrived = self._workers.take(_BATCH_BYTES, _WAIT_SECONDS)
                if arrived:
                    self._take_in(arrived)
                elif not self._shards or (until is not None and time.monotonic() > until):
                    break
                if until is None and self._is_over():
                    self._workers.stop()
                    until = time.monotonic() + _IN_FLIGHT_SECONDS
                self._tell()
            self._end_run()
        except TakenError:
            self._run.totals.ended = "shared"
            _log.info("%s: another run is reading it", self._paging.url)
        finally:
            self._workers.close()
            self._run.totals.watermark = reached(self._known.values(), self._read)

    def _is_over(self) -> bool:
        """Whether no further page is to be fetched."""
        budget, totals = self._run.settings.run_budget, self._run.totals
        if self._run.told_to_stop():
            totals.ended = "interrupted"
        elif budget is not None and time.monotonic() - self._began > budget.total_seconds():
            totals.ended = "budget"
        return totals.ended != "complete"

    def _end_run(self) -> None:
        """Says how the run ended: a budget may have passed with the last page, and another run may have the rest."""
        totals = self._run.totals
        if totals.ended == "budget" and not (self._waiting or self._shards or self._has_left_some):
            totals.ended = "complete"
        if totals.ended == "complete" and self._is_shared:
            totals.ended = "shared"

    def _tell(self) -> None:
        if time.monotonic() - self._told > _PROGRESS_SECONDS:
            self._told = time.monotonic()
            self._run.totals.seconds = self._told - self._began
            self._run.progress(self._run.totals)

    def _plan(self) -> None:
        """Which shards wait to be read: those that were not read to their end yet, the oldest first."""
        settings, now = self._run.settings, self._run.clock.now()
        with self._session.transaction(str(self._positions.table)) as connection:
            self._aged.look(connection)
            known = self._positions.read(connection)
            whole, known = next((of for of in known if not of.shard), Position()), [of for of in known if of.upper]
            if settings.api_shard is None:
                self._aged.arrived_in_windows(known)
                self._waiting.append(whole)
                self._known = {of.shard: of for of in self._waiting}
                return
            self._aged.arrived_by_chain(whole)
            new = new_windows(known, settings.api_start or now, now, settings.api_shard)
            for position in new:
                self._positions.save(connection, position)
        self._known = {of.shard: of for of in [*known, *new]}
        self._waiting += [of for of in self._known.values() if not of.passes]

    def _hire(self) -> None:
        """Gives shards that wait to workers."""
        now = self._run.clock.now()
        while self._waiting and len(self._shards) < self._workers.concurrency and not self._workers.stopped:
            position = self._waiting.popleft()
            claimed = self._positions.claim(self._session, position)
            if claimed is None:
                self._is_shared = True
                if position.upper is None:
                    _log.info("%s: another run is reading it", self._paging.url)
                continue
            self._committed[claimed.shard] = claimed
            filtered, overlap = self._paging.time_filter is not None, self._run.settings.api_overlap
            if claimed.cursor is not None and not self._paging.takes(claimed.cursor):
                claimed = claimed.without_cursor
            shard = Shard(resumed(claimed, now), filtered, overlap, self._run.settings.api_read_all_every)
            self._shards.append(shard)
            self._send(shard)

    def _send(self, shard: Shard) -> None:
        """Lets a worker read a shard: a pass, or what is left of one."""
        shard.begin(self._run.clock.now(), self._run.settings.api_start)
        self._workers.send(shard)

    def _take_in(self, arrived: Sequence[tuple[Shard, Fetched | Ended]]) -> None:
        pages = [(shard, item) for shard, item in arrived if isinstance(item, Fetched)]
        if pages:
            self._land(pages)
        for shard, item in arrived:
            if isinstance(item, Ended):
                self._end(shard, item)

    def _land(self, pages: Sequence[tuple[Shard, Fetched]]) -> None:
        """Lands some pages and the positions behind them, in one transaction."""
        now, batch = self._run.clock.now(), Batch()
        after: dict[str, Position] = {}
        instead: list[Position] = []
        read: list[tuple[Page, Position]] = []
        for shard, fetched in pages:
            if shard.enough:
                # Asked for before the end was known.
                continue
            page, too_old = fetched.page, self._aged.too_old(shard.position)
            if shard.is_at_its_place and not self._arrivals.begin(page, shard.position.place, now, too_old):
                shard.lose_its_place()
                continue
            read.append((page, shard.position))
            times = self._read_events(*read[-1], batch, now)
            trace = Trace(page.events, self._reader, now)
            shard.position = after[shard.position.shard] = shard.after(fetched, times, now, trace)
            if parts := shard.parts(fetched, times):
                shard.enough = True
                instead += parts
                after[shard.position.shard] = replace(shard.position, passes=-1)

        def work(connection: Connection) -> Counts:
            for name, position in after.items():
                self._positions.move(connection, self._committed[name], None if position.passes < 0 else position)
            for position in instead:
                self._positions.save(connection, position)
            counts = land_in(connection, self._run.target, SOURCE, batch)
            self._aged.check(connection)
            self._former.note(connection, lambda: self._count(counts, pages))
            return counts

        while True:
            try:
                in_transaction(self._session, self._run.target, work)
                break
            except DayAgedError:
                batch = Batch()
                for page, position in read:
                    self._read_events(page, position, batch, now)
        self._committed |= after
        arrived = {of.position.shard: of.arrived for of, _ in pages}
        self._known |= {name: replace(of, watermark=of.watermark or arrived[name]) for name, of in after.items()}
        self._known |= {of.shard: of for of in instead}
        self._waiting.extendleft(reversed([of for of in instead if not of.passes]))
        self._former.committed()
        for shard, _ in pages:
            if shard.has_proven_its_order:
                self._settle(shard)

    def _read_events(self, page: Page, position: Position, batch: Batch, now: datetime) -> list[datetime]:
        """Adds the events of a page to a batch, those left out that are too old; returns their times."""
        too_old = self._aged.too_old(position)
        return self._reader.read(page.events, batch, text=page.text, now=now, too_old=too_old)

    def _count(self, counts: Counts, pages: Sequence[tuple[Shard, Fetched]]) -> None:
        totals, settings = self._run.totals, self._run.settings
        totals.counts.add(counts)
        totals.pages += len(pages)
        self._failures_in_a_row = 0
        for shard, _ in pages:
            shard.evidence.has_gained |= counts.new + counts.superseded > 0
            totals.left = shard.left(settings.api_start)
        if totals.counts.rejected > settings.max_rejected:
            raise RefusedError(
                f"{totals.counts.rejected} events cannot be rows, more than MAX_REJECTED={settings.max_rejected}. They "
                f"are in {rejected_table(self._run.target)}: `event-archive rejected` says why. What arrived is kept; "
                "the next run goes on."
            )

    def _end(self, shard: Shard, ended: Ended) -> None:
        """A worker came to the end of a pass, or could not."""
        now, totals = self._run.clock.now(), self._run.totals
        error = ended.error
        if shard.has_lost_its_place or (ended.cursor_refused and not shard.enough):
            totals.restarts += 1
            why = (
                "does not give where the last run ended what it gave then: events may have moved to before that"
                if shard.has_lost_its_place
                else "does not know the cursor any more"
            )
            try:
                shard.restart(now, self._run.settings.api_start, self._run.settings.url)
            except RefusedError as vain:
                error = vain
            else:
                since = shard.start().since
                place = f"with events since {iso(since)}" if since else "from the beginning"
                _log.info("%s: the API %s; going on %s", self._paging.url, why, place)
                self._send(shard)
                return
        if error is not None:
            self._fail(error)
        elif shard.has_to_look_again and not self._workers.stopped:
            self._send(shard)
            return
        elif shard.enough and shard.has_to_read_all(now) and not self._workers.stopped:
            _log.info("%s: nothing new has come yet where its order puts new events; reading all", self._paging.url)
            shard.start_reading_all()
            self._send(shard)
            return
        elif shard.enough and not (shard.has_to_look_again or shard.has_to_read_all(now)):
            self._read.add(shard.position.shard)
        else:
            self._has_left_some = True
        self._shards.remove(shard)
        self._positions.release(self._session, shard.position)

    def _settle(self, shard: Shard) -> None:
        """Takes down that the order of an API is as it seemed."""
        before, after = self._committed[shard.position.shard], replace(shard.position, doubted=None)
        in_transaction(
            self._session, self._run.target, lambda connection: self._positions.move(connection, before, after)
        )
        shard.position = self._committed[after.shard] = after

    def _fail(self, error: EventArchiveError) -> None:
        self._run.totals.failures.append(error)
        self._failures_in_a_row += 1
        if isinstance(error, NoEntryError | BusyError) or self._failures_in_a_row == _FAILURES_UNTIL_END:
            self._run.totals.ended = "failed"
