"""The environment variables of the archive, read and validated here and nowhere else.

White space around a value is stripped; a variable that is empty then counts as absent.

``PipelineSettings`` shapes the pipeline and holds no secret, so that definitions load where none is set; ``Settings``
adds what reaches PostgreSQL and the lake; ``ListenerSettings`` says who hears of failures, ``InstanceSettings`` where
Dagster keeps its records. Not here: the variables of the sources (``sources``), how a value is parsed (``values``),
connecting to anything.
"""

import os
import re
from datetime import date, timedelta
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
)

from event_archive.config.conninfo import check_conninfo
from event_archive.config.reading import ENVIRONMENT, Entry, EnvironmentSettings
from event_archive.config.values import (
    check_azure_connection_string,
    check_http_url,
    lower_case,
    parse_account_url,
    parse_budget,
    parse_container,
    parse_cron,
    parse_file_prefix,
    parse_folder,
    parse_host,
    parse_identifier,
    parse_path,
    parse_size,
    parse_start,
    parse_storage_account,
    parse_table,
)
from event_archive.config.variables import output_is_json, shown, shown_quoted, value_of
from event_archive.domain.dataset import Dataset, Purge, TableName
from event_archive.domain.days import Retention
from event_archive.errors import ConfigurationError
from event_archive.paths import is_folder

# Of two names' letters, the share that is the same in the same order (difflib's ratio). It finds a name of ours
# with a letter left out or doubled, and one of nine letters or more with a letter replaced.
_SIMILARITY = 0.88
_DEFAULT_TABLE = 'public."Event"'
_LAKES = ("AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_ACCOUNT_URL", "ARCHIVE_LOCAL_PATH")
ONE_TABLES = (
    *("event_table", "event_time_column", "event_file_prefix", "event_retention_period"),
    *("event_purge", "event_drop_empty_partitions", "event_vacuum"),
)
"""Fields that describe a table, and whose variables would describe none beside a datasets file."""
_DECIDING = (
    *("DRY_RUN", "EVENT_RETENTION_PERIOD", "ARCHIVE_START_DATE", "MAX_DAYS_PER_RUN", "RUN_BUDGET"),
    *("EVENT_TABLE", "EVENT_TIME_COLUMN", "EVENT_FILE_PREFIX", "PG_CONNECTION_STRING"),
    *("EVENT_PURGE", "EVENT_DROP_EMPTY_PARTITIONS"),
    *("ARCHIVE_FOLDER", "AZURE_STORAGE_CONTAINER", "DATASETS_FILE", *_LAKES),
)
"""What decides which rows are deleted, of which table, proven by which files, and how many of them."""
# A word that stands in no other variable of ours, so that whoever writes it means one of these.
_TELLING = {"RETENTION": "EVENT_RETENTION_PERIOD", "DRYRUN": "DRY_RUN", "DRY_RUN": "DRY_RUN"}
# What other programs read in the same environment: Azure's command line, and libraries for its storage.
_OF_AZURE = re.compile(r"AZURE_STORAGE_(ACCOUNT(_NAME|_KEY)?|KEY|SAS_TOKEN|AUTH_MODE|SERVICE_ENDPOINT)")
# What Kubernetes sets in every pod of a namespace for each of its Services, whatever the Service is called.
_OF_A_SERVICE = re.compile(
    r".+_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)", re.DOTALL
)


