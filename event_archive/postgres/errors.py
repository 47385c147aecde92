"""What PostgreSQL's errors mean to people: from an SQLSTATE to what happened and what to do, without any row's values.

Not here: errors of connecting (``connecting``), the advice for a certain operation.
"""

import re
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
_READ_ONLY = "{} must name the primary, not a replica, and a role without default_transaction_read_only."

_TOO_MANY_CONNECTIONS, _PROTOCOL_VIOLATION, _INTERNAL_ERROR = "53300", "08P01", "XX000"
_DISK_FULL = "53100"
_OF_ROW_SECURITY = "check_enable_rls"
"""The function of PostgreSQL's that refuses rather than leave rows out."""
_ROW_SECURITY = (
    "Row security may hide rows of that table from the role in {}: connect as one with BYPASSRLS, or as the table's "
    "owner where it is not forced, or disable it on the table."
)
_POOLER = (
    "A pooler in statement mode knows no transaction: let it be in transaction or session mode, or connect past it."
)
# PgBouncer has one code for all of its errors, and never translates them.
_POOLER_WITHOUT_A_SERVER = (
    "query_wait_timeout",
    "server conn crashed?",
    "server connection closed",
    "server login has been failing",
    "pgbouncer cannot connect to server",
    "no more connections allowed",
    "invalid server parameter",
)
_STATEMENT_MODE = ("transaction blocks not allowed in statement pooling mode", "Long transactions not allowed")
"""As PgBouncer says it, and as old ones did."""
_OF_A_POOLERS_CLOCK = ("query timeout", "query_timeout", "idle transaction timeout", "transaction timeout")
_POOLERS_CLOCK = (
    "The pooler ended it: raise its query_timeout, idle_transaction_timeout and transaction_timeout, which have to "
    "outlast the reading of a day's file, or connect past it"
)
_DATA_EXCEPTION, _BAD_COPY_FORMAT = "22", "22P04"
_DEPENDENT_OBJECTS = "2BP01"
_RAISED_BY_A_FUNCTION = ("P0", "38")
"""Classes of PL/pgSQL's errors and of those that functions in other languages raise."""
_NOT_OF_A_FUNCTION = ("08", "40", "53", "55", "57", "XX")
"""Classes of errors that a statement of our own gets with a context: of a lock, the connection, the server."""
# What PostgreSQL asks where a row goes that others may refer to, or comes that refers to another.
_OF_A_FOREIGN_KEY = re.compile(r'SELECT 1 FROM (?:ONLY )?(?:"[^"]+"\.)?"[^"]+" x WHERE .* FOR KEY SHARE OF x')
_FOREIGN_KEY = (
    "PostgreSQL checks a foreign key as the owner of the table that it looks into: GRANT that owner what it lacks, "
    "USAGE on the schemas of both tables, and SELECT and UPDATE on that table, among it."
)
# The functions of PostgreSQL's own languages that raise what a function's author wrote, under any SQLSTATE.
_RAISING = ("exec_stmt_raise", "PLy_output", "PLy_elog_impl", "do_util_elog", "pltcl_elog")
# The words of a context are in the server's language: translations have the name of the table behind COPY or before it,
# and that of the function behind PL/pgSQL or before it.
_OF_A_COPY = re.compile(r"(?:COPY )?event_archive_(?:readback|verbatim|landing)")
_NAME = r"""(?:"[^"\n]*"|[^\s()"])+\([^()\n'"]*\)|inline_code_block"""
_PLPGSQL = re.compile(
    rf"""^(?:(?:\w+ )?PL/pgSQL(?:関数|-\w+ | \w+ | )(?:(?P<name>{_NAME})|"(?P<quoted>{_NAME})")|"""
    rf"""(?P<first>{_NAME}) PL/pgSQL \w+)[^\d\n]*(?P<line>\d+)""",
    re.MULTILINE,
)
_BUSY = {
    "55P03": "Somebody holds a lock on the table, or on rows of it",
    "57014": "The statement took longer than it may, or was cancelled",
    "40P01": "Two transactions waited for each other",
    "40001": (
        "Another transaction was faster, or, on a replica, replay took rows away that were being read "
        "(max_standby_streaming_delay, hot_standby_feedback)"
    ),
}


