"""What PostgreSQL's errors mean to people: from an SQLSTATE to what happened and what to do.

Not here: errors of connecting, which have none; the advice for a certain operation.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import psycopg

from event_archive.errors import BusyError, EventArchiveError, RefusedError, UnreachableError


@dataclass(frozen=True, slots=True)
class Advice:
    """How the message of an error ends: the caller knows what was not done, and what to do about it.

    Attributes:
        outcome: what was not done.
        again: who tries again what may succeed unchanged.
        lost: what follows where the connection broke.
        privileges: those that the role needs.
        by_code: what to do, by SQLSTATE.
    """

    outcome: str = "Nothing was changed."
    again: str = "try again"
    lost: str = "Try again."
    privileges: str = "GRANT the role what it lacks, or connect as another role."
    by_code: Mapping[str, str] = field(default_factory=dict)


NO_ADVICE = Advice()
# The detail of these errors names a key, which helps; that of any other may repeat a whole row.
_DETAIL_IS_A_KEY = ("23503", "23505", "23P01")
_READ_ONLY = (
    "PG_CONNECTION_STRING must name the primary, not a replica, and a role without default_transaction_read_only."
)

_OUT_OF_MEMORY, _TOO_MANY_CONNECTIONS = "53200", "53300"
_BUSY = {
    "55P03": "Somebody holds a lock on the table",
    "57014": "The statement took longer than it may, or was cancelled",
    "40P01": "Two transactions waited for each other",
    "40001": (
        "Another transaction was faster, or, on a replica, replay took rows away that were being read "
        "(max_standby_streaming_delay, hot_standby_feedback)"
    ),
}


def refusal(error: psycopg.Error, subject: str, advice: Advice, *, hide: Callable[[str], str]) -> EventArchiveError:
    """The error that people see of one of PostgreSQL's.

    Args:
        error: PostgreSQL's.
        subject: what it is about: the table, the day.
        advice: how the message ends.
        hide: takes secrets out of PostgreSQL's words.
    """
    words = hide(error.diag.message_primary or " ".join(str(error).split()))
    code = error.sqlstate or ""
    detail = f" ({error.diag.message_detail})" if code in _DETAIL_IS_A_KEY and error.diag.message_detail else ""
    message = f"{subject}: PostgreSQL says: {words}{detail}" + (f" [SQLSTATE {code}]" if code else "")
    if code in _BUSY:
        return BusyError(f"{message}. {advice.outcome} {_BUSY[code]}; {advice.again}.")
    lost = code[:2] in ("", "08") or code.startswith("57P") or code in (_OUT_OF_MEMORY, _TOO_MANY_CONNECTIONS)
    if isinstance(error, psycopg.OperationalError) and lost:
        return UnreachableError(f"{message}. {advice.lost}")
    what_to_do = {"42501": advice.privileges, "25006": _READ_ONLY, **advice.by_code}.get(code, "")
    return RefusedError(f"{message}. {advice.outcome} {what_to_do}".rstrip())
