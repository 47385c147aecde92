"""The datasets of this deployment: those of DATASETS_FILE, or the one that the environment describes.

The file is YAML, all of it text, which the parsers of the variables read. It holds no secrets: connections are the
names of variables. Not here: YAML (``document``), the parsers (``values``), what a value means (``environment``).
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from graphlib import CycleError, TopologicalSorter
from typing import Any

from event_archive.config.conninfo import database_named
from event_archive.config.document import read_document
from event_archive.config.environment import ONE_TABLES, PipelineSettings, Settings
from event_archive.config.reading import Entry
from event_archive.config.variables import is_secret, shown, value_of
from event_archive.domain.dataset import TableName
from event_archive.errors import ConfigurationError

_FIELDS = {
    "table": "event_table",
    "time_column": "event_time_column",
    "file_prefix": "event_file_prefix",
    "folder": "archive_folder",
    "retention": "event_retention_period",
    "start": "archive_start_date",
    "cron": "archive_cron",
    "max_days_per_run": "max_days_per_run",
    "dry_run": "dry_run",
    "backlog_alert_days": "backlog_alert_days",
    "export_rate_limit": "export_rate_limit",
    "max_replica_lag": "max_replica_lag",
    "verify_nightly": "verify_nightly",
    "logical_message_prefix": "logical_message_prefix",
    "purge": "event_purge",
    "drop_empty_partitions": "event_drop_empty_partitions",
    "vacuum": "event_vacuum",
}
"""Keys of a dataset, and the fields that they fill."""
_CONNECTIONS = {
    "pg_connection_string_env": "pg_connection_string",
    "export_pg_connection_string_env": "export_pg_connection_string",
}
"""Keys that name a variable."""
_DATABASE = "PG_CONNECTION_STRING"
_ITS_OWN = ("table", "file_prefix", "asset_keys", "after")
"""Keys that make no sense as a default for all."""
KEYS = (*_FIELDS, *_CONNECTIONS, "asset_keys", "after")

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def load_datasets() -> list[PipelineSettings]:
    """The settings of every dataset, in the order of the file; of the only one without a file.

    Raises:
        ConfigurationError: with a line for each mistake: dataset, key, what stands there, what is allowed.
    """
    path = value_of("DATASETS_FILE")
    if not path:
        return [PipelineSettings.load()]
    problems = [
        f"{field.upper()} is set beside DATASETS_FILE, which describes every table: unset it."
        for field in ONE_TABLES
        if value_of(field.upper())
    ]
    entries = _entries(read_document(path), problems.append)
    found = list(_settings(entries, problems.append))
    check_together(entries, found, problems.append)
    if problems:
        lines = "\n".join(f"  {line}" for line in dict.fromkeys(problems))
        raise ConfigurationError(f"The datasets file {path}, or the environment beside it, is not right:\n{lines}")
    return found


def load_for_command() -> list[PipelineSettings]:
    """As ``load_datasets``; without a file, all that commands need is looked at, too, so that all is said at once.

    Raises:
        ConfigurationError: as ``load_datasets`` and ``Settings.load``.
    """
    if not value_of("DATASETS_FILE"):
        Settings.load()
    return load_datasets()


def chosen(datasets: Sequence[PipelineSettings], names: Collection[str]) -> list[PipelineSettings]:
    """Those of some datasets that are named, in the order of the file; all where no name is given.

    Raises:
        ConfigurationError: there is no dataset of such a name.
    """
    known = [settings.entry.name for settings in datasets]
    for name in names:
        if name not in known:
            raise ConfigurationError(f"There is no dataset {name}{_meant(name, known)} {_listed(known)}")
    return [settings for settings in datasets if settings.entry.name in names or not names]


def earlier(datasets: Iterable[PipelineSettings], settings: PipelineSettings) -> list[PipelineSettings]:
    """Those of some datasets whose days are purged before the days of one."""
    return [other for other in datasets if other.entry.name in settings.entry.after]


def archiving(table: TableName, datasets: Iterable[PipelineSettings]) -> list[PipelineSettings]:
    """Those of some datasets that archive a table of the database that PG_CONNECTION_STRING names."""
    here = database_named(value_of(_DATABASE))

    def is_here(entry: Entry) -> bool:
        variable = dict(entry.variables).get("pg_connection_string", _DATABASE)
        return variable == _DATABASE or here == database_named(value_of(variable)) != ""

    return [of for of in datasets if of.dataset.table == table and is_here(of.entry)]


def settings_of(name: str, keys: Mapping[str, object]) -> PipelineSettings:
    """The settings of one dataset that is described elsewhere than in the file, by the keys that the file knows.

    Raises:
        ConfigurationError: with a line for each mistake.
    """
    problems: list[str] = []
    entry = _entry(shown(name), dict(keys), {}, problems.append)
    found = [] if problems else list(_settings([entry], problems.append))
    if problems:
        lines = "\n".join(f"  {line}" for line in problems)
        raise ConfigurationError(f"The dataset {entry.name}, or the environment beside it, is not right:\n{lines}")
    return found[0]


def unknown_key(name: str, key: str, known: Iterable[str]) -> str:
    """What is wrong with a key that does not exist: not its value, which may be a secret."""
    return f"{name}.{shown(key)} is no key of a dataset{_meant(key, known)}"


def _entries(document: dict[str, Any], problem: Callable[[str], None]) -> list[Entry]:
    for key in document:
        if key not in ("defaults", "datasets"):
            problem(f"{shown(key)} is no key of the file{_meant(key, ('defaults', 'datasets'))}")
    defaults = document.get("defaults") or {}
    if not isinstance(defaults, dict):
        problem("defaults must be keys and values.")
        defaults = {}
    for key in _ITS_OWN:
        if key in defaults:
            problem(f"defaults.{key}: each dataset has its own.")
            del defaults[key]
    list(_texts("defaults", defaults, problem))
    return [_entry(shown(name), keys, defaults, problem) for name, keys in document["datasets"].items()]


def _entry(name: str, keys: Any, defaults: dict[str, Any], problem: Callable[[str], None]) -> Entry:
    if not _NAME.fullmatch(name):
        problem(f"{name!r} is no name of a dataset: lower-case letters, digits and underscores, a letter first.")
    if not isinstance(keys, dict):
        problem(f"{name} must be keys and values, at least table.")
        return Entry(name)
    if "table" not in keys:
        problem(f"{name}.table is missing: which table is it?")
    own = dict(_texts(name, keys, problem))
    # What is wrong with a default was said before.
    inherited = dict(_texts("defaults", defaults, lambda _: None))
    texts = inherited | own
    if texts.get("asset_keys", "bare") != "bare":
        problem(f"{name}.asset_keys holds {texts['asset_keys']!r}: it must be bare, or not be there.")
    variables = {field: texts[key] for key, field in _CONNECTIONS.items() if key in texts}
    for key, field in _CONNECTIONS.items():
        if field in variables and not _VARIABLE.fullmatch(variables[field]):
            problem(f"{name}.{key} must be the name of an environment variable.")
    values = {key: text for key, text in ({"file_prefix": name} | texts).items() if key in _FIELDS}
    unread = set(ONE_TABLES)
    # A replica is inherited with its database, or not at all.
    database = texts.get("pg_connection_string_env", _DATABASE)
    if "export_pg_connection_string_env" not in own and database != inherited.get(
        "pg_connection_string_env", _DATABASE
    ):
        variables.pop("export_pg_connection_string", None)
    if "export_pg_connection_string" not in variables and database != _DATABASE:
        unread.add("export_pg_connection_string")
    return Entry(
        name,
        values=tuple(
            (_FIELDS[key], f"{name if key in own or key not in defaults else 'defaults'}.{key}", text)
            for key, text in values.items()
        ),
        variables=tuple(variables.items()),
        unread=frozenset(unread),
        after=_after(name, keys, problem),
        bare_keys="asset_keys" in texts,
    )


def _texts(name: str, keys: dict[str, Any], problem: Callable[[str], None]) -> Iterator[tuple[str, str]]:
    """The keys that hold text, which is all but ``after``."""
    for key, value in keys.items():
        if key not in KEYS:
            problem(unknown_key(name, key, KEYS))
        elif key == "after":
            continue
        elif not isinstance(value, str) or not value.strip():
            problem(f"{name}.{key} must hold one value.")
        elif is_secret(value):
            problem(
                f"{name}.{key} looks like a connection string, and the file is no place for secrets. Put it into an "
                "environment variable, and write pg_connection_string_env: NAME_OF_THE_VARIABLE."
            )
        else:
            yield key, value.strip()


def _after(name: str, keys: dict[str, Any], problem: Callable[[str], None]) -> tuple[str, ...]:
    others = keys.get("after", [])
    if not isinstance(others, list) or not all(isinstance(other, str) for other in others):
        problem(f"{name}.after must be a list of datasets: [OTHER].")
        return ()
    return tuple(dict.fromkeys(others))


def _settings(entries: Iterable[Entry], problem: Callable[[str], None]) -> Iterator[PipelineSettings]:
    for entry in entries:
        settings, found = PipelineSettings.attempt(entry)
        for line in found:
            problem(line)
        if settings is not None:
            if settings.event_purge == "drop" and entry.after:
                problem(
                    f"{entry.name} has purge: drop and after: a partition's days go together, and cannot wait singly."
                )
            yield settings


def check_together(entries: Sequence[Entry], found: Sequence[PipelineSettings], problem: Callable[[str], None]) -> None:
    """Says what is wrong between datasets.

    Args:
        entries: of all datasets.
        found: the settings of those that are right by themselves.
        problem: is told of each mistake.
    """
    names = [entry.name for entry in entries]
    for entry in entries:
        for other in entry.after:
            if other not in names:
                problem(f"{entry.name}.after names {shown(other)}, which is no dataset{_meant(other, names)}")
    try:
        TopologicalSorter({entry.name: entry.after for entry in entries}).prepare()
    except CycleError as error:
        problem(f"after goes round in a circle: {' after '.join(reversed(error.args[1]))}.")
    bare = [entry.name for entry in entries if entry.bare_keys]
    if len(bare) > 1:
        problem(f"{' and '.join(bare)} have asset_keys: bare; one dataset at most can.")
    files: dict[tuple[str, str], str] = {}
    tables: dict[tuple[str, str], str] = {}
    for settings in found:
        name, dataset = settings.entry.name, settings.dataset
        connection = dict(settings.entry.variables).get("pg_connection_string", _DATABASE)
        # Two variables may name one database.
        database = database_named(value_of(connection)) or connection
        if (first := files.setdefault((dataset.folder, dataset.file_prefix), name)) != name:
            problem(f"{first} and {name} have one folder and file_prefix, {dataset.folder}/{dataset.file_prefix}.")
        if (first := tables.setdefault((database, str(dataset.table)), name)) != name:
            problem(f"{first} and {name} are one table, {dataset.table}.")


def _meant(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name, list(known), 1)
    return f"; did you mean {close[0]}?" if close else "."


def _listed(known: Sequence[str]) -> str:
    return f"There are {', '.join(known)}." if any(known) else "There is one dataset, without a name: no DATASETS_FILE."
