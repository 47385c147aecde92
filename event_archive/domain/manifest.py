"""A file's manifest, to and from its metadata, and the hashes that it is made of. Not here: reading a file."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import date
from typing import Any
from urllib.parse import quote, unquote

from event_archive.domain.contradiction import contradiction, no_csv_of_ours
from event_archive.domain.source import Claim, Source
from event_archive.errors import IntegrityError, NewerFormError, RefusedError
from event_archive.lake.names import check_metadata
from event_archive.lake.protocol import StoredFile

Key = tuple[str, ...]
"""The names of a key's columns, in the order of its index."""
KeyType = tuple[str, str]
"""The name of a type, and what tells its definition from another one; both empty where they are not known."""

UNKNOWN_TYPE: KeyType = ("", "")

VERSION = 1
_PREFIX = "event_archive_"
_PLACES = r"(?:[0-9]{1,10}(?:\.[0-9]{1,5})+)?"
_DEFINITION = r"(?:[0-9]{1,6}:[0-9a-f]{16})?"
_LISTS = {"keys", "key_types"}
_CONTENT = ("rows", "bytes", "sha256", "columns")
"""What a reader of the bytes can compare; the rest says whose they are."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """A file's description of itself.

    Attributes:
        table: as ``TableName`` prints it.
        rows: rows in the file, the header not counted, superseded rows counted.
        bytes: length of the file.
        sha256: of the whole file, hex.
        columns: a hash: ``names_hash`` of the header. The field's name is the stored one.
        version: of the manifest's form.
        types: a hash: ``names_hash`` of the types that the columns had when the rows were written; empty where they are
            not known, or were not the same for all rows. Where they equal today's types, restoring loses nothing, and
            the check for losses is skipped.
        system: as in ``Source``; of a file from before manifests said so it is empty, as are the next three.
        database: as in ``Source``.
        time_column: as in ``Source``.
        day: whose rows the file holds, ISO 8601.
        keys: the keys that the table has had since the file's first row, without repetition; empty where they are not
            all known, as in a file from before manifests said so. A later row of the same key replaces an earlier one.
        key_places: where PostgreSQL's catalogue has the columns of ``keys``, as ``keys.places_of`` writes it; empty
            where that is not known.
        key_types: as what the columns of ``keys`` were read when the manifest was written, in the order in which the
            keys first name them; empty where nothing of it is known.
    """

    table: str
    rows: int
    bytes: int
    sha256: str
    columns: str
    version: int = VERSION
    types: str = ""
    system: str = ""
    database: str = ""
    time_column: str = ""
    day: str = ""
    keys: tuple[Key, ...] = ()
    key_places: str = ""
    key_types: tuple[KeyType, ...] = ()

    @property
    def source(self) -> Source:
        """Whose rows the file holds."""
        return Source(self.system, self.database, self.table, self.time_column)

    def of(self, source: Source, day: date) -> "Manifest":
        """The same content, as that of a day of a source."""
        return replace(
            self,
            table=source.table,
            system=source.system,
            database=source.database,
            time_column=source.time_column,
            day=day.isoformat(),
        )

    def to_metadata(self) -> dict[str, str]:
        """For a file: percent-encoded ASCII, one entry a field.

        Raises:
            RefusedError: more than a lake takes.
        """
        known = {name: str(value) for name, value in asdict(self).items() if value not in ("", ())}
        for name in _LISTS & known.keys():
            known[name] = json.dumps(getattr(self, name), ensure_ascii=False, separators=(",", ":"))
        metadata = {_PREFIX + name: quote(value, safe=".-_") for name, value in known.items()}
        try:
            check_metadata(metadata)
        except ValueError as error:
            raise RefusedError(
                f"{self.table}, {self.day}: the file's manifest, which names every key that the table has had, would "
                f"be too long ({error}). The file was not written. Give the table another file prefix from now on: "
                "the files here stay what they are."
            ) from None
        return metadata

    @classmethod
    def from_file(cls, file: StoredFile) -> "Manifest | None":
        """Reads a file's manifest; None where it has none, since another tool wrote it.

        Raises:
            IntegrityError: it is unreadable, or says another length.
            NewerFormError: it is of a later version.
        """
        manifest = cls.claimed_by(file)
        if manifest and manifest.bytes != file.size_bytes:
            # One that is empty has no header, and cannot be accepted.
            error = contradiction if file.size_bytes else no_csv_of_ours
            raise error(file, f"it has {file.size_bytes} bytes, its manifest says {manifest.bytes}")
        return manifest

    @classmethod
    def claimed_by(cls, file: StoredFile) -> "Manifest | None":
        """As ``from_file``, but whatever length it says, for a caller that reports differences itself."""
        given = {
            name.removeprefix(_PREFIX): unquote(value)
            for name, value in file.metadata.items()
            if name.startswith(_PREFIX)
        }
        if not given:
            return None
        try:
            numbers = {name: int(given[name]) for name in ("rows", "bytes", "version")}
            known = {field.name: given[field.name] for field in fields(cls) if field.name in given}
            read = {name: _tuples(name, given[name]) for name in _LISTS & given.keys()}
            if not re.fullmatch(_PLACES, given.get("key_places", "")):
                raise ValueError("key_places are no numbers")
            manifest = cls(**known | numbers | read)  # type: ignore[arg-type]  # each is of its field's type
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise contradiction(file, f"its manifest is unreadable ({type(error).__name__} {error})") from None
        if manifest.version != VERSION:
            raise NewerFormError(
                f"{file.path}: its manifest is of version {manifest.version}, this program knows version {VERSION}.",
                outcome="Nothing was written or deleted.",
                advice="A newer program wrote the file: update this one.",
            )
        return manifest

    def knows_key(self, key: Key) -> bool:
        """Whether a key is one of ``keys``, in whatever order of its columns."""
        return set(key) in map(set, self.keys)

    def takes_key(self, key: Key) -> bool:
        """Whether rows may be added under a key: it has all columns of each of ``keys``, if any is known."""
        return all(set(of) <= set(key) for of in self.keys)

    def require_day(self, file: StoredFile, day: date) -> None:
        """Checks that the file is of a day.

        Raises:
            IntegrityError: its manifest says another one.
        """
        if self.day not in ("", day.isoformat()):
            raise IntegrityError(
                f"{file.path}: it is the file of {self.day}, as its manifest says, under the name of {day}.",
                outcome="Nothing was written or deleted.",
                advice="Somebody copied or renamed it: put the right file back, or move this one elsewhere.",
            )

    def require_own(self, file: StoredFile, day: date, claim: Claim) -> None:
        """Checks that the file is the owner's, and of a day.

        Raises:
            IntegrityError: its manifest says another source or day.
        """
        self.require_day(file, day)
        if not claim.holds(self.source):
            raise IntegrityError(
                f"{file.path}: it belongs to {self.source}, as its manifest says; the files here belong to "
                f"{claim.source}.",
                outcome="Nothing was written or deleted.",
                advice="Somebody put it here: move it elsewhere.",
            )

    def to_json(self) -> dict[str, Any]:
        """For a materialization: all but what the catalogue alone makes sense of."""
        return {name: value for name, value in asdict(self).items() if name not in ("key_places", "key_types")}

    def require(self, file: StoredFile, found: "Manifest") -> None:
        """Compares the manifest with what was read of the file.

        Args:
            file: for the message.
            found: the manifest of the bytes that were read.

        Raises:
            IntegrityError: they differ.
        """
        if differing := [name for name in _CONTENT if getattr(found, name) != getattr(self, name)]:
            expected = ", ".join(f"{name} {getattr(self, name)}" for name in differing)
            read = ", ".join(f"{name} {getattr(found, name)}" for name in differing)
            raise contradiction(file, f"its manifest says {expected}; it holds {read}")


def _tuples(field: str, text: str) -> tuple[tuple[str, ...], ...]:
    lists = json.loads(text)
    if not isinstance(lists, list) or not all(
        isinstance(of, list) and of and all(isinstance(name, str) for name in of) for of in lists
    ):
        raise ValueError(f"{field} are no lists of names")
    if field == "key_types" and not all(len(of) == 2 and re.fullmatch(_DEFINITION, of[1]) for of in lists):
        raise ValueError("key_types are no names with definitions")
    return tuple(map(tuple, lists))


def names_hash(names: Sequence[str]) -> str:
    """A hash of names in their order, of a header's columns or of their types: SHA-256 of a JSON array, hex."""
    return hashlib.sha256(json.dumps(list(names), ensure_ascii=True).encode()).hexdigest()


class Hashes:
    """A running SHA-256 of bytes, their number, and the last of them."""

    def __init__(self) -> None:
        self.sha256 = hashlib.sha256()
        self.bytes = 0
        self.last_byte = b""

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Takes the next bytes."""
        self.sha256.update(data)
        self.bytes += len(data)
        self.last_byte = bytes(data[-1:]) or self.last_byte

    def manifest(self, table: str, columns: Sequence[str], rows: int) -> Manifest:
        """What a file of these bytes holds."""
        return Manifest(table, rows, self.bytes, self.sha256.hexdigest(), names_hash(columns))


def stored_rows(file: StoredFile) -> int | None:
    """How many rows a file's manifest says it holds; None where it has no manifest that can be read."""
    rows = file.metadata.get(_PREFIX + "rows", "")
    return int(rows) if re.fullmatch("[0-9]{1,18}", rows) else None
