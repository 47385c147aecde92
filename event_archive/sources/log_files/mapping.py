"""Which field of an entry fills which column of ``logs``: pino's fields, or those that a YAML file names.

The columns are taken out of the stored entry by PostgreSQL, as the entry is merged. Not here: the time and the id of an
entry, which are read before.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from psycopg import sql

from event_archive.config.document import TextLoader
from event_archive.config.variables import shown
from event_archive.errors import ConfigurationError

Field = tuple[str, ...]
"""The keys that lead to a field."""

_LEVELS = {"10": "trace", "20": "debug", "30": "info", "40": "warn", "50": "error", "60": "fatal"}
_PINO: dict[str, Sequence[str]] = {
    "timestamp": ("timestamp", "time"),
    "level": ("level",),
    "method": ("req.method", "method"),
    "url": ("req.url", "url"),
    "query": ("req.query", "query"),
    "headers": ("req.headers", "headers"),
    "params": ("req.params", "params"),
    "context": ("context",),
    "message": ("message", "msg"),
    "auth_user_id": ("authUserId", "auth_user_id", "auth.userId", "req.user.id"),
    "pid": ("pid",),
    "hostname": ("hostname",),
    "remote_address": ("req.remoteAddress", "remoteAddress"),
    "remote_port": ("req.remotePort", "remotePort"),
    "processing_time_ms": ("processingTimeMs", "processing_time_ms", "responseTime"),
    "cache_hit": ("cacheHit", "cache_hit"),
    "document_count": ("documentCount", "document_count"),
    "last_updated": ("lastUpdated", "last_updated"),
    "request_id": ("req.id", "requestId", "reqId"),
}
_TIME, _LEVEL, _LEVEL_NAMES = "timestamp", "level", "levels"


@dataclass(frozen=True, slots=True)
class LogMapping:
    """Which fields fill which columns.

    Attributes:
        fields: of each column, the fields that may fill it, the first that holds something.
        levels: names of levels by what stands in their place.
    """

    fields: Mapping[str, Sequence[Field]]
    levels: Mapping[str, str]

    @property
    def times(self) -> Sequence[Field]:
        """The fields that may hold an entry's time, the first one first."""
        return self.fields[_TIME]

    def computed(self) -> list[tuple[str, sql.SQL]]:
        """Each column and the SQL expression that takes it out of ``document``; put together once, for all batches."""
        return [(name, _together(self._expression(name, of))) for name, of in self.fields.items() if name != _TIME]

    def _expression(self, column: str, fields: Sequence[Field]) -> sql.Composed:
        make = _EXPRESSIONS.get(column, _text)
        found: sql.Composed = _first([make(field) for field in fields])
        if column != _LEVEL or not self.levels:
            return found
        names = sql.SQL(" ").join(
            sql.SQL("WHEN {} THEN {}").format(sql.Literal(number), sql.Literal(name))
            for number, name in self.levels.items()
        )
        return sql.SQL("CASE {level} {names} ELSE {level} END").format(level=found, names=names)


def _together(expression: sql.Composed) -> sql.SQL:
    return sql.SQL(expression.as_string())


def _first(expressions: Sequence[sql.Composed]) -> sql.Composed:
    return sql.SQL("COALESCE({})").format(sql.SQL(", ").join(expressions))


def _arguments(field: Field) -> sql.Composed:
    return sql.SQL("document, {}").format(sql.SQL(", ").join(sql.Literal(key) for key in field))


def _text(field: Field) -> sql.Composed:
    return sql.SQL("pg_catalog.jsonb_extract_path_text({})").format(_arguments(field))


def _json(field: Field) -> sql.Composed:
    return sql.SQL("NULLIF(pg_catalog.jsonb_extract_path({}), 'null'::pg_catalog.jsonb)").format(_arguments(field))