class PipelineSettings(EnvironmentSettings):
    """What shapes the pipeline: no secrets, a default for everything.

    The attributes are the variables of the same name; the documentation's table says what each means. A misspelling of
    a variable that decides what is deleted is an error: its default would stand, unnoticed.
    """

    event_table: Annotated[str, AfterValidator(parse_table)] = _DEFAULT_TABLE
    event_time_column: Annotated[str, AfterValidator(parse_identifier)] = "created_at"
    event_file_prefix: Annotated[str | None, Field(validate_default=True)] = None
    event_retention_period: Annotated[Retention, BeforeValidator(Retention.parse)] = Retention(months=12, days=0)
    archive_start_date: Annotated[date, BeforeValidator(parse_start)] = date(2015, 1, 1)
    archive_folder: Annotated[str, AfterValidator(parse_folder)] = "titan-pulse-event-archive"
    archive_cron: Annotated[str, AfterValidator(parse_cron)] = "0 2 * * *"
    max_days_per_run: Annotated[int, Field(ge=1, le=10_000)] = 31
    backlog_alert_days: Annotated[int, Field(ge=0, le=36_500)] = 3
    log_format: Annotated[Literal["json", "console"] | None, BeforeValidator(lower_case)] = None
    dry_run: Annotated[bool, BeforeValidator(lower_case)] = False
    event_purge: Annotated[Purge, BeforeValidator(lower_case)] = "delete"
    event_drop_empty_partitions: Annotated[bool, BeforeValidator(lower_case)] = False
    event_vacuum: Annotated[bool, BeforeValidator(lower_case)] = False
    export_rate_limit: Annotated[int | None, BeforeValidator(parse_size)] = None
    max_replica_lag: Annotated[int | None, BeforeValidator(parse_size)] = None
    verify_nightly: Annotated[bool, BeforeValidator(lower_case)] = False
    logical_message_prefix: str | None = None
    datasets_file: Path | None = None

    @field_validator("event_file_prefix")
    @classmethod
    def _named_after_the_table(cls, prefix: str | None, info: ValidationInfo) -> str:
        if prefix is not None:
            return parse_file_prefix(prefix)
        table = info.data.get("event_table", _DEFAULT_TABLE)
        try:
            return "events" if table == _DEFAULT_TABLE else parse_file_prefix(TableName.parse(table).name)
        except ValueError as error:
            raise ValueError(
                f"files are named after the table then, and {shown(table)} is no name for files: it {error}"
            ) from None

    @classmethod
    def attempt(cls, entry: Entry = ENVIRONMENT) -> tuple[Self | None, tuple[str, ...]]:
        """As ``load``; the settings, or what is wrong, a line each."""
        # Whoever forgets which dataset it works on must not work on the default table.
        if not entry.name and value_of("DATASETS_FILE"):
            raise AssertionError("DATASETS_FILE describes the datasets")
        return super().attempt(entry)

    @classmethod
    def _misspelt(cls, entry: Entry) -> list[str]:
        return [
            f"{name} is no variable of event_archive, and {meant} decides what is deleted. {_unset_or_rename(meant)}"
            for name, meant in _near()
            if meant in _DECIDING and not (_is_embedded(entry) and _may_be_theirs(name, meant, entry))
        ]

    @property
    def dataset(self) -> Dataset:
        """What is archived."""
        return Dataset(
            table=TableName.parse(self.event_table),
            time_column=self.event_time_column,
            folder=self.archive_folder,
            file_prefix=self.event_file_prefix or "",
            retention=self.event_retention_period,
            start=self.archive_start_date,
            purge=self.event_purge,
            drop_empty_partitions=self.event_drop_empty_partitions,
            vacuum=self.event_vacuum,
            name=self.entry.name,
            asset_prefix="" if self.entry.bare_keys else self.entry.name,
        )

    def with_secrets(self) -> "Settings":
        """The same settings with those that reach PostgreSQL and the lake, as the environment is at this moment.

        Raises:
            ConfigurationError: as ``load``.
        """
        return Settings.load(self.entry)

    @property
    def log_as_json(self) -> bool:
        """Whether log lines and results are JSON objects."""
        return output_is_json(self.log_format)


class ListenerSettings(EnvironmentSettings):
    """Who hears of runs, whatever dataset they are of."""

    metrics_textfile: Annotated[Path, BeforeValidator(parse_path)] | None = None
    metrics_pushgateway: Annotated[SecretStr, AfterValidator(check_http_url)] | None = None
    alert_webhook_url: Annotated[SecretStr, AfterValidator(check_http_url)] | None = None


class Settings(PipelineSettings, ListenerSettings):
    """All that the environment says, secrets included."""

    pg_connection_string: Annotated[SecretStr, AfterValidator(check_conninfo)] = Field(
        description="says how to reach the events database: postgresql://USER:PASSWORD@HOST:5432/DATABASE"
    )
    export_pg_connection_string: Annotated[SecretStr, AfterValidator(check_conninfo)] | None = None
    pg_auth: Annotated[Literal["password", "azure"], BeforeValidator(lower_case)] = "password"
    azure_storage_connection_string: Annotated[SecretStr, AfterValidator(check_azure_connection_string)] | None = None
    azure_storage_account_url: Annotated[str, AfterValidator(parse_account_url)] | None = None
    archive_local_path: Annotated[Path, BeforeValidator(parse_path)] | None = None
    azure_storage_container: Annotated[str, AfterValidator(parse_container)] = "archive"
    run_budget: Annotated[timedelta | None, BeforeValidator(parse_budget)] = None

    @classmethod
    def _contradictions(cls, present: set[str]) -> list[str]:
        given = [name for name in _LAKES if name in present]
        if len(given) == 1:
            return []
        found = f"{' and '.join(given)} are" if given else "none is"
        return [f"Exactly one of {', '.join(_LAKES)} says where the files go; {found} set."]


