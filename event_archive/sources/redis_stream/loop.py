"""The loop of a consumer: what is pending, else what others left behind, else new entries; landed, then acknowledged.

One batch after another. Where more entries wait, the next ones are read and decoded while PostgreSQL works on these;
none is in hand while others are claimed. Not here: how Redis is asked (``group``), what an entry holds (``records``),
what happens while a service is away (``consume``).
"""

import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from itertools import groupby

from event_archive.domain.wording import counted
from event_archive.errors import EventArchiveError
from event_archive.postgres.pins import commit_durably
from event_archive.postgres.session import Connection, Session
from event_archive.sources.landing import Batch, Counts, Rejected, in_transaction, land_in, rejected_table
from event_archive.sources.redis_stream.ahead import Ahead, InHand
from event_archive.sources.redis_stream.first_pass import FirstPass
from event_archive.sources.redis_stream.first_pass import table as groups_table
from event_archive.sources.redis_stream.group import Group, NoGroupError, Pending, StreamAwayError
from event_archive.sources.redis_stream.partitions import Partitions
from event_archive.sources.redis_stream.positions import make_table, target
from event_archive.sources.redis_stream.records import SOURCE, Decoded, Entry, decode, locator, raw
from event_archive.sources.redis_stream.task import Task
from event_archive.sources.runs import AGES_SECONDS, NONE_AGED, DayAgedError, aged_by_now, aged_times
from event_archive.sources.tables import make_missing

_SUSPICIOUS_DELIVERIES = 3
"""From so many on, an entry may be what ends the process: it is tried alone."""
_ALONE = 1000
"""What counts, among the deliveries, for each time that an entry is tried alone and the process does not survive it."""
_MOST_ALONE = 2
TRIMMED = "it was trimmed from the stream while it was pending"
_FATAL = "it ended the process each time that it was taken in alone"
_SWEEP_SECONDS = 60.0
_DEAD_SECONDS = 3600.0
"""After which a consumer that was not heard of, and has nothing pending, is taken out of the group."""
_AHEAD_SECONDS = 3600.0
_BATCH_BYTES = 16 * 1024 * 1024
_LARGE_ENTRY_BYTES = 512 * 1024
"""Entries are taken to be as large until some were seen."""

_log = logging.getLogger(__name__)