def _matching(pattern: str, kind: str) -> Callable[[Field], sql.Composed]:
    """A field whose text is of a form that the type is sure to take; anything else stays in the entry alone."""

    def make(field: Field) -> sql.Composed:
        return sql.SQL("CASE WHEN pg_catalog.regexp_like({text}, {pattern}) THEN {text}::{kind} END").format(
            text=_text(field),
            pattern=sql.Literal(pattern),
            kind=sql.SQL(kind),
        )

    return make


def _instant(field: Field) -> sql.Composed:
    return sql.SQL(
        "CASE WHEN pg_catalog.regexp_like({text}, {iso}) AND pg_catalog.pg_input_is_valid({text}, 'timestamptz') "
        "THEN {text}::pg_catalog.timestamptz WHEN pg_catalog.regexp_like({text}, {milliseconds}) "
        "THEN pg_catalog.to_timestamp({text}::pg_catalog.float8 / 1000) END"
    ).format(
        text=_text(field),
        iso=sql.Literal(r"^\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d(:?\d\d)?)$"),
        milliseconds=sql.Literal(r"^\d{12,13}$"),
    )


_INTEGER = _matching(r"^-?\d{1,18}$", "pg_catalog.int8")
_NUMBER = _matching(r"^-?\d{1,18}(\.\d{1,18})?([eE][-+]?\d{1,2})?$", "pg_catalog.float8")
_EXPRESSIONS: dict[str, Callable[[Field], sql.Composed]] = {
    "query": _json,
    "headers": _json,
    "params": _json,
    "pid": _INTEGER,
    "remote_port": _INTEGER,
    "document_count": _INTEGER,
    "processing_time_ms": _NUMBER,
    "cache_hit": _matching("^(true|false)$", "pg_catalog.bool"),
    "last_updated": _instant,
}


def load_mapping(path: Path | None) -> LogMapping:
    """The mapping of a YAML file; pino's without one. Columns that the file leaves out are empty.

    Raises:
        ConfigurationError: it cannot be read, or is no mapping of columns to fields.
    """
    if path is None:
        return LogMapping({column: [_field(of) for of in fields] for column, fields in _PINO.items()}, _LEVELS)
    try:
        given = yaml.load(path.read_text(encoding="utf-8-sig"), Loader=TextLoader)  # noqa: S506 (makes text alone)
    except ConfigurationError as error:
        raise ConfigurationError(f"LOGS_MAPPING: {shown(str(path))} is not right: {error}.") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no YAML"
        raise ConfigurationError(f"LOGS_MAPPING: {shown(str(path))} cannot be read: {reason}.") from None
    problems = _problems(given)
    if problems:
        raise ConfigurationError(f"LOGS_MAPPING: {shown(str(path))} is not right: " + " ".join(problems))
    levels = given.pop(_LEVEL_NAMES, _LEVELS)
    fields = {
        column: [_field(of) for of in ([given[column]] if isinstance(given[column], str) else given[column])]
        for column in given
    }
    return LogMapping(fields, levels)


def _problems(given: Any) -> list[str]:
    if not isinstance(given, dict):
        return ["It must be columns and the fields that fill them, like `message: msg`."]
    problems = []
    if not given.get(_TIME):
        problems.append("It must name the field of `timestamp`: an entry needs a time.")
    levels = given.get(_LEVEL_NAMES, {})
    if not isinstance(levels, dict) or not all(isinstance(name, str) for name in levels.values()):
        problems.append('`levels` must be values and names, like `"30": info`.')
    for column, fields in given.items():
        if column == _LEVEL_NAMES:
            continue
        if column not in _PINO:
            problems.append(f"`{column}` is none of the columns {', '.join(_PINO)}.")
        named = [fields] if isinstance(fields, str) else fields
        if not isinstance(named, list) or not named or not all(isinstance(of, str) and of for of in named):
            problems.append(f"`{column}` must name a field, like req.method or /http.method, or a list of them.")
    return problems


def _field(text: str) -> Field:
    """``req.method``; or, where names have dots in them, a JSON Pointer (RFC 6901): ``/http.method``."""
    if text.startswith("/"):
        return tuple(key.replace("~1", "/").replace("~0", "~") for key in text[1:].split("/"))
    return tuple(text.split("."))
