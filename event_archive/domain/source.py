"""Whose rows files hold: the table of a database that a folder and prefix belong to, and what was accepted before.

Not here: asking a database who it is, reading and writing the marker in the lake (``operations.claim``).
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, astuple, dataclass, field, replace
from typing import Any

from event_archive.errors import OtherSourceError, printable

_VERSION = 1


@dataclass(frozen=True, slots=True)
class Source:
    """One table of one database, and the column by which its rows belong to days.

    Attributes:
        system: PostgreSQL's system identifier, which a standby and a file copy share; empty where it is not known.
        database: the database's name; empty where it is not known.
        table: as ``TableName`` prints it.
        time_column: unquoted; empty where it is not known.
    """

    system: str
    database: str
    table: str
    time_column: str

    def __str__(self) -> str:
        """For messages: ``public."Event" (days by created_at) of database shop, system 7301…``."""
        by = f" (days by {self.time_column})" if self.time_column else ""
        database = f" of database {self.database}" if self.database else ""
        # The lake may hold anything.
        return printable(f"{self.table}{by}{database}" + (f", system {self.system}" if self.system else ""))

    def is_same(self, other: "Source") -> bool:
        """Whether both are one table, as far as either is known."""
        pairs = zip(astuple(self), astuple(other), strict=True)
        return all(mine == theirs or not (mine and theirs) for mine, theirs in pairs)

    def completed(self, other: "Source") -> "Source":
        """This one, with what is known of it only from another that is the same."""
        return Source(*(mine or theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True, slots=True)
class Claim:
    """To whom a folder and prefix belong, as the marker beside the files says.

    Attributes:
        source: the owner.
        timeline: the latest of the owner's timelines that is known. A server that is promoted, or restored from a
            backup, begins a new one.
        former: sources that the owner was before: ``adopt --source`` accepted them, and their files are its own.
        refused_timelines: of copies that wrote here, or may write here, and are not the owner.
        position: how far the owner's WAL had come, in bytes, when it was last noted; 0 where it never was. A server
            that stands before it is an older copy of the owner's disk, or the owner set back, or has written less than
            a copy.
        started: when the server process began that it was noted of.
    """

    source: Source
    timeline: int
    former: tuple[Source, ...] = ()
    refused_timelines: tuple[int, ...] = ()
    position: int = field(default=0, compare=False)
    started: str = field(default="", compare=False)

    def holds(self, source: Source) -> bool:
        """Whether a file of this source is the owner's."""
        return any(source.is_same(own) for own in (self.source, *self.former))

    def admitting(
        self, source: Source, timeline: int, position: int, *, place: str, adopt: str = "event-archive adopt --source"
    ) -> "Claim":
        """The claim as it stands after a run of this source; the same where nothing changes.

        Args:
            source: whose rows the run is about to write or delete.
            timeline: of its server.
            position: of its server's WAL, in bytes; 0 where it is not known.
            place: where the files lie, for the message.
            adopt: the command that accepts another owner, for the message.

        Raises:
            OtherSourceError: it is not the owner, or an older copy of it, or one that was refused.
        """
        if not source.is_same(self.source):
            raise OtherSourceError(
                f"{place} belongs to {self.source}; this is {source}. Nothing was written or deleted. Give this table "
                "a file prefix or a folder of its own. If it is the same table, which has moved, "
                f"was upgraded or renamed, accept it once: {adopt}."
            )
        if timeline < self.timeline or timeline in self.refused_timelines:
            raise OtherSourceError(
                f"{place} was last used by {self.source} on timeline {self.timeline}; this server is on timeline "
                f"{timeline}: one of the two is a restored or cloned copy of the other. Nothing was written or "
                "deleted. Give the copy a file prefix or a folder of its own. If this server is "
                f"the one to go on with, accept it once: {adopt}."
            )
        # A role that may not ask for it takes away nothing that was noted.
        noted = position or (self.position if timeline == self.timeline else 0)
        if timeline == self.timeline and noted < self.position:
            raise OtherSourceError(
                f"{place} is used by {self.source}, whose WAL stood at {_lsn(self.position)} when that was last noted; "
                f"this server's stands at {_lsn(position)}, before that: one of the two is a copy of the other's disk, "
                "or this server was set back to an earlier state, as by a snapshot"
                f"{'' if source.system else ', or is another one, since it does not tell its identifier'}. Nothing was "
                "written or deleted. Give the copy a file prefix or a folder of its own. If this server is the one to "
                f"go on with, accept it once: {adopt}."
            )
        return replace(self, source=self.source.completed(source), timeline=timeline, position=noted)

    def adopted_by(self, source: Source, timeline: int, position: int, others: Iterable[Source] = ()) -> "Claim":
        """The claim as it stands once a person has accepted another owner, to whom all files here belong then.

        Args:
            source: the new owner.
            timeline: of its server. Later ones that were seen here are those of copies.
            position: of its server's WAL, in bytes.
            others: sources of files that lie here, besides those that are known.
        """
        known: list[Source] = [source]
        for other in (self.source, *self.former, *others):
            # What a known one covers would cover more than that, where parts of it are unknown.
            if not any(other.is_same(own) for own in known):
                known.append(other)
        refused = {*self.refused_timelines, *range(timeline + 1, self.timeline + 1)} - {timeline}
        same_system = source.system == self.source.system
        return Claim(source, timeline, tuple(known[1:]), tuple(sorted(refused)) if same_system else (), position)

    def to_json(self) -> bytes:
        """The marker's content."""
        return json.dumps({"version": _VERSION} | asdict(self), indent=1).encode()

    @classmethod
    def from_json(cls, content: bytes) -> "Claim":
        """Reads a marker.

        Raises:
            ValueError: it is none.
            NotImplementedError: it is of a later version.
        """
        try:
            document: Any = json.loads(content)
            if document["version"] != _VERSION:
                raise NotImplementedError(f"it is of version {document['version']}, this program knows {_VERSION}")
            return cls(
                Source(**document["source"]),
                int(document["timeline"]),
                tuple(Source(**former) for former in document["former"]),
                tuple(map(int, document["refused_timelines"])),
                int(document.get("position", 0)),
                str(document.get("started", "")),
            )
        except (LookupError, TypeError, RecursionError) as error:
            raise ValueError(type(error).__name__) from None


def _lsn(position: int) -> str:
    """A position in the WAL as PostgreSQL writes it: ``1/6B374D8``."""
    return f"{position >> 32:X}/{position & 0xFFFFFFFF:X}"
