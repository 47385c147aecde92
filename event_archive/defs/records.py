"""Dagster's own records, opened for a command: the instance of DAGSTER_HOME, and what to say where it fails.

Here: opening them, and the words of their errors. Not here: what is read from them or written to them; where they lie
(``instance``, the class that ``dagster.yaml`` names); what an archive recorded of a file (``domain.record``).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from yaml import MarkedYAMLError, YAMLError

from event_archive.config.environment import dagster_home
from event_archive.defs.internals import CheckError, DeserializationError
from event_archive.errors import ConfigurationError, RecordsError


@contextmanager
def instance_of_environment() -> Iterator[dg.DagsterInstance]:
    """The Dagster instance of DAGSTER_HOME, or one that is forgotten afterwards.

    Raises:
        ConfigurationError: DAGSTER_HOME is no folder, or its dagster.yaml is wrong.
        RecordsError: the records cannot be opened.
    """
    home = dagster_home()
    try:
        instance = dg.DagsterInstance.from_config(home) if home else dg.DagsterInstance.ephemeral()
    except (dg.DagsterInvalidConfigError, YAMLError, CheckError, UnicodeError) as error:
        raise ConfigurationError(
            f"{home}/dagster.yaml is not right: {_mistake(error)}. Correct it, or unset DAGSTER_HOME: then runs of the "
            "command line leave no records in Dagster."
        ) from None
    except records_errors() as error:
        raise out_of_reach(error) from None
    with instance:
        yield instance


def records_errors() -> tuple[type[Exception], ...]:
    """What Dagster's records may raise where they are opened, read or written."""
    # Late: half a second, which nobody needs whose records lie elsewhere, or are in order.
    from dagster_postgres.utils import DagsterPostgresException

    return (
        dg.DagsterError,
        DagsterPostgresException,
        # An event that another version of Dagster wrote.
        CheckError,
        DeserializationError,
        SQLAlchemyError,
        YAMLError,
        ImportError,
        OSError,
    )


def _mistake(error: Exception) -> str:
    """What is wrong with a dagster.yaml, and where; not what stands there, a password perhaps."""
    if isinstance(error, MarkedYAMLError) and error.problem_mark:
        return f"its line {error.problem_mark.line + 1} is no YAML"
    if isinstance(error, YAMLError | UnicodeError):
        return "it is no YAML in UTF-8"
    if not isinstance(error, dg.DagsterInvalidConfigError):
        return "it holds something else than keys and values, or names a class that cannot be imported"
    found = {(_place(each), each.reason.name == "FAILED_POST_PROCESSING") for each in error.errors}
    wrong = [
        f"a variable that it names under {place} is not set"
        if unset
        else f"Dagster does not take what stands at {place}"
        for place, unset in sorted(found)
    ]
    return "; ".join(wrong) or "Dagster does not take some of its keys beside others"


def _place(error: Any) -> str:
    """The keys that lead to a mistake, of the part of the file that Dagster was looking at."""
    return ".".join(str(of.field_name) for of in error.stack.entries if hasattr(of, "field_name")) or "its top"


def out_of_reach(error: BaseException) -> RecordsError:
    """The error that people see for one of ``records_errors()``."""
    return RecordsError(
        f"Dagster's own records are out of reach: {words(error)}. Check DAGSTER_HOME, the dagster.yaml in it, and the "
        "DAGSTER_PG_ variables."
    )


def unwritable(error: BaseException, subject: str) -> RecordsError:
    """The error that people see where what was done to a day cannot be recorded.

    Args:
        error: one of ``records_errors()``.
        subject: table and day.
    """
    return RecordsError(
        f"{subject}: what was done to this day could not be written to Dagster's records: {words(error)}. No row was "
        "deleted that is not in the day's file. Check DAGSTER_HOME, then run the day again, which records it."
    )


def words(error: BaseException) -> str:
    """The text of an error, without what may hold a secret: of a database's error only what its driver says."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, DBAPIError):
            return " ".join(str(cause.orig).split())
        cause = cause.__cause__ or cause.__context__
    # The first would repeat what stands in dagster.yaml, a password perhaps.
    if isinstance(error, dg.DagsterInvalidConfigError | YAMLError | SQLAlchemyError):
        return type(error).__name__
    return " ".join(str(error).split()).rstrip(".?")