class Loop:
    """The loop, for as long as both connections last."""

    def __init__(self, task: Task, session: Session, group: Group) -> None:
        """Reads nothing yet.

        Args:
            task: whose loop it is.
            session: with the database.
            group: with Redis.
        """
        self._task, self._session, self._group, self._settings = task, session, group, task.settings
        self._target = target(self._settings.ingest_schema)
        self._partitions = Partitions(self._target.table)
        # What a reply that never arrived had delivered is known to Redis alone.
        self._may_have_pending = True
        self._sweep_at = self._ahead_at = self._ages_at = 0.0
        self._first_pass = FirstPass(self._settings, session)
        self._aged, self._entry_bytes = NONE_AGED, _LARGE_ENTRY_BYTES
        self._ahead: Ahead | None = None

    def run(self) -> None:
        """Goes round until the consumer has stopped, and leaves the group.

        Raises:
            As ``Consumer.run``, and at once.
        """
        make_table(self._session, self._settings.ingest_schema)
        make_missing(self._session, rejected_table(self._target))
        if self._is_archived:
            make_missing(self._session, groups_table(self._settings.ingest_schema))
        self._make_group()
        try:
            while self._ahead or not self._task.is_stopped():
                try:
                    self._turn()
                except NoGroupError:
                    self._make_group()
                self._task.turned()
            self._leave()
        except EventArchiveError:
            # What it is given until then is pending, and found there by the next connection.
            if self._ahead:
                self._ahead.wait()
            raise

    def _turn(self) -> None:
        now = time.monotonic()
        if now >= self._ahead_at:
            self._partitions.ahead(self._session, self._settings.stream_partitions_ahead_days)
            self._ahead_at = now + _AHEAD_SECONDS
        if now >= self._ages_at:
            self._look_at_ages()
        if self._ahead:
            self._take_new()
        elif self._may_have_pending:
            self._take_pending()
        elif now < self._sweep_at or not self._sweep():
            self._take_new()

    def _take_new(self) -> None:
        """Takes in new entries, those that were read ahead before others."""
        ahead, self._ahead = self._ahead, None
        batch = ahead.result() if ahead else self._read(may_wait=True)
        if batch.ids:
            if batch.is_full and time.monotonic() < self._sweep_at and not self._task.is_stopped():
                self._ahead = Ahead(lambda: self._read(may_wait=False))
            self._land(batch)
        elif not ahead:
            self._task.found_nothing()

    def _read(self, *, may_wait: bool) -> InHand:
        most = self._most()
        entries = self._group.new(most, may_wait=may_wait)
        if entries:
            size_bytes = sum(len(value) for of in entries for value in of.fields.values())
            # Twice as many at most, since the next ones may be larger.
            self._entry_bytes = max(1, size_bytes // len(entries), self._entry_bytes // 2)
        return self._decoded(entries, is_full=len(entries) == most)

    @property
    def _is_archived(self) -> bool:
        """Whether the table's aged days move out."""
        return any(of.table == self._target.table for of in self._task.datasets)

    def _most(self) -> int:
        """How many entries a batch has: ``STREAM_BATCH``, or fewer where those of the last one were large."""
        return max(1, min(self._settings.stream_batch, _BATCH_BYTES // self._entry_bytes))

    def _take_pending(self) -> None:
        """Takes in what this consumer was given and has not acknowledged."""
        while not self._task.is_stopped():
            found = self._group.pending(self._most())
            if not found:
                self._may_have_pending = False
                return
            after = b"0"
            for is_suspicious, part in groupby(found, lambda of: of.deliveries >= _SUSPICIOUS_DELIVERIES):
                pending = list(part)
                if not is_suspicious:
                    self._take(self._group.given(after, len(pending)))
                else:
                    for of in pending:
                        if self._task.is_stopped():
                            return
                        self._take_alone(of)
                after = pending[-1].id

    def _take_alone(self, pending: Pending) -> None:
        """Takes in an entry that may be what ended the process; where it did so alone, it is rejected."""
        # To mark it would end that it is pending.
        if not self._take_trimmed([pending.id]):
            return
        outlived = self._task.outlived
        deliveries = outlived.get(pending.id, pending.deliveries)
        times = deliveries // _ALONE
        try:
            self._group.mark(pending.id, (times + 1) * _ALONE)
            if times < _MOST_ALONE:
                self._take([self._group.entry(pending.id)])
            else:
                # Its size alone may be what does it.
                kept = raw(self._group.entry(pending.id)) if times == _MOST_ALONE else b""
                batch = Batch(rejected=[Rejected(locator(self._group.stream, pending.id), _FATAL, kept)])
                self._land(InHand([pending.id], Decoded(batch), time.monotonic()))
        except EventArchiveError:
            # The process goes on.
            outlived[pending.id] = deliveries
            with suppress(StreamAwayError, NoGroupError):
                self._group.mark(pending.id, deliveries)
                del outlived[pending.id]
            raise
        outlived.pop(pending.id, None)

    def _sweep(self) -> bool:
        """Takes over what others left behind, a batch of it at most; whether there was any."""
        idle_seconds = self._settings.stream_claim_idle.total_seconds()
        ids = self._group.idle(idle_seconds, self._settings.stream_batch)
        if not ids:
            if removed := self._group.remove_dead(max(_DEAD_SECONDS, idle_seconds)):
                gone = counted(removed, "consumer that is gone was", "consumers that are gone were")
                _log.info("%s: %s taken out of the group", self._group.stream, gone)
            self._sweep_at = time.monotonic() + min(_SWEEP_SECONDS, idle_seconds / 4)
            return False
        if kept := self._take_trimmed(ids):
            claimed = self._group.claim(kept, idle_seconds)
            # What was trimmed since is pending of nobody any more.
            self._take_trimmed([of for of in kept if of not in claimed])
            self._task.totals.claimed += len(claimed)
        self._may_have_pending = True
        return True

    def _take_trimmed(self, ids: Sequence[bytes]) -> list[bytes]:
        """Writes down as lost what the stream does not have any more; returns the others."""
        trimmed = self._group.trimmed(ids)
        self._take([Entry(of, {}) for of in ids if of in trimmed])
        return [of for of in ids if of not in trimmed]

    def _take(self, entries: Sequence[Entry]) -> None:
        """Takes in a batch, which may be empty."""
        if entries:
            self._land(self._decoded(entries))

    def _decoded(self, entries: Sequence[Entry], *, is_full: bool = False) -> InHand:
        """A batch, decoded. An entry without fields was trimmed: no other kind has none."""
        began, stream, aged = time.monotonic(), self._group.stream, self._aged
        decoded = decode(
            [of for of in entries if of.fields],
            stream=stream,
            aged=aged,
            now=datetime.now(UTC),
            zone=self._settings.stream_timezone,
        )
        decoded.batch.lost += [Rejected(locator(stream, of.id), TRIMMED, b"") for of in entries if not of.fields]
        return InHand([of.id for of in entries], decoded, began, is_full, entries, aged)

    def _look_at_ages(self) -> None:
        """Looks which days are aged."""
        if self._is_archived and self._first_pass.is_over():
            self._aged = aged_times(self._session, self._task.datasets, self._target.table)
        self._ages_at = time.monotonic() + AGES_SECONDS

    def _check_ages(self, connection: Connection, batch: InHand) -> None:
        """Looks again; raises DayAgedError where other days are than when a batch was decoded."""
        if not (self._is_archived and batch.entries):
            return
        if batch.aged == NONE_AGED and not self._first_pass.has_ended(connection):
            return
        if aged_by_now(connection, self._task.datasets, self._target.table) != batch.aged:
            raise DayAgedError

    def _commit(self, batch: InHand) -> Counts:
        """Lands a batch, in one transaction."""

        def work(connection: Connection) -> Counts:
            # Other sources need not: their position is lost or kept with its rows. Here the group is the position.
            commit_durably(connection)
            counts = land_in(connection, self._target, SOURCE, batch.decoded.batch)
            self._check_ages(connection, batch)
            return counts

        self._partitions.make(self._session, batch.decoded.days, lambda connection: self._check_ages(connection, batch))
        return in_transaction(self._session, self._target, work)

    def _land(self, batch: InHand) -> None:
        """Commits a batch, then acknowledges it."""
        writing = time.monotonic()
        while True:
            try:
                counts = self._commit(batch)
                break
            except DayAgedError:
                self._look_at_ages()
                batch = replace(self._decoded(batch.entries), began=batch.began)
        decoded, ids, written = batch.decoded, batch.ids, time.monotonic()
        if self._ahead:
            # On the same connection.
            self._ahead.wait()
        try:
            self._group.acknowledge(ids)
        finally:
            # Committed, whether Redis has heard of it or not.
            self._task.landed(counts, decoded.positions, time.monotonic() - batch.began, written - writing)
        _log.debug("%s: %d entries up to %s: %s", self._group.stream, len(ids), ids[-1].decode(), counts.as_dict())
        if counts.lost:
            _log.error(
                "%s trimmed while pending, from %s on; `event-archive rejected --source stream` says which. Let the "
                "producer keep more entries (MAXLEN, MINID), or run more consumers.",
                counted(counts.lost, "entry was", "entries were"),
                decoded.batch.lost[0].locator,
            )

    def _make_group(self) -> None:
        """Makes the group where it is missing, from the stream's beginning: what has landed is known by its key."""
        self._may_have_pending = True
        if not self._group.create():
            return
        stream, name = self._group.stream, self._group.name
        if not self._task.has_worked:
            _log.info("%s: the consumer group %s was made", stream, name)
            return
        self._task.totals.groups_recreated += 1
        self._task.metrics.group_recreated()
        _log.warning("%s: the consumer group %s was gone, and is made again, from the stream's beginning", stream, name)

    def _leave(self) -> None:
        with suppress(NoGroupError):
            if not self._group.leave():
                _log.info("%s: %s stays in the group: it has entries pending", self._group.stream, self._group.consumer)
            self._task.totals.pending = self._group.pending_entries()
