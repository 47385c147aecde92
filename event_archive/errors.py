"""The errors that people see, in one small hierarchy. Not here: how a front end shows them.

A message says what happened, to which day and table, what was expected and found, and what to do. It never holds a
secret: a connection string, a key, a token or a signed URL.
"""

import re
import traceback
from pathlib import Path

# With the separators of lines and paragraphs, and what turns the direction of what follows.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def printable(text: str, *, lines: bool = False) -> str:
    """A text that others wrote, its control characters as escapes: a terminal would obey them.

    Args:
        text: as a file's name, the reason of a hold.
        lines: whether line ends stay.
    """
    return _CONTROL.sub(lambda found: found[0] if lines and found[0] == "\n" else repr(found[0])[1:-1], text)


class EventArchiveError(Exception):
    """Base of all that this package raises on purpose.

    Attributes:
        transient: True where the same call may succeed later unchanged, so that a retry makes sense.
        problem: what happened, without ``outcome`` and ``advice``.
        outcome: what became of the work, as ``Nothing was deleted.``; empty where ``problem`` says it, or nobody does.
        advice: what to do, likewise.
    """

    transient = False

    def __init__(self, problem: str, *, outcome: str = "", advice: str = "") -> None:
        super().__init__(" ".join(filter(None, (problem, outcome, advice))))
        self.problem, self.outcome, self.advice = (printable(part, lines=True) for part in (problem, outcome, advice))

    def __str__(self) -> str:
        """The message, fit for a terminal: others may have written a part of it."""
        return printable(super().__str__(), lines=True)


class ConfigurationError(EventArchiveError):
    """A setting, an argument or the environment is wrong, and has to be changed."""


class NotAgedError(ConfigurationError):
    """The day is not (yet) one that may be archived."""


class IntegrityError(EventArchiveError):
    """What was read contradicts what was recorded. Nothing was deleted, and it is never retried."""


class NewerFormError(IntegrityError):
    """A newer version of this program wrote it: this one cannot read it, and must not write over it."""


class RefusedError(EventArchiveError):
    """The database or the lake can be reached but refuses: a permission, a missing table, a foreign key."""


class NoSuchTableError(ConfigurationError, RefusedError):
    """The table or column that a setting names is not there, or is of another kind."""


class SeveralServersError(ConfigurationError, RefusedError):
    """A proxy sends queries of one transaction to several servers."""


class OtherSourceError(ConfigurationError):
    """The files in the lake belong to another table or database than the one that is archived."""


class ClocksError(RefusedError):
    """This machine's clock and the database's are far apart."""


class RecordsError(RefusedError):
    """Dagster's own records cannot be opened, read or written."""


class UnreachableError(EventArchiveError):
    """The database or the lake did not answer, or broke off, within the configured waits."""

    transient = True


class BusyError(EventArchiveError):
    """Another transaction kept a lock for longer than we wait, or a statement took longer than it may."""

    transient = True


class LockedError(BusyError):
    """Another command is working on the day: purge, append, hold or restore. The next run does what is left."""

    transient = False


class WaitingError(EventArchiveError):
    """The day comes after days of another dataset that still have rows. A later run does it."""


class FileChangedError(EventArchiveError):
    """The file is not, or no longer, the one that this call was conditional on: somebody else was faster."""

    transient = True


class UnexpectedError(EventArchiveError):
    """An error that nobody foresaw, told by its kind and place alone: its own words may hold anything."""

    @classmethod
    def of(cls, error: Exception) -> "UnexpectedError":
        """What can be told of an error."""
        return cls(f"{kind_and_place(error)}, which event_archive does not know. Report it as a bug.")


def kind_and_place(error: Exception) -> str:
    """All that may be told of an error whose own words may hold a secret."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {Path(frame.filename).name}, line {frame.lineno}"
