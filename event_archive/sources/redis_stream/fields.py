"""Which field of a record fills which column: the names that producers give them, and envelopes around the record.

Not here: what a value means.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

ENVELOPES = ("payload", "data", "body", "position")
"""The fields that hold the record where it is not the whole."""
NAMES = {
    "device_id": ("deviceid", "imei"),
    "ts": ("timestamp", "ts", "time"),
    "latitude": ("latitude", "lat"),
    "longitude": ("longitude", "lon", "lng"),
    "altitude": ("altitude", "alt"),
    "angle": ("angle", "course", "heading"),
    "satellites": ("satellites", "sats"),
    "speed": ("speed",),
    "priority": ("priority",),
    "attributes": ("attributes",),
}
"""For each column the names of its field, the first before the others; in small letters, underscores left out."""
_RANKS = {name: (column, rank) for column, names in NAMES.items() for rank, name in enumerate(names)}

Level = dict[str, bytes]
"""The fields of a record, or of an envelope around it: the JSON of each by name."""
Place = tuple[int, str]
"""The level, counted from the record outwards, and the name of a field."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What fields are for.

    Attributes:
        columns: for each column the fields that may fill it, the first that has a value does.
        others: those that fill none.
    """

    columns: tuple[tuple[Place, ...], ...]
    others: tuple[Place, ...]


def plan(levels: Sequence[Level]) -> Plan:
    """What the fields of a record are for, and those of the envelopes around it, from the record outwards."""
    return _plan(tuple(map(tuple, levels)))


@lru_cache(maxsize=1000)
def _plan(levels: tuple[tuple[str, ...], ...]) -> Plan:
    found: dict[str, list[tuple[int, int, str]]] = {column: [] for column in NAMES}
    others = []
    for level, names in enumerate(levels):
        for name in names:
            column, rank = _RANKS.get(name.lower().replace("_", ""), (None, 0))
            if column is None:
                others.append((level, name))
            else:
                found[column].append((level, rank, name))
    columns = (tuple((level, name) for level, _, name in sorted(places)) for places in found.values())
    return Plan(tuple(columns), tuple(others))
