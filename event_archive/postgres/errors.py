"""What PostgreSQL's refusals mean to people. Here: from an error's code to what happened and what to do.

Not here: errors of connecting, which have no code.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import psycopg

from event_archive.errors import BusyError, EventArchiveError, RefusedError, UnreachableError


@dataclass(frozen=True, slots=True)
class Advice:
    """How the message of an error ends: for archive and purge, unless a verb says otherwise.

    Attributes:
        outcome: what was not done.
        again: who tries again what may succeed unchanged.
        lost: what follows where the connection broke.
        privileges: those that the role needs.
        by_code: what to do, by SQLSTATE.
    """

    outcome: str = "Nothing was deleted."
    again: str = "the next run tries again"
    lost: str = "Nothing was deleted that is not archived; the next run goes on."
    privileges: str = (
        "The role needs USAGE on the schema, SELECT and DELETE on the table, SELECT on event_archive_hold where that "
        "exists, and TEMPORARY on the database: GRANT them, or connect as another role. A role that row-level security "
        "hides rows from may not archive."
    )
    by_code: Mapping[str, str] = field(
        default_factory=lambda: {
            "23503": (
                "Rows of another table still refer to rows of this day: remove or archive those first, or drop the "
                "foreign key."
            )
        }
    )


ARCHIVE_ADVICE = Advice()
# PostgreSQL's own words of other violations repeat the whole row.
_DETAIL_IS_A_KEY = ("23503", "23505", "23P01")
_READ_ONLY = (
    "PG_CONNECTION_STRING must name the primary, not a replica, and a role without default_transaction_read_only."
)

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
    told = f"{subject}: PostgreSQL says: {words}{detail}" + (f" [SQLSTATE {code}]" if code else "")
    if code in _BUSY:
        return BusyError(f"{told}. {advice.outcome} {_BUSY[code]}; {advice.again}.")
    lost = code[:2] in ("", "08") or code.startswith("57P") or code in ("53200", "53300")
    if isinstance(error, psycopg.OperationalError) and lost:
        return UnreachableError(f"{told}. {advice.lost}")
    what_to_do = {"42501": advice.privileges, "25006": _READ_ONLY, **advice.by_code}.get(code, "")
    return RefusedError(f"{told}. {advice.outcome} {what_to_do}".rstrip())
