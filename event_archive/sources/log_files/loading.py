"""A claimed file, loaded in one transaction: all of its rows, in the place of those of its former version, or none.

Not here: which file is next, what follows from a failure.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, LiteralString
from zoneinfo import ZoneInfo

from psycopg import sql

from event_archive.config.sources import LOGS_OLDEST_SERVER
from event_archive.errors import ConfigurationError, RefusedError
from event_archive.postgres.errors import Advice
from event_archive.postgres.pins import own_search_path
from event_archive.postgres.session import Connection, Session, one
from event_archive.postgres.statements import exempting
from event_archive.sources.landing import Batch, Counts, land_in, rejected_table
from event_archive.sources.log_files.decoding import entries
from event_archive.sources.log_files.inflating import inflated
from event_archive.sources.log_files.ledger import Claim, Ledger
from event_archive.sources.log_files.mapping import LogMapping
from event_archive.sources.log_files.rows import SOURCE, Reader, id_prefix, locator_prefix
from event_archive.sources.log_files.stores import FileError, Store
from event_archive.sources.merge import Target
from event_archive.sources.runs import NONE_AGED, AgedTimes

_BATCH_BYTES = 8 * 1024 * 1024
_BATCH_ROWS = 10_000
_FORMER_AT_ONCE = 200

_log = logging.getLogger(__name__)


class GivenBackError(Exception):
    """The file was not loaded, and nothing is wrong with it: it is given back."""


class StoppedError(GivenBackError):
    """Somebody wants the process to end."""


class PassedOnError(GivenBackError):
    """Another process has claimed the file since."""


class _LeavesOutError(Exception):
    """A version that replaces rows leaves entries out: whether some of those rows are theirs is to be looked at."""


class DayAgedError(GivenBackError):
    """A day has come of age since: rows of it that the new version replaces may be in the archive already."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What became of a file's entries.

    Attributes:
        counts: of its entries.
        contradictions: entries whose times contradict each other; the first one counts.
        bytes: of its entries, as they stand in the file, not compressed.
        removed: rows of its former version that were deleted.
    """

    counts: Counts
    contradictions: int
    bytes: int
    removed: int


@dataclass(frozen=True, slots=True)
class Loader:
    """Loads files of a store.

    Attributes:
        session: with the database.
        store: where they are.
        ledger: of the store.
        target: where rows go.
        mapping: which fields hold a time.
        zone: of times without one.
        most_rejected: a file with more entries that cannot be rows is not loaded.
        aged: entries of these times are left out of a new version of a file: they are archived.
        first_pass_at: when the first pass over the store's files came to its end.
        told_to_stop: asked between two batches.
        aged_by_now: as ``aged``, but at the moment at which it is asked.
        aged_at: likewise, at a former one.
    """

    session: Session
    store: Store
    ledger: Ledger
    target: Target
    mapping: LogMapping
    zone: ZoneInfo
    most_rejected: int
    aged: AgedTimes
    first_pass_at: datetime | None
    told_to_stop: Callable[[], bool] = lambda: False
    aged_by_now: Callable[[Connection], AgedTimes] = lambda _connection: NONE_AGED
    aged_at: Callable[[datetime], AgedTimes] = lambda _instant: NONE_AGED

    def load(
        self, claim: Claim, landed: Callable[[Connection, Loaded], None] = lambda _connection, _loaded: None
    ) -> None:
        """Loads a file.

        Args:
            claim: of it.
            landed: told what became of it, just before the commit.

        Raises:
            GivenBackError: it was not loaded, and nothing is wrong with it.
            FileChangedError: it changed, or went away, since it was listed.
            FileError: it is damaged, may not be read, or has too many entries that cannot be rows.
            StoreAwayError: the store is away.
            UnreachableError, BusyError, RefusedError, IntegrityError: the database is away, busy, or refuses.
        """
        try:
            self._load(claim, landed, looks=False)
        except _LeavesOutError:
            self._load(claim, landed, looks=True)

    def _load(self, claim: Claim, landed: Callable[[Connection, Loaded], None], *, looks: bool) -> None:
        aged = self._aged(claim)
        file, reader = claim.file, self._reader(claim.file.etag, claim, aged)
        counts, size, removed, kept = Counts(), 0, 0, 0
        with self.session.transaction(str(self.target.table), advice=self._advice()) as connection:
            if not self.ledger.lock(connection, claim):
                raise PassedOnError
            if claim.loaded_etag is not None:
                removed = self._forget(connection, claim, aged, looks=looks)
                kept = self._forget_rejected(connection, claim, aged)
            with self.store.open(claim.file) as chunks:
                for batch, read in self._batches(reader, chunks):
                    size += read
                    counts.add(land_in(connection, self.target, SOURCE, batch))
                    self._check(batch, counts)
                    if removed and counts.too_old and not looks:
                        raise _LeavesOutError
            rejected = self._rejected(connection, claim) if counts.known else counts.rejected + kept
            rows = counts.new + counts.known + counts.superseded + counts.rejected + kept - rejected
            if not self.ledger.complete(connection, claim, rows=rows, rejected=rejected):
                raise PassedOnError
            if claim.loaded_etag is not None and self.aged_by_now(connection) != self.aged:
                raise DayAgedError
            landed(connection, Loaded(counts, reader.contradictions, size, removed))
        if counts.rejected == counts.taken > 0:
            _log.warning("%s: none of its entries can be a row: `event-archive rejected` says why.", file.key)

    def _aged(self, claim: Claim) -> AgedTimes:
        """Of which times entries are left out, as archived: of a file that was never loaded, those of no first pass.

        What has become aged since such a file was listed cannot have come by it in time.
        """
        if claim.loaded_etag is not None:
            return self.aged
        is_of_first_pass = self.first_pass_at is None or claim.known_since <= self.first_pass_at
        return NONE_AGED if is_of_first_pass else self.aged_at(claim.known_since)

    def _batches(self, reader: Reader, chunks: Iterator[bytes]) -> Iterator[tuple[Batch, int]]:
        """A file's entries in batches, each with the bytes that they have in the file, not compressed."""
        batch, size = Batch(), 0
        for some in entries(inflated(chunks)):
            # An entry's bytes are what memory holds, whatever becomes of it.
            reader.read(some, batch)
            size += sum(map(len, some))
            if size >= _BATCH_BYTES or len(batch.lines) >= _BATCH_ROWS:
                yield batch, size
                batch, size = Batch(), 0
            if self.told_to_stop():
                raise StoppedError
        if batch.lines or batch.rejected or batch.too_old:
            yield batch, size

    def _check(self, batch: Batch, counts: Counts) -> None:
        if counts.rejected <= self.most_rejected:
            return
        why = f" The last of them: {batch.rejected[-1].reason}." if batch.rejected else ""
        raise FileError(
            f"More than MAX_REJECTED={self.most_rejected} of its entries cannot be rows.{why} See whether it is a log "
            "file, and LOGS_MAPPING for other fields."
        )

    def _forget(self, connection: Connection, claim: Claim, aged: AgedTimes, *, looks: bool) -> int:
        """Deletes what a former version of the file left. Rows of this very version stay, and are known again.

        Aged rows stay, as those of the new version are left out: they may not be archived yet. So do rows that are not
        aged, but whose entries are left out now, since other settings read another time from them: it takes as long as
        a load to look for such rows.

        Returns:
            How many rows were deleted.
        """
        bucket, key, etag = self.store.bucket, claim.file.key, str(claim.loaded_etag)
        if etag == claim.file.etag:
            return 0
        former = id_prefix(bucket, key, etag)
        table = sql.Identifier(self.target.table.schema, self.target.table.name)
        # By bytes, a slash is what follows a point, whatever the column's collation has become.
        rows = sql.SQL(
            'FROM {} WHERE id OPERATOR(pg_catalog.>=) {} COLLATE pg_catalog."C" '
            'AND id OPERATOR(pg_catalog.<) {} COLLATE pg_catalog."C" '
            "AND NOT (timestamp OPERATOR(pg_catalog.>=) {} AND timestamp OPERATOR(pg_catalog.<) {})"
        ).format(table, f"{former}.", f"{former}/", aged.since, aged.until)
        stay = list[str]()
        if looks:
            query = sql.SQL("SELECT id, raw_data::pg_catalog.text {}").format(rows)
            stay = self._left_out(connection, query, (), self._reader(etag, claim, aged))
        rows += sql.SQL(" AND NOT id OPERATOR(pg_catalog.=) ANY (%s)")
        with own_search_path(connection):
            removed = connection.execute(sql.SQL("DELETE {}").format(rows), (stay,)).rowcount
        if one(connection, sql.SQL("SELECT EXISTS (SELECT {})").format(rows), stay)[0]:
            raise RefusedError(
                f"{self.target.table}: a trigger or rule on DELETE keeps rows of the former version of {key}: each "
                f"entry would be there twice. The file was not loaded. {exempting(connection)}."
            )
        return removed

    def _forget_rejected(self, connection: Connection, claim: Claim, aged: AgedTimes) -> int:
        """Deletes what was rejected of a former version, but for what is left out of the new one, as aged rows are.

        Returns:
            How many records of this very version stay.
        """
        if not claim.loaded_rejected:
            return 0
        bucket, key, etag = self.store.bucket, claim.file.key, str(claim.loaded_etag)
        of_version = (SOURCE, locator_prefix(bucket, key, etag))
        query = self._of_rejected("SELECT id, raw FROM {rejected}")
        too_old = self._left_out(connection, query, of_version, self._reader(etag, claim, aged))
        query = self._of_rejected("DELETE FROM {rejected}", but="id OPERATOR(pg_catalog.=) ANY (%s)")
        with own_search_path(connection):
            connection.execute(query, (*of_version, too_old))
        return len(too_old) if etag == claim.file.etag else 0

    def _left_out(
        self, connection: Connection, query: sql.Composed, values: Sequence[object], reader: Reader
    ) -> list[Any]:
        """The ids, from a query for ids and bytes of entries, of those that are too old as they are read now."""
        found = list[Any]()
        with connection.cursor(name="event_archive_former") as cursor:
            cursor.execute(query, values)
            while some := cursor.fetchmany(_FORMER_AT_ONCE):
                raws = [raw.encode() if isinstance(raw, str) else bytes(raw) for _, raw in some]
                if _too_old(reader, raws):
                    found += [of for (of, _), raw in zip(some, raws, strict=True) if _too_old(reader, [raw])]
        return found

    def _reader(self, etag: str, claim: Claim, aged: AgedTimes) -> Reader:
        bucket, key, now = self.store.bucket, claim.file.key, datetime.now(UTC)
        return Reader(bucket, key, etag, self.mapping, self.zone, now, aged)

    def _rejected(self, connection: Connection, claim: Claim) -> int:
        """How many entries of the file's version are rejected, those included that were before."""
        version = locator_prefix(self.store.bucket, claim.file.key, claim.file.etag)
        query = self._of_rejected("SELECT pg_catalog.count(*) FROM {rejected}")
        return int(one(connection, query, SOURCE, version)[0])

    def _of_rejected(self, statement: LiteralString, *, but: LiteralString = "false") -> sql.Composed:
        name = rejected_table(self.target)
        # What follows is a number: the name of another file may begin with all that stands before it.
        version = "pg_catalog.rtrim(locator, '0123456789') OPERATOR(pg_catalog.=) %s"
        condition: LiteralString = f" WHERE source OPERATOR(pg_catalog.=) %s AND {version} AND NOT "
        return sql.SQL(statement + condition + but).format(rejected=sql.Identifier(name.schema, name.name))

    def _advice(self) -> Advice:
        return Advice(
            outcome="The file was not loaded.",
            again="it is tried again",
            lost="The file is loaded again.",
            privileges=f"The role needs SELECT, INSERT, UPDATE and DELETE on {self.target.table} and on the tables "
            "beside it, and TEMPORARY on the database: GRANT them, or connect as another role.",
        )


def _too_old(reader: Reader, entries: Sequence[bytes]) -> int:
    batch = Batch()
    reader.read(entries, batch)
    return batch.too_old


def check_server(session: Session) -> None:
    """Looks whether the server is new enough.

    Raises:
        ConfigurationError: it is not.
    """
    with session.transaction("the server's version") as connection:
        version = connection.info.server_version // 10_000
    if version < LOGS_OLDEST_SERVER:
        raise ConfigurationError(
            f"The server of PG_CONNECTION_STRING is PostgreSQL {version}; log files need {LOGS_OLDEST_SERVER} or newer."
            " No file was loaded. Upgrade it, or name another server."
        )