class InstanceSettings(EnvironmentSettings):
    """Where Dagster keeps its own records and its runs' output: in PostgreSQL and Azure if those are named, else files.

    The attributes are the variables of the same name.
    """

    dagster_pg_host: Annotated[str | None, AfterValidator(parse_host)] = None
    dagster_pg_port: Annotated[int, Field(ge=1, le=65_535)] = 5432
    dagster_pg_db: str | None = None
    dagster_pg_username: str | None = None
    dagster_pg_password: SecretStr | None = None
    dagster_logs_account: Annotated[str | None, AfterValidator(parse_storage_account)] = None
    dagster_logs_container: Annotated[str, AfterValidator(parse_container)] = "dagster-logs"

    @classmethod
    def _contradictions(cls, present: set[str]) -> list[str]:
        names = ("DAGSTER_PG_HOST", "DAGSTER_PG_DB", "DAGSTER_PG_USERNAME")
        absent = [name for name in names if name not in present]
        if len(absent) in (0, len(names)):
            return []
        given = [name for name in names if name not in absent]
        problem = (
            f"{', '.join(given)}: set, {', '.join(absent)}: not set. Set all three to keep Dagster's own records in "
            "PostgreSQL, or none to keep them as files in DAGSTER_HOME."
        )
        return [problem]


def dagster_home() -> str | None:
    """The folder of Dagster's instance, as DAGSTER_HOME names it; None where there is none.

    Raises:
        ConfigurationError: it is not the absolute path of a folder.
    """
    home = value_of("DAGSTER_HOME")
    if home and not (Path(home).is_absolute() and is_folder(Path(home))):
        raise ConfigurationError(
            f"DAGSTER_HOME holds {shown_quoted(home)}, which is not the absolute path of a folder that this user sees. "
            "Create it, with a dagster.yaml in it, or unset the variable: then runs of the command line leave no "
            "records in Dagster."
        )
    return home or None


def misspelt() -> list[tuple[str, str]]:
    """Variables that are set but not read, and whose names are close to one that is: the name, and what may be meant.

    Where that one decides what is deleted, no settings are loaded at all.
    """
    found = [(name, meant) for name, meant in _near() if meant not in _DECIDING]
    if not value_of("DATASETS_FILE"):
        return found
    key = "{} of a dataset in DATASETS_FILE"
    return [
        (name, key.format(meant.lower().removeprefix("event_")) if meant.lower() in ONE_TABLES else meant)
        for name, meant in found
    ]


def _near() -> list[tuple[str, str]]:
    found = sorted((name, meant) for name in os.environ if value_of(name) and (meant := _meant(name)))
    if value_of("DATASETS_FILE"):
        # The file names variables of its own for the connections of its datasets.
        return [(name, meant) for name, meant in found if not meant.endswith("PG_CONNECTION_STRING")]
    return found


def _unset_or_rename(meant: str) -> str:
    """What to do about a variable that is nearly this one."""
    if value_of("DATASETS_FILE") and meant.lower() in ONE_TABLES:
        return "Unset it: DATASETS_FILE says that of every table."
    return f"Unset it: {meant} is set, too." if value_of(meant) else f"Rename it to {meant}, in capitals, or unset it."


def _is_embedded(entry: Entry) -> bool:
    """Whether a dataset is described in somebody else's project, whose environment has variables of its own."""
    return bool(entry.name) and not value_of("DATASETS_FILE")


def _may_be_theirs(name: str, meant: str, entry: Entry) -> bool:
    """Whether a variable of such a project may well mean something else: by its spelling, or since ours is not read."""
    told = entry.unread | {field for field, _, _ in entry.values if field != "dry_run"}
    is_connection = meant == "PG_CONNECTION_STRING"
    return is_connection or meant.lower() in told or not get_close_matches(name.upper(), [meant], 1, _SIMILARITY)


@cache
def _meant(name: str) -> str:
    """The variable that a name is a misspelling of; empty where it is one of ours, or none of our business."""
    # Late: those settings are made of these.
    from event_archive.config.sources import SETTINGS_BY_SOURCE

    kinds: list[type[EnvironmentSettings]] = [Settings, InstanceSettings, *SETTINGS_BY_SOURCE.values()]
    ours = {field.upper() for kind in kinds for field in kind.model_fields}
    if name in ours or _OF_AZURE.fullmatch(name) or _OF_A_SERVICE.fullmatch(name):
        return ""
    found = get_close_matches(name.upper(), _DECIDING, 1, _SIMILARITY)
    found += [meant for word, meant in _TELLING.items() if word in name.upper()]
    found += get_close_matches(name.upper(), ours, 1, _SIMILARITY)
    return found[0] if found else ""
