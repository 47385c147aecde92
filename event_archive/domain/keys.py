"""The keys under which a file's rows were archived: which they are, and what their columns are called by now.

Not here: whether rows can be told apart by them (``operations.comparable``, ``operations.forms``).
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice, permutations

from event_archive.domain.dataset import quoted
from event_archive.domain.manifest import Key, Manifest, names_hash
from event_archive.domain.source import Source

_MOST_RENAMINGS = 10_000
"""So many are tried to find out which columns of a header were renamed: those of one, or of two among a hundred."""


def keys_with(manifest: Manifest | None, key: Key) -> tuple[Key, ...]:
    """What ``Manifest.keys`` becomes where a table with this key is compared with a file that takes rows under it.

    Args:
        manifest: the file's; None where it has none, since no key but this one has been used.
        key: the table's.
    """
    if manifest is None:
        return (key,)
    is_new = manifest.keys and manifest.takes_key(key) and not manifest.knows_key(key)
    return (*manifest.keys, key) if is_new else manifest.keys


def keys_in(
    header: Sequence[str], manifest: Manifest, key: Key, now: Mapping[str, str]
) -> tuple[tuple[Key, ...], tuple[Key, ...]]:
    """``Manifest.keys`` of a file whose header somebody may have changed, under the names that the columns have in it.

    What the catalogue does not tell is found by the hash of the former header, where nothing but names of former keys
    was changed.

    Args:
        header: the file's.
        manifest: the one that it had.
        key: the table's, whose columns are the likeliest to have been renamed.
        now: as ``names_now`` tells it.

    Returns:
        The keys, and former ones that are not among them, since nobody can tell which columns are theirs.
    """
    if names_hash(header) == manifest.columns:
        return manifest.keys, ()
    before = names_in(manifest.keys)
    renamed = {name: now[name] for name in before if now.get(name, name) != name and now[name] in header}
    # The other one may have had that name before, or be called now as the key's was.
    in_doubt = {name for name in renamed if name in header and name not in now.values()}
    gone = sorted(set(before).difference(header))
    if not renamed.keys() >= set(gone):
        # Rather those of the present key than any.
        names = sorted(header, key=lambda name: name not in key)
        for present in islice(permutations(names, len(gone)), _MOST_RENAMINGS):
            former = dict(zip(present, gone, strict=True))
            if names_hash([former.get(name, name) for name in header]) == manifest.columns:
                renamed, in_doubt = dict(zip(gone, present, strict=True)), set()
                break
    by_now = {names: tuple(renamed.get(name, name) for name in names) for names in manifest.keys}
    unknown = tuple(key for key, names in by_now.items() if in_doubt.intersection(key) or not set(names) <= set(header))
    found = [names for key, names in by_now.items() if key not in unknown]
    return tuple({frozenset(names): names for names in reversed(found)}.values())[::-1], unknown


def places_of(keys: Iterable[Key], oid: int, numbers: Mapping[str, int]) -> str:
    """``Manifest.key_places``: the catalogue's number for the table, then those for the columns, between dots.

    They stand in the order in which the keys first name the columns, 0 for one that is not known. Empty without keys.

    Args:
        keys: of a manifest.
        oid: the table's.
        numbers: the columns', by their names. A renamed column keeps its own, and no other ever gets it.
    """
    names = names_in(keys)
    return ".".join(map(str, (oid, *(numbers.get(name, 0) for name in names)))) if names else ""


def numbers_in(manifest: Manifest | None, source: Source, oid: int) -> dict[str, int]:
    """The numbers that the columns of a file's keys had in the catalogue when its manifest was written, by their names.

    Args:
        manifest: the file's.
        source: whose catalogue it is. Where the file is of another one, nothing is known.
        oid: the table's number in it. Where the file is of another table, nothing is known.
    """
    if not manifest or (manifest.system, manifest.database) != (source.system, source.database):
        return {}
    table, *numbers = manifest.key_places.split(".")
    if table != str(oid):
        return {}
    return {name: int(number) for name, number in zip(names_in(manifest.keys), numbers, strict=False) if int(number)}


def names_now(manifest: Manifest | None, source: Source, oid: int, numbers: Mapping[str, int]) -> dict[str, str]:
    """What columns of a file's keys are called by now, by their names there; empty for those that are gone.

    Args:
        manifest: the file's.
        source: whose catalogue the numbers are of, as for ``numbers_in``.
        oid: the table's number in it.
        numbers: its columns', by their present names.
    """
    names = {number: name for name, number in numbers.items()}
    return {name: names.get(number, "") for name, number in numbers_in(manifest, source, oid).items()}


def moved(key: Iterable[str], now: Mapping[str, str]) -> str:
    """What a message says of a key's columns whose names were others' in the file; empty where there are none.

    Args:
        key: the table's.
        now: as ``names_now`` tells it.
    """
    others = [(quoted(name), now[name]) for name in key if now.get(name, name) != name]
    return ", ".join(f"what it calls {name} is {f'now called {quoted(of)}' if of else 'gone'}" for name, of in others)


def names_in(keys: Iterable[Key]) -> list[str]:
    """The columns of keys, in the order in which these first name them."""
    return [*dict.fromkeys(name for key in keys for name in key)]
