"""The types of a key's columns when a file was written, and whether its values read the same as today's.

Not here: which columns those are (``keys``), whether values parse at all (``operations.parsing``).
"""

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from event_archive.domain.dataset import quoted
from event_archive.domain.keys import names_in
from event_archive.domain.manifest import UNKNOWN_TYPE, Key, KeyType, Manifest
from event_archive.postgres.catalogue.value_types import ValueType

_INTEGERS = ("smallint", "integer", "bigint")
_WITH_ROOM = re.compile(
    rf"({'|'.join(_INTEGERS)}|numeric|text|character varying|timestamp|time)(?:\((\d+)(?:,(-?\d+))?\))?(.*)"
)
_MICROSECONDS = 6


def key_types_of(
    keys: Iterable[Key], types: Mapping[str, ValueType], noted: Mapping[str, KeyType] = MappingProxyType({})
) -> tuple[KeyType, ...]:
    """``Manifest.key_types`` where a file is written or compared by these types.

    Args:
        keys: of a manifest.
        types: the table's, by the names of its columns.
        noted: those that a manifest has noted, and that are to stay so.
    """
    of = {name: _noted(value) for name, value in types.items()} | dict(noted)
    return tuple(of.get(name, UNKNOWN_TYPE) for name in names_in(keys))


def types_in(manifest: Manifest | None) -> dict[str, KeyType]:
    """The types that a manifest notes, by the names of the columns; without those that are not known."""
    names = zip(names_in(manifest.keys), manifest.key_types, strict=False) if manifest else ()
    return {name: noted for name, noted in names if noted != UNKNOWN_TYPE}


def retyped(manifest: Manifest, types: Mapping[str, ValueType], now: Mapping[str, str]) -> str:
    """What a message says of key columns whose values in a file may read as others today; empty where there are none.

    Args:
        manifest: the file's.
        types: the table's, by the names of its columns.
        now: as ``keys.names_now`` tells it: of whose columns it says nothing, the catalogue may have numbered their
            types' definitions anew.
    """
    changed = []
    for name, (was, definition) in types_in(manifest).items():
        if name not in types:
            continue
        by_now = types[name]
        if not _reads_alike(was, by_now.name):
            changed.append(f"{quoted(name)} was {was} when its rows were archived, and is {by_now.name}")
        elif name in now and not _begins(by_now.parts, definition):
            changed.append(f"the definition of {was}, the type of {quoted(name)}, has changed since")
    return ", and ".join(changed)


def _noted(of: ValueType) -> KeyType:
    return of.name, f"{len(of.parts)}:{_hash(of.parts)}" if of.parts else ""


def _begins(parts: tuple[str, ...], definition: str) -> bool:
    """Whether a definition is still what it was, but for labels that were added."""
    number, _, noted = definition.partition(":")
    return not definition or (int(number) <= len(parts) and _hash(parts[: int(number)]) == noted)


def _hash(parts: tuple[str, ...]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _reads_alike(was: str, now: str) -> bool:
    """Whether each text of a former type is the same value of the present one, and no two texts are one value of it."""
    if was == now:
        return True
    (kind, room), (kind_now, room_now) = _room(was), _room(now)
    return kind == kind_now and room <= room_now


def _room(name: str) -> tuple[str, float]:
    """The kind of a type, and how much its values may have of what a narrower type of that kind cuts off.

    That is digits behind the point, or characters.
    """
    if not (found := _WITH_ROOM.fullmatch(name)):
        return name, 0
    word, size, scale, rest = found.groups()
    if word in _INTEGERS:
        return f"number{rest}", 0
    if word == "numeric":
        return f"number{rest}", int(scale or 0) if size else math.inf
    if word in ("timestamp", "time"):
        return word + rest, int(size or _MICROSECONDS)
    return f"text{rest}", int(size or 0) if size else math.inf
