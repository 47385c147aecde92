"""The ingestion of log files: what a run is told, what it does to one file after another, what it says at its end.

Not here: how a file is listed, claimed or loaded.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

from event_archive.config.sources import LogsSettings
from event_archive.domain.dataset import Dataset, TableName
from event_archive.domain.wording import counted
from event_archive.errors import ClocksError, EventArchiveError, FileChangedError, UnreachableError
from event_archive.postgres.session import Session
from event_archive.sources.former import Former
from event_archive.sources.landing import rejected_table
from event_archive.sources.log_files.ledger import Claim, Ledger
from event_archive.sources.log_files.listing import Listings, list_files
from event_archive.sources.log_files.loading import GivenBackError, Loader, check_server
from event_archive.sources.log_files.mapping import load_mapping
from event_archive.sources.log_files.places import open_store
from event_archive.sources.log_files.rows import target
from event_archive.sources.log_files.status import GivenUp, Left, Status, announce, left, status
from event_archive.sources.log_files.stores import FileError, Store, StoreAwayError
from event_archive.sources.log_files.totals import Totals
from event_archive.sources.runs import AGES_SECONDS, aged_at, aged_by_now, aged_times, wait, work_connected
from event_archive.sources.tables import make_missing

_OTHERS_UNTIL_END = 3
"""Files in a row that could not be loaded, for reasons that are not theirs: the store is away, the database refuses."""
_PROGRESS_SECONDS = 5.0
_LEASE_LOOK_SECONDS = 0.2
_MOST_REASONS_TOLD = 20
_GIVEN_UP = "It is left: --retry-failed takes it up again."

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ingestion:
    """A run over the files of a place.

    Attributes:
        settings: of the place and the database.
        datasets: what is archived; of the table that entries land in, it says which of them are too old.
        limit: how many files are loaded at most.
        anew: whether files that failed are tried again at once, those that were given up too.
        told_to_stop: asked several times a second.
        progress: told now and then how far it is.
        totals: what it has done.
    """

    settings: LogsSettings
    datasets: Iterable[Dataset] = ()
    limit: int | None = None
    anew: bool = False
    told_to_stop: Callable[[], bool] = lambda: False
    progress: Callable[[Totals], None] = lambda _totals: None
    totals: Totals = field(default_factory=Totals)

    def run(self) -> Totals:
        """Loads all files that wait. What of it failed is in ``failures``, whatever is raised.

        Raises:
            UnreachableError: the store or the database is away for longer than a run waits.
            RefusedError: the store or the database refuses.
            ConfigurationError: a setting is wrong, or the server too old.
            BusyError: others kept locks for too long.
            IntegrityError: the books do not balance.
        """
        began, tried_anew = time.monotonic(), False

        def work(session: Session, former: Former) -> None:
            nonlocal tried_anew
            of = _Work(self, session, store, began)
            if self.anew and not tried_anew:
                of.try_anew()
                tried_anew = True
            of.work(former)

        try:
            store = open_store(self.settings, self.told_to_stop)
            work_connected(
                self.settings.postgres,
                work,
                done=lambda: self.totals.files,
                told_to_stop=self.told_to_stop,
                not_of_the_database=(StoreAwayError,),
            )
            return self.totals
        except EventArchiveError:
            self.totals.ended = "failed"
            raise
        finally:
            self.totals.seconds = time.monotonic() - began

    def waits(self, told_to_stop: Callable[[], bool] = lambda: False) -> bool:
        """Whether a run would load a file: lists the files as a run does, unless one is known to wait.

        Args:
            told_to_stop: ends the listing. Then a run has to list the files, and True is returned.

        Raises:
            EventArchiveError: as ``run``.
        """
        with self._work() as work:
            return work.ledger.waits() or not work.list_files(told_to_stop) or work.ledger.waits()

    def status(self) -> Status:
        """What waits, and what failed."""
        with self._ledger() as ledger:
            return status(ledger)

    def left(self) -> Left:
        """How many files are not loaded."""
        with self._ledger() as ledger:
            return left(ledger)

    def announce(self, tell: Callable[[GivenUp], None]) -> None:
        """Tells of files that were given up, of each once; where ``tell`` raises, the next call tells of them."""
        with self._ledger() as ledger:
            announce(ledger, tell)

    @contextmanager
    def _work(self) -> Iterator["_Work"]:
        store = open_store(self.settings)
        with self.settings.postgres.session() as session:
            yield _Work(self, session, store, 0)

    @contextmanager
    def _ledger(self) -> Iterator[Ledger]:
        store = open_store(self.settings)
        with self.settings.postgres.session() as session:
            check_server(session)
            yield Ledger.of(self.settings, session, store)


class _Work:
    """A run, for as long as a connection with the database lasts."""

    def __init__(self, run: Ingestion, session: Session, store: Store, began: float) -> None:
        settings = run.settings
        self._run, self._session, self._store, self._began = run, session, store, began
        self._mapping = load_mapping(settings.logs_mapping)
        self._target = target(settings.ingest_schema, self._mapping)
        check_server(session)
        self.ledger = Ledger.of(settings, session, store)
        listing = TableName(settings.ingest_schema, "log_listing")
        make_missing(session, self._target.table, rejected_table(self._target), self.ledger.table, listing)
        self._listings = Listings(session, listing, store.bucket, store.prefix)
        self._told = self._ages_at = time.monotonic()
        self._changed: set[str] = set()

    def list_files(self, told_to_stop: Callable[[], bool]) -> bool:
        """As the function of this name."""
        return list_files(self._store, self.ledger, self._listings, told_to_stop)

    def try_anew(self) -> None:
        """Lets files that failed be tried again, also those that were killed too often."""
        self.ledger.give_up_abandoned()
        if failed := self.ledger.retry_failed():
            _log.info("%s to be tried again", counted(failed, "failed file is", "failed files are"))

    def work(self, former: Former) -> None:
        """Lists the files, and loads those that wait: what earlier runs left first, then what is new.

        Args:
            former: takes down what is committed.

        Raises:
            UnreachableError: the database is away; StoreAwayError: the store is.
        """
        before: datetime | None = self.ledger.now()
        self.list_files(self._run.told_to_stop)
        loader, others = self._loader(), 0
        while not self._is_over():
            claim = self.ledger.claim(before)
            if claim is None and before is not None:
                before = None
                continue
            if claim is None:
                for key, why in self.ledger.give_up_abandoned():
                    self._tell_failed(key, why, _GIVEN_UP)
                if not self.ledger.waits_for_a_lease():
                    return
                wait(_LEASE_LOOK_SECONDS, self._run.told_to_stop)
                continue
            if time.monotonic() >= self._ages_at:
                loader = self._loader()
            failure = self._load(loader, claim, former)
            others = 0 if failure is None or isinstance(failure, FileError) else others + 1
            if failure is not None and others == _OTHERS_UNTIL_END:
                raise failure
            self._tell()
        if self._run.totals.ended in ("budget", "limit") and not self.ledger.waits():
            self._run.totals.ended = "complete"

    def _load(self, loader: Loader, claim: Claim, former: Former) -> EventArchiveError | None:
        """Loads a file; writes down, and returns, why it could not be."""
        try:
            loader.load(claim, lambda connection, loaded: former.note(connection, lambda: self._run.totals.add(loaded)))
        except (GivenBackError, StoreAwayError) as error:
            if isinstance(error, StoreAwayError) and not self._run.told_to_stop():
                return self._fail(claim, error)
            self._ages_at = 0.0
            self.ledger.release(claim)
            return None
        except FileChangedError:
            return self._see_again(claim)
        except ClocksError:
            self.ledger.release(claim)
            raise
        except UnreachableError:
            raise  # The database is away: nothing is wrong with the file.
        except EventArchiveError as error:
            return self._fail(claim, error)
        former.committed()
        return None

    def _see_again(self, claim: Claim) -> EventArchiveError | None:
        """A file changed while it was read: it is claimed again, in its new version; once a run."""
        try:
            found = self._store.find(claim.file.key)
        except EventArchiveError as error:
            return self._fail(claim, error)
        if found is None:
            return self._fail(claim, FileError("It is not there any more."))
        if found.key in self._changed:
            return self._fail(claim, FileError("It changes while it is read."))
        self._changed.add(found.key)
        self.ledger.discover([found])
        self.ledger.release(claim)
        return None

    def _fail(self, claim: Claim, error: EventArchiveError) -> EventArchiveError:
        """Writes down that a file could not be loaded; returns why."""
        self.ledger.fail(claim, str(error))
        left = self._run.settings.logs_max_attempts - claim.attempts
        again = f"It is tried {counted(left, 'more time', 'more times')}." if left > 0 else _GIVEN_UP
        if self._run.anew and self._store.is_file:
            again = "Load it again once it is mended."
        self._tell_failed(claim.file.key, str(error), again)
        return error

    def _tell_failed(self, key: str, why: str, again: str) -> None:
        totals = self._run.totals
        totals.failed += 1
        if totals.failed <= _MOST_REASONS_TOLD:
            totals.failures.append(FileError(f"{key}: {why} It was not loaded. {again}"))
        _log.warning("%s: %s %s", key, why, again)

    def _loader(self) -> Loader:
        settings = self._run.settings
        self._ages_at = time.monotonic() + AGES_SECONDS
        return Loader(
            self._session,
            self._store,
            self.ledger,
            self._target,
            self._mapping,
            settings.logs_timezone,
            settings.max_rejected,
            aged=aged_times(self._session, self._run.datasets, self._target.table),
            first_pass_at=self._listings.read()[2],
            told_to_stop=self._run.told_to_stop,
            aged_by_now=partial(aged_by_now, datasets=self._run.datasets, table=self._target.table),
            aged_at=partial(aged_at, datasets=self._run.datasets, table=self._target.table),
        )

    def _is_over(self) -> bool:
        """Whether no further file is to be loaded."""
        run, budget = self._run, self._run.settings.run_budget
        if run.told_to_stop():
            run.totals.ended = "interrupted"
        elif budget is not None and time.monotonic() - self._began > budget.total_seconds():
            run.totals.ended = "budget"
        elif run.limit is not None and run.totals.files + run.totals.failed >= run.limit:
            run.totals.ended = "limit"
        return run.totals.ended != "complete"

    def _tell(self) -> None:
        if time.monotonic() - self._told > _PROGRESS_SECONDS:
            self._told = time.monotonic()
            self._run.totals.seconds = self._told - self._began
            self._run.progress(self._run.totals)
