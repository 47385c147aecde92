"""Entries as Redis replies them, with each of their fields: redis-py keeps of those of one name the last alone.

Not here: how Redis is asked.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from redis import Redis

_Reply = tuple[bytes, Sequence[bytes] | None]
_Found = list[tuple[bytes, dict[bytes, bytes]]]


def keep_all_fields(redis: Redis) -> None:
    """Lets a client whose replies are bytes give entries with all their fields; those that were trimmed have none."""
    redis.set_response_callback("XREADGROUP", _of_streams)
    redis.set_response_callback("XRANGE", _entries)
    redis.set_response_callback("XREVRANGE", _entries)


def _of_streams(reply: Any, **_options: Any) -> dict[bytes, _Found]:
    """By RESP3, streams and their entries are a map; by RESP2, pairs."""
    return {stream: _entries(found) for stream, found in dict(reply or ()).items()}


def _entries(reply: Iterable[_Reply], **_options: Any) -> _Found:
    return [(of, _fields(pairs or ())) for of, pairs in reply]


def _fields(pairs: Sequence[bytes]) -> dict[bytes, bytes]:
    """The fields of an entry: of one name the last; others that it had get underscores behind it."""
    names = pairs[::2]
    found = dict(zip(names, pairs[1::2], strict=True))
    return found if len(found) == len(names) else found | dict(_others(pairs, found))


def _others(pairs: Sequence[bytes], last: dict[bytes, bytes]) -> Iterator[tuple[bytes, bytes]]:
    """What an entry has beside the last field of each name, unless it is the same."""
    taken = {*last}
    for name, value in dict.fromkeys(zip(pairs[::2], pairs[1::2], strict=True)):
        if last[name] == value:
            continue
        free = name
        while free in taken:
            free += b"_"
        taken.add(free)
        yield free, value
