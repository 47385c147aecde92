"""In which order days are done: the one planner of the schedule and the command line.

Here: the order, a pure function of the days, how each was last tried, and the hour. Not here: which days have rows
(``backlog``), doing them, how long a run may take.

The order is fair wherever it is cut, since a limit on slots or a time budget cuts it anywhere after the first day.
Three queues share the places: days never tried, oldest first; days tried before, and days whose last try failed, both
with the least recently tried first. A day that fails, or fills up again every night, goes to the end of its queue when
it is tried. What counts as a try, and as a failure, is said in the two modules that remember: ``defs.last_runs``
(schedule) and ``nightly.attempts`` (command line).

Of every five places, one belongs to the days that failed and one to the days tried before; where a queue is empty, the
others take its places. Which of the five it is moves on by the hour of the run: a nightly run comes 24 hours later,
24 mod 5 is 4, so within five nights even a run of one day has served each queue. So do hourly and weekly runs. That
takes no memory, which a limit of one day a night would otherwise need. A queue of *n* failed or tried days has had all
its days within ``5 * n`` runs; new days get at least three in five runs. Exception: runs every 5, 10, ... hours start
at the same place each time.

Days that stay, because they are held or their partition is not aged as a whole, come after all others: nothing can be
deleted there, so they must keep nobody waiting.
"""

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime

from event_archive.domain.days import ONE_HOUR

CYCLE = 5
"""Places that the queues share: failed and tried days have one place each, new days the rest.

It must have no factor in common with 24, or a nightly run would not come to every place.
"""
# Not side by side: of any two places in a row, one is a new day's.
_PLACE_OF_FAILED, _PLACE_OF_TRIED = 0, 2


@dataclass(frozen=True, slots=True)
class Attempt:
    """How a day was last tried.

    Attributes:
        at: the run or tick that tried it, ISO 8601 in UTC with seconds; empty where it never was.
        failed: that try failed.
    """

    at: str = ""
    failed: bool = False


_NEVER = Attempt()


def plan(
    days: Iterable[date],
    attempts: Mapping[date, Attempt],
    staying: Collection[date],
    *,
    now: datetime,
    most: int | None = None,
) -> list[date]:
    """The days in the order in which they are to be done; every prefix of it is fair.

    Args:
        days: that have rows and that nobody has in hand.
        attempts: how days were last tried; days that are missing here never were.
        staying: days of which nothing can be purged at present: held, or waiting for their partition.
        now: when this run begins, aware; runs of one schedule pass the time of their tick.
        most: how many days at most; None for all.
    """

    def in_turn(day: date) -> tuple[str, date]:
        return attempts.get(day, _NEVER).at, day

    new, tried, failed, last = deque[date](), deque[date](), deque[date](), list[date]()
    for day in sorted(days, key=in_turn):
        attempt = attempts.get(day, _NEVER)
        if day in staying:
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
