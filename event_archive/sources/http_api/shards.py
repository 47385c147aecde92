"""What a page does to the position of its shard. Not here: how positions are stored, how pages come."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from event_archive.sources.http_api.order import Order
from event_archive.sources.http_api.paging import Start
from event_archive.sources.http_api.place import Trace
from event_archive.sources.http_api.positions import NEVER, Position
from event_archive.sources.http_api.rereading import Evidence, reading_all, reading_all_if_due, reads_all
from event_archive.sources.http_api.restarts import Restarts
from event_archive.sources.http_api.walking import Fetched
from event_archive.sources.http_api.watermarks import UNKNOWN, is_settled, moved_on, uncontradicted
from event_archive.sources.http_api.windows import parts

_NO_ORDER = datetime(9000, 1, 1, tzinfo=UTC)
"""The ceiling of a pass without a filter that turned out to be in no order, for whoever goes on with it."""


@dataclass(slots=True)
class Shard:
    """A shard that this process reads.

    Attributes:
        position: as it was committed last.
        filtered: whether the API can be asked for a window of time.
        overlap: how far behind a watermark events may still become visible.
        read_all_every: how often a pass reads all events, whatever their order; None for never.
        pages: of the present pass.
        enough: no further page of the pass is wanted.
        total: how many events the API told last that the present pass has.
        has_to_look_again: another pass is needed: newer events may have arrived above this one, which went from the
            newest to the oldest, or nobody knows when it began.
        arrived: the watermark at the end of the last pass, in whatever order it came.
        has_lost_its_place: the page that the pass was to go on at is empty, or begins with an event not known: the
            API deleted events before it, and others may have moved to where nobody looks.
        evidence: what the pass shows of the API's order.
    """

    position: Position
    filtered: bool
    overlap: timedelta
    read_all_every: timedelta | None = None
    pages: int = 0
    enough: bool = False
    total: int | None = None
    has_to_look_again: bool = False
    arrived: datetime | None = None
    has_lost_its_place: bool = False
    evidence: Evidence = field(default_factory=lambda: Evidence.of(Position(), NEVER))
    _has_read_all: bool = False
    _goes_on: bool = False
    _is_unmarked: bool = False
    _read_at: tuple[str | None, str | None] = (None, None)
    _order: Order = field(default_factory=Order)
    _top: tuple[str, ...] = ()
    _resumed: bool = False
    _is_by_our_clock: bool = False
    _looked_again: bool = False
    _restarts: Restarts = field(default_factory=Restarts)

    def parts(self, fetched: Fetched, times: Sequence[datetime]) -> list[Position]:
        """What a dense window is split into, as ``windows.parts``."""
        return parts(self.position, self._order, fetched, times)

    @property
    def is_window(self) -> bool:
        """Whether it is a window of time."""
        return self.position.upper is not None

    @property
    def _reads_all(self) -> bool:
        return reads_all(self.position)

    @property
    def _by_time(self) -> bool:
        """Whether its passes ask for a window of time."""
        return self.filtered or self.is_window

    def start(self) -> Start:
        """Where its pass begins."""
        return Start(self.position.cursor, self.position.lower, self.position.upper)

    def begin(self, now: datetime, since: datetime | None) -> None:
        """Begins a pass, or goes on with the one that the position's cursor is in the midst of.

        Args:
            now: this machine's clock.
            since: from when on events are wanted, where none has arrived.
        """
        self.pages, self.enough, self.total, self.has_lost_its_place = 0, False, None, False
        self._looked_again, self.has_to_look_again = self.has_to_look_again, False
        if self._reads_all and self._by_time:
            self.position = replace(self.position.without_cursor, lower=None)
        if not (self._by_time or self._reads_all) and self.position.lower is not None:
            # Nothing is known of the order of what came by a filter.
            position = self.position.without_cursor
            self.position = replace(position, lower=None, watermark=None, known=(), top=(), doubted=NEVER)
        before = self.position
        if before.passes and not self._by_time:
            self.position = reading_all_if_due(before, self.read_all_every, now)
        began_unmarked = self.position != before and self.position.last_read_all == before.last_read_all
        self._is_unmarked = self._reads_all and (began_unmarked or self._is_unmarked)
        self.evidence = Evidence.of(self.position, now)
        self._order, self._top, self._resumed = Order(), (), self.position.cursor is not None
        stored = self.position.began if self._resumed else None
        self._goes_on = self._resumed and stored is None and self.position.passes > 0 and not self._by_time
        self._is_by_our_clock = stored is None
        if self._resumed:
            self.position = replace(self.position, began=stored or now)
            return
        self.position = replace(self.position, began=now, ceiling=None)
        watermark, lower = self.position.watermark, self.position.lower
        if self.is_window:
            # Kept for whoever goes on with the pass: the bounds of a cursor stay those that it was given for.
            if lower and watermark:
                self.position = replace(self.position, lower=max(lower, watermark - self.overlap))
        else:
            if not self._reads_all:
                lower = (watermark - self.overlap if watermark else since) if self.filtered else None
                self.position = replace(self.position, lower=lower)
            if not (self.filtered or self.position.passes):
                # All that came before comes once more.
                self.position = replace(self.position, events=0)

    @property
    def is_at_its_place(self) -> bool:
        """Whether the page that comes next was read before: the last one of the pass before."""
        return self._goes_on and self.pages == 0

    @property
    def has_proven_its_order(self) -> bool:
        """Whether the pass is the first to bring something new where the order puts new events."""
        return not self._by_time and self.evidence.proves(self.position, at_end=self.enough)

    def has_to_read_all(self, now: datetime) -> bool:
        """Whether the next pass is to read all, behind one that went by an order in doubt; once in a run."""
        in_doubt = self.evidence.leaves_in_doubt(self.position, now)
        return in_doubt and not (self._by_time or self._has_read_all)

    def start_reading_all(self) -> None:
        """Lets the next pass read all."""
        self.position, self._has_read_all = reading_all(self.position), True

    def lose_its_place(self) -> None:
        """Ends a pass at its first page, of which nothing lands."""
        self.enough = self.has_lost_its_place = True

    def restart(self, now: datetime, since: datetime | None, url: str) -> None:
        """Begins again, where the cursor leads nowhere any more: at the watermark, else at the beginning.

        Raises:
            RefusedError: it got no further than before, twice.
        """
        self._restarts.count(self.pages, self.position.watermark, url)
        self.position = self.position.without_cursor
        if self._is_unmarked:
            self.position = reading_all(replace(self.position, known=()))
        elif self._reads_all:
            # The next stretch of time, or the next day, has another.
            doubted = self.position.doubted and self.evidence.begun.replace(microsecond=0)
            self.position = replace(self.position, lower=None, doubted=doubted)
        self.begin(now, since)

    def left(self, since: datetime | None) -> int | None:
        """How many events the first pass still has to come; None where nobody can tell, and in later passes.

        Args:
            since: from when on events were wanted at first. A pass that began later has others before it.
        """
        of = self.position
        if self.total is None or self.is_window or of.passes or of.lower not in (None, since):
            return None
        return max(0, self.total - of.events)

    def after(self, fetched: Fetched, times: Sequence[datetime], now: datetime, trace: Trace) -> Position:
        """The position behind a page.

        Args:
            fetched: the page.
            times: of its events, in their order.
            now: this machine's clock.
            trace: of the page.
        """
        self._correct_the_beginning(fetched, now)
        self._read_at = (fetched.asked_by, trace.place) if fetched.page.events else self._read_at
        before = replace(self.position, events=self.position.events + len(fetched.page.events), place=None)
        self.total = self.total if fetched.page.total is None else fetched.page.total
        if fetched.is_broken:
            return replace(before, cursor=fetched.asked_by)
        self.pages += 1
        if self._by_time:
            before = replace(before, watermark=uncontradicted(self.position, times, self.overlap))
        before = replace(before, ceiling=self._ceiling(times))
        before = self._seen(before, trace)
        by_floor = not (self.is_window or self._reads_all or before.known)
        floor = before.watermark - self.overlap if before.watermark and by_floor else None
        # Newest first, a pass begins above it: where it does not, older events come before the newer ones.
        begins_above = floor is not None and before.ceiling is not None and floor <= before.ceiling < _NO_ORDER
        reached = floor is not None and begins_above and self._order.descends and bool(times) and times[-1] < floor
        if fetched.next is None or reached:
            self.enough = True
            return self._complete(before, fetched)
        # Of an API in no order all has arrived already: what a pass that has only begun has reached is less.
        is_more = not before.passes or before.watermark is not None
        ascends = before.ceiling is None and is_more and self._order.has_ascended(self.overlap)
        return replace(
            before,
            cursor=fetched.next,
            expires=fetched.page.expires(now),
            watermark=moved_on(before, times if ascends else ()),
        )

    def _seen(self, before: Position, trace: Trace) -> Position:
        """The position, with what the pass began with, and without what the one before began with once it has come.

        Late events may stand before those that are new: only then may these be behind.
        """
        known = () if before.known and trace.shows(before.known) else before.known
        if self.pages == 1:
            self.evidence.began_anew = not trace.begins_with(before.known)
        # Of a pass that somebody else began, without a word of what with, nobody knows.
        self._top = before.top or self._top or (() if self._resumed or self.is_window else trace.top)
        return replace(before, known=known, top=self._top)

    def _correct_the_beginning(self, fetched: Fetched, now: datetime) -> None:
        """Sees at a pass's first page by which clock it began: whoever goes on with it may know nothing of ours."""
        began = self.position.began
        if self.pages or began is None:
            return
        if self._is_by_our_clock:
            began -= max(fetched.ahead, timedelta(0))
        elif began > now - fetched.ahead:
            began = UNKNOWN
        self.position = replace(self.position, began=began)

    def _ceiling(self, times: Sequence[datetime]) -> datetime | None:
        """The ceiling behind a page: none once a pass that this process saw from its beginning has shown to ascend."""
        ceiling = self.position.ceiling
        if times and not self._resumed and self._order.newest is None:
            ceiling = max(times)
        self._order.see(times, self.overlap)
        if self._is_in_no_order(times):
            return _NO_ORDER
        # By time, two events that came late may seem to ascend, and whoever goes on with the pass knows no better.
        ascends = self._order.has_ascended(self.overlap) if self._by_time else self._order.ascends
        return None if ascends and not self._resumed else ceiling

    def _is_in_no_order(self, times: Sequence[datetime]) -> bool:
        """Whether an API without a filter gives newer events after older ones, and older ones after newer ones."""
        order, watermark, ceiling = self._order, self.position.watermark, self.position.ceiling
        if self._by_time or not times:
            return False
        resumed = self._resumed and not self._reads_all
        falls_back = resumed and ceiling is None and watermark and max(times) < watermark - self.overlap
        return bool(falls_back) or (order.falling and order.returns and (order.strays or not order.climbs))

    def _complete(self, before: Position, fetched: Fetched) -> Position:
        """The position at the end of a pass."""
        is_known = before.began != UNKNOWN
        # An API that never had an event has not been passed over.
        is_read = is_settled(before, self.overlap) if self.is_window else before.events > 0
        passes = before.passes + (is_known and is_read)
        order, ceiling = self._order, before.ceiling
        ascends = ceiling is None and not order.falling
        # As they came to the API, which is not quite as they happened.
        nearly = ceiling and order.highest and order.highest > ceiling and order.climbs and not order.strays
        # Where only newer events follow, the next pass goes on at the last page.
        goes_on = bool(ascends or nearly) and not self._by_time
        self.has_to_look_again = not is_known or (
            ceiling not in (None, _NO_ORDER)
            and not self.is_window
            and not self._looked_again
            and not order.rising
            and (self._resumed or (order.falling and self.pages > 1))
        )
        moments = [moment for moment in (ceiling, order.highest) if moment not in (None, _NO_ORDER)]
        self.arrived = moved_on(before, moments)
        # Where newer events follow older ones again, no later pass may end before its last page.
        is_mixed = order.falling and order.returns and not (goes_on or self._by_time)
        is_mixed = is_mixed or (ceiling == _NO_ORDER and not self.filtered)
        is_mixed = is_mixed or (self._resumed and self.position.passes > 0 and self.position.watermark is None)
        cursor = fetched.asked_by if goes_on and not is_mixed else None
        self.evidence.ends(cursor)
        read_at, place = self._read_at
        return replace(
            before,
            cursor=cursor,
            place=place if cursor and read_at == cursor else None,
            expires=None,
            known=() if is_mixed else self._top or before.known,
            top=(),
            doubted=NEVER if is_mixed or self._by_time else self.evidence.doubted(before),
            lower=None if self._reads_all else before.lower,
            watermark=None if is_mixed else self.arrived,
            ceiling=None,
            began=None,
            passes=passes,
        )
