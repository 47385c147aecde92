"""The events that the API holds: made up by number, or added. Not here: which of them a page shows."""

import datetime as dt
import json
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
START = dt.datetime(2024, 3, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)
_PREFIX = "00000000-0000-4000-8000-"
# Added events come after all that can be made up.
_FIRST_ADDED = 10**9

_TYPES = (
    ("page_view", "Page viewed"),
    ("click", "Clicked “Buy”"),
    ("purchase", "Zahlung geprüft"),
    ("scroll", "🖱️ down"),
)
_VALUES = (
    "12.50",
    "-0.0",
    "1e-7",
    "9007199254740993",
    "null",
    "true",
    '"a \\"quoted\\" word"',
    "123456789012345678901234",
)


def _template(number: int) -> bytes:
    """An event of some 347 bytes but for the end of its id and its timestamp; after a thousand they repeat."""
    kind, name = _TYPES[number % len(_TYPES)]
    text = (
        f'{{"id":"{_PREFIX}%012x","sessionId":"5e55-{number // 7:08d}","userId":"user-{number % 97:05d}",'
        f'"type":"{kind}","name":"{name}","properties":{{"path":"/shop/articles/{number * 7919 % 1000:05d}",'
        f'"value":{_VALUES[number % len(_VALUES)]},"tags":["a","b\\u00e9"],"referrer":null}},"timestamp":%b,'
        f'"session":{{"device":"mobile","browser":"Firefox 128","locale":"de-AT","pages":{number % 11}}}}}'
    )
    return text.encode()


BLOCK = 1000
_TEMPLATES = [_template(number) for number in range(BLOCK)]


def microseconds(when: str | int) -> int:
    """A time as ISO 8601 or in milliseconds, as microseconds since 1970; without a zone it is UTC.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(when, int):
        return when * 1000
    if when.isdigit():
        return int(when) * 1000
    parsed = dt.datetime.fromisoformat(when)
    return ((parsed if parsed.tzinfo else parsed.replace(tzinfo=dt.UTC)) - EPOCH) // _MICROSECOND


class Events:
    """Made-up events, one after another at even distances, and those added, which came later whatever their time.

    An event is known here by its number in the order in which events came.

    Args:
        count: how many are made up at first.
        start: the time of the first.
        step_ms: the time between two.
    """

    def __init__(self, count: int, start: dt.datetime = START, step_ms: int = 1000) -> None:
        self.count = count
        self._start = (start - EPOCH) // _MICROSECOND
        self._step = step_ms * 1000
        self._texts: dict[int, bytes] = {}
        self._blocks: list[bytes] = []
        self._added: dict[str, int] = {}
        self._times: dict[int, int] = {}

    def add(self, texts: Iterable[str]) -> None:
        """Takes in events as JSON texts; one whose id is known already takes the place of that one."""
        for text in texts:
            event = json.loads(text)
            number = self._number(event["id"])
            self._texts[number] = text.encode()
            if number >= _FIRST_ADDED:
                self._times[number] = microseconds(event["timestamp"])

    def _number(self, identifier: str) -> int:
        if identifier.startswith(_PREFIX) and (number := int(identifier[len(_PREFIX) :], 16)) < self.count:
            return number
        return self._added.setdefault(identifier, _FIRST_ADDED + len(self._added))

    def text(self, number: int) -> bytes:
        """An event as JSON; every other made-up one has its time in milliseconds."""
        return self._texts.get(number) or self._made_up(number)

    def texts(self, numbers: Sequence[int]) -> list[bytes]:
        """Events as JSON, or a single text of them all with commas between where that is at hand."""
        if isinstance(numbers, range) and not self._texts:
            block, within = divmod(numbers.start, BLOCK)
            if (within, len(numbers), numbers.step) == (0, BLOCK, 1) and block < len(self._blocks):
                return [self._blocks[block]]
        return [self.text(number) for number in numbers]

    def render(self) -> None:
        """Writes down every full page of a thousand, so that it costs nothing to serve. Takes 0.4 GB per million."""
        self._blocks = [
            b",".join(self._made_up(number) for number in range(start, start + BLOCK))
            for start in range(0, self.count - BLOCK + 1, BLOCK)
        ]

    def _made_up(self, number: int) -> bytes:
        time = self._start + number * self._step
        if number % 2:
            return _TEMPLATES[number % BLOCK] % (number, b"%d" % (time // 1000))
        iso = (EPOCH + dt.timedelta(microseconds=time)).isoformat(timespec="milliseconds")
        return _TEMPLATES[number % BLOCK] % (number, b'"%bZ"' % iso[:-6].encode())

    def between(self, since: int | None, until: int | None) -> Sequence[int]:
        """The events of a window ``[since, until)`` in microseconds, in the order in which they came."""
        made_up = range(
            bisect_left(range(self.count), since, key=self._time) if since is not None else 0,
            bisect_left(range(self.count), until, key=self._time) if until is not None else self.count,
        )
        if not self._times:
            return made_up
        return [*made_up, *self._added_between(since, until)]

    def _time(self, number: int) -> int:
        return self._start + number * self._step

    def _added_between(self, since: int | None, until: int | None) -> Iterator[int]:
        for number, time in self._times.items():
            if (since is None or time >= since) and (until is None or time < until):
                yield number

    def all(self) -> dict[str, str]:
        """Each event's JSON by its id."""
        made_up = {f"{_PREFIX}{number:012x}": number for number in range(self.count)}
        return {identifier: self.text(number).decode() for identifier, number in (made_up | self._added).items()}