def refusal(
    error: psycopg.Error, subject: str, advice: Advice, *, hide: Callable[[str], str], variable: str
) -> EventArchiveError:
    """The error that people see of one of PostgreSQL's. It is not to be chained: its detail may repeat a row.

    Args:
        error: PostgreSQL's.
        subject: what it is about: the table, the day.
        advice: how the message ends.
        hide: takes secrets out of PostgreSQL's words.
        variable: the setting that names the server.
    """
    code = error.sqlstate or ""
    message = f"{subject}: PostgreSQL says: {hide(without_values(error))}" + (f" [SQLSTATE {code}]" if code else "")
    # What a function wanted is its author's business: our advice would accuse the wrong party, or call it passing.
    of_a_function = RefusedError(f"{message}. {advice.outcome} Look at that function, or into PostgreSQL's log.")
    if _raised_by_a_function(error):
        return of_a_function
    if code in _BUSY:
        return BusyError(f"{message}. {advice.outcome} {_BUSY[code]}; {advice.again}.")
    words = error.diag.message_primary or ""
    if code == _PROTOCOL_VIOLATION and words.startswith(_OF_A_POOLERS_CLOCK):
        # It may have ended a COMMIT, which goes through all the same.
        return UnreachableError(f"{message}. {_POOLERS_CLOCK}. {advice.lost}")
    if code == _PROTOCOL_VIOLATION and words.startswith(_POOLER_WITHOUT_A_SERVER):
        return UnreachableError(f"{message}. The pooler is full, or PostgreSQL is away. {advice.lost}")
    lost = code[:2] in ("", "08") or code.startswith("57P") or code == _TOO_MANY_CONNECTIONS
    # Of a pooler whose server goes away one statement has two results: an internal error of psycopg's, without a code.
    broken_off = isinstance(error, psycopg.OperationalError | psycopg.InternalError) and lost
    if broken_off and not words.startswith(_STATEMENT_MODE):
        return UnreachableError(f"{message}. {advice.lost}")
    if in_a_function(error):
        return of_a_function
    privileges = advice.privileges
    if error.diag.source_function == _OF_ROW_SECURITY:
        privileges = _ROW_SECURITY.format(variable)
    elif _of_a_foreign_key(error):
        privileges = _FOREIGN_KEY
    remedies = {
        "42501": privileges,
        "25006": _READ_ONLY.format(variable),
        _PROTOCOL_VIOLATION: _POOLER,
        _DISK_FULL: "Make room on the server's disk, then try again.",
        **advice.by_code,
    }
    return RefusedError(f"{message}. {advice.outcome} {remedies.get(code, '')}".rstrip())


def without_values(error: psycopg.Error) -> str:
    """What PostgreSQL says, its hint included, but for what may repeat a row's values.

    Those are DETAIL, but where it says what depends on an object, and CONTEXT always, and the message itself where it
    is about a value (class 22) or comes out of a function, which may have made any value a name. What happened is then
    told by the SQLSTATE's name.
    """
    diag, code = error.diag, error.sqlstate or ""
    if not code:
        return " ".join(str(error).split()).rstrip(".")
    if _raised_by_a_function(error):
        return f"a function raised an exception{_function(diag.context or '')}"
    if in_a_function(error):
        return f"{_condition(error)} in a function{_function(diag.context or '')}"
    if code == _INTERNAL_ERROR:
        return f"{_condition(error)} in {diag.source_function} ({diag.source_file})"
    names = {
        "table": diag.table_name,
        "column": diag.column_name,
        "constraint": diag.constraint_name,
        "type": diag.datatype_name,
    }
    if code.startswith(_DATA_EXCEPTION) and code != _BAD_COPY_FORMAT:
        return _condition(error) + "".join(f", {kind} {name}" for kind, name in names.items() if name)
    words = diag.message_primary or _condition(error)
    if code == _DEPENDENT_OBJECTS:
        # Its detail names objects, no values; its hint is CASCADE, which nobody is to be advised.
        first, *more = (diag.message_detail or "").splitlines() or [""]
        return f"{words}: {first}{' …' if more else ''}".removesuffix(": ")
    constraint = diag.constraint_name
    if constraint and constraint not in words:
        words += f", constraint {constraint}"
    return f"{words}. {diag.message_hint.rstrip('.')}" if diag.message_hint else words


def _raised_by_a_function(error: psycopg.Error) -> bool:
    """Whether a function's author raised an error, under whatever SQLSTATE: a trigger's that refuses a row, say."""
    return error.diag.source_function in _RAISING or (error.sqlstate or "").startswith(_RAISED_BY_A_FUNCTION)


def is_of_a_function(error: psycopg.Error) -> bool:
    """Whether a function's author raised an error, or it comes out of a function."""
    return _raised_by_a_function(error) or in_a_function(error)


def in_a_function(error: psycopg.Error) -> bool:
    """Whether an error comes out of a function: a trigger's, a check's, one that computes a column.

    Of what this program sends, nothing else but a COPY gives an error a context, and waits and the end of a session. A
    value that does not parse may have one of its own, as JSON has.
    """
    if _of_a_foreign_key(error):
        return False
    context, code = error.diag.context or "", error.sqlstate or ""
    ours = not context or is_of_a_copy(error) or code.startswith(_NOT_OF_A_FUNCTION)
    if code.startswith(_DATA_EXCEPTION):
        ours = not _function(context)
    return bool(error.diag.internal_query) or not ours


def is_of_a_copy(error: psycopg.Error) -> bool:
    """Whether an error comes out of a COPY into a temporary table of this program, and of no function that it calls."""
    return bool(_OF_A_COPY.match(error.diag.context or ""))


def _of_a_foreign_key(error: psycopg.Error) -> bool:
    """Whether PostgreSQL's own check of a foreign key lacked a privilege."""
    context = error.diag.context or ""
    asked = error.diag.internal_query or context
    # Within a function, the context has a line of that one, too.
    return error.sqlstate == "42501" and bool(_OF_A_FOREIGN_KEY.search(asked)) and "\n" not in context


def _condition(error: psycopg.Error) -> str:
    """The name of an error's SQLSTATE in words: ``invalid text representation``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__.rstrip("_")).lower()


def _function(context: str) -> str:
    """The function that raised an error and the line in it, as the context names them."""
    found = _PLPGSQL.search(context)
    if found is None:
        return ""
    return f": {found['name'] or found['quoted'] or found['first']}, line {found['line']}"
