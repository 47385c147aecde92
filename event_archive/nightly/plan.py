"""In which order days are done: the one planner of the schedule and the command line.

Here: the order, a pure function of the days, how each was last tried, and the hour. Not here: which days have rows
(``backlog``), doing them, how long a run may take.

The order is fair wherever it is cut, since a limit on slots or a time budget cuts it anywhere after the first day.
Three queues share the places: days never tried, oldest first; days tried before, dry runs among them, and days whose
last try failed, both with the least recently tried first. A day that fails, or fills up again every night, goes to the
end of its queue when it is tried.

Of every five places, one belongs to the days that failed and one to the days tried before; where a queue is empty, the
others take its places. Which of the five it is moves on by the hour of the run: a nightly run comes 24 hours later,
24 mod 5 is 4, so within five nights even a run of one day has served each queue. So do hourly and weekly runs. That
takes no memory, which a limit of one day a night would otherwise need. With *n* days in it and at least one day a run,
a queue of failed or tried days has had all of them within ``5 * n`` runs; the queue of new days, which owns three
places in five, within five runs for each three of them. (A period that is a multiple of five hours, like five days,
moves on only where its rhythm breaks: at the turn of a day or a month.)

Held days come after all others: nothing can be deleted there, so they must keep nobody waiting.
"""

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime

from event_archive.domain.days import ONE_HOUR

CYCLE = 5
"""Places in which each queue has one of its own. It must not divide 24, or a nightly run would never move on."""
_PLACE_OF_FAILED, _PLACE_OF_TRIED = 0, 2


@dataclass(frozen=True, slots=True)
class Attempt:
    """How a day was last tried.

    Attributes:
        at: the run or tick that tried it, ISO 8601 in UTC with seconds; empty where it never was.
        failed: it failed or was cancelled.
    """

    at: str = ""
    failed: bool = False


_NEVER = Attempt()


def plan(
    days: Iterable[date],
    attempts: Mapping[date, Attempt],
    held: Collection[date],
    *,
    now: datetime,
    most: int | None = None,
) -> list[date]:
    """The days in the order in which they are to be done; every prefix of it is fair.

    Args:
        days: that have rows and that nobody has in hand.
        attempts: how days were last tried; days that are missing here never were.
        held: days that are not purged at present.
        now: when this run begins, aware; runs of one schedule pass the time of their tick.
        most: how many days at most; None for all.
    """

    def in_turn(day: date) -> tuple[str, date]:
        return attempts.get(day, _NEVER).at, day

    new, tried, failed, last = deque[date](), deque[date](), deque[date](), list[date]()
    for day in sorted(days, key=in_turn):
        attempt = attempts.get(day, _NEVER)
        if day in held:
            last.append(day)
        elif attempt.failed:
            failed.append(day)
        else:
            (tried if attempt.at else new).append(day)
    hour = int(now.timestamp() // ONE_HOUR.total_seconds())
    return [*_shared(new, tried, failed, hour=hour), *last][:most]


def _shared(new: deque[date], tried: deque[date], failed: deque[date], *, hour: int) -> Iterator[date]:
    """Takes the days of three queues, each place's from the first queue in its order that is not empty."""
    orders = {_PLACE_OF_FAILED: (failed, new, tried), _PLACE_OF_TRIED: (tried, new, failed)}
    place = hour
    while queue := next((queue for queue in orders.get(place % CYCLE, (new, tried, failed)) if queue), None):
        yield queue.popleft()
        place += 1
