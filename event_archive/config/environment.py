"""Every environment variable, read and validated here and nowhere else. An empty or blank variable counts as absent.

Three classes. ``PipelineSettings`` shapes the pipeline and holds no secret, so that definitions load where none is;
``Settings`` adds what reaches PostgreSQL and the lake; ``InstanceSettings`` is of Dagster's own records. Not here:
connecting to anything.
"""

import os
import re
import sys
from datetime import date, timedelta
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError

from event_archive.domain.dataset import Dataset, TableName, check_identifier
from event_archive.domain.days import Retention, parse_day
from event_archive.errors import ConfigurationError
from event_archive.lake.names import check_path

_CLOSE = 0.88
_LAKES = ("AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_ACCOUNT_URL", "ARCHIVE_LOCAL_PATH")


def _identifier(name: str) -> str:
    check_identifier(name)
    return name


def _file_prefix(prefix: str) -> str:
    if "/" in prefix or len(prefix) > 200:
        raise ValueError("must be at most 200 characters without a slash")
    check_path(prefix)
    return prefix


def _folder(folder: str) -> str:
    stripped = folder.strip("/")
    check_path(stripped)
    return stripped


def _container(name: str) -> str:
    if not re.fullmatch(r"(?!.*--)[a-z0-9][a-z0-9-]{1,61}[a-z0-9]", name):
        raise ValueError("must be 3 to 63 lower-case letters, digits and single hyphens, as Azure demands")
    return name


def _storage_account(name: str) -> str:
    if not re.fullmatch(r"[a-z0-9]{3,24}", name):
        raise ValueError("must be a storage account's name: 3 to 24 lower-case letters and digits")
    return name


def _day(text: str) -> date:
    try:
        return parse_day(text)
    except ConfigurationError:
        raise ValueError("is not a day like 2015-01-01") from None


def _cron(text: str) -> str:
    if len(text.split()) != 5:
        raise ValueError("must be five fields, minute, hour, day of month, month and day of week, like '0 2 * * *'")
    return text


def _budget(text: str) -> timedelta:
    match = re.fullmatch(r"(\d+)\s*(second|minute|hour)s?", text.strip(), re.IGNORECASE)
    if not match or not int(match[1]):
        raise ValueError("is not a duration like '2 hours', '90 minutes' or '600 seconds'")
    return int(match[1]) * timedelta(**{match[2].lower() + "s": 1})


def _size(text: str) -> int:
    match = re.fullmatch(r"(\d+)\s*(B|kB|MB|GB)", text.strip(), re.IGNORECASE)
    if not match or not int(match[1]):
        raise ValueError("is not a size like '20 MB', '500 kB' or '1 GB'")
    return int(match[1]) * {"b": 1, "kb": 1000, "mb": 1000**2, "gb": 1000**3}[match[2].lower()]


def _conninfo(secret: SecretStr) -> SecretStr:
    text = secret.get_secret_value()
    try:
        given = conninfo_to_dict(text)
    except ProgrammingError:
        given = {"port": "?"}
    # An unescaped password falls apart into host, port and database, which messages would repeat.
    authority, _, path = re.sub(r"^postgres(ql)?://|\?.*", "", text, flags=re.DOTALL).partition("/")
    torn = text.startswith("postgres") and "://" in text and ("@" in path or authority.count("@") > 1)
    if torn or "@" in str(given.get("host", "")) or not re.fullmatch(r"[\d,]*", str(given.get("port", ""))):
        raise ValueError(
            "must be a libpq URL (postgresql://USER:PASSWORD@HOST:5432/DATABASE) or key=value DSN; in a URL, the "
            "password's special characters are percent-encoded"
        )
    return secret


def _http_url(secret: SecretStr) -> SecretStr:
    if not re.fullmatch(r"https?://[^\s/]+(/\S*)?", secret.get_secret_value()):
        raise ValueError("must be an http or https URL")
    return secret


def _azure_connection_string(secret: SecretStr) -> SecretStr:
    text = secret.get_secret_value()
    pairs = dict(part.split("=", 1) for part in text.strip().strip(";").split(";") if "=" in part)
    names = {name.strip().lower() for name, value in pairs.items() if value}
    emulator = "usedevelopmentstorage" in names
    account = "accountname" in names or "blobendpoint" in names
    if not emulator and not (account and names & {"accountkey", "sharedaccesssignature"}):
        raise ValueError(
            "must hold AccountName (or BlobEndpoint) and AccountKey (or SharedAccessSignature), joined by ';', "
            "as the Azure portal shows it under 'Access keys'"
        )
    return secret


def _account_url(url: str) -> str:
    if "?" in url:
        raise ValueError("must not carry a query: put a SAS into AZURE_STORAGE_CONNECTION_STRING, which is a secret")
    if not re.fullmatch(r"https?://[^\s/?#@]+(/[A-Za-z0-9]+)?/?", url):
        raise ValueError("must be like https://ACCOUNT.blob.core.windows.net")
    return url.rstrip("/")


def _lower(value: Any) -> Any:
    return value.strip().lower() if isinstance(value, str) else value


class _EnvironmentSettings(BaseModel):
    # A default is as good as it stands.
    model_config = ConfigDict(hide_input_in_errors=True, frozen=True, validate_default=False)

    @classmethod
    def load(cls) -> Self:
        """Reads the environment; once only, as long as it does not change.

        Raises:
            ConfigurationError: with a line for every variable that is missing or wrong; it names the variable, what
                it holds unless that is a secret, and what is allowed.
        """
        given = [(name, value) for name in cls.model_fields if (value := os.environ.get(name.upper(), "")).strip()]
        return cast(Self, _loaded(cls, tuple(given)))

    @classmethod
    def _read(cls, given: tuple[tuple[str, str], ...]) -> Self:
        problems = cls._contradictions({name.upper() for name, _ in given})
        try:
            settings = cls.model_validate(dict(given))
        except ValidationError as error:
            problems += [cls._problem(details) for details in error.errors(include_url=False)]
        if not problems:
            return settings
        raise ConfigurationError("The environment is not right:\n" + "\n".join(f"  {line}" for line in problems))

    @classmethod
    def _contradictions(cls, _present: set[str]) -> list[str]:
        """What is wrong between the variables that are set."""
        return []

    @classmethod
    def _problem(cls, details: Any) -> str:
        message = details["msg"].removeprefix("Value error, ")
        field = str(details["loc"][0])
        variable = field.upper()
        if details["type"] == "missing":
            return f"{variable} is not set; it {cls.model_fields[field].description}."
        secret = "Secret" in repr(cls.model_fields[field].annotation) or field == "azure_storage_account_url"
        held = "(a secret, not shown)" if secret else repr(details["input"])
        return f"{variable} holds {held}: {message}."


@cache
def _loaded(kind: type[_EnvironmentSettings], given: tuple[tuple[str, str], ...]) -> _EnvironmentSettings:
    return kind._read(given)  # noqa: SLF001


class PipelineSettings(_EnvironmentSettings):
    """What shapes the pipeline: no secrets, a default for everything.

    The attributes are the variables of the same name; the documentation's table says what each means.
    """

    event_table: Annotated[str, AfterValidator(lambda text: str(TableName.parse(text)))] = "public.Event"
    event_time_column: Annotated[str, AfterValidator(_identifier)] = "created_at"
    event_file_prefix: Annotated[str, AfterValidator(_file_prefix)] = "events"
    event_retention_period: Annotated[Retention, BeforeValidator(Retention.parse)] = Retention(months=12, days=0)
    archive_start_date: Annotated[date, BeforeValidator(_day)] = date(2015, 1, 1)
    archive_folder: Annotated[str, AfterValidator(_folder)] = "titan-pulse-event-archive"
    archive_cron: Annotated[str, AfterValidator(_cron)] = "0 2 * * *"
    max_days_per_run: Annotated[int, Field(ge=1, le=10_000)] = 31
    backlog_alert_days: Annotated[int, Field(ge=0, le=36_500)] = 3
    log_format: Annotated[Literal["json", "console"] | None, BeforeValidator(_lower)] = None
    dry_run: Annotated[bool, BeforeValidator(_lower)] = False
    export_rate_limit: Annotated[int | None, BeforeValidator(_size)] = None
    max_replica_lag: Annotated[int | None, BeforeValidator(_size)] = None
    verify_nightly: Annotated[bool, BeforeValidator(_lower)] = False
    logical_message_prefix: str | None = None

    @property
    def dataset(self) -> Dataset:
        """What is archived."""
        return Dataset(
            table=TableName.parse(self.event_table),
            time_column=self.event_time_column,
            folder=self.archive_folder,
            file_prefix=self.event_file_prefix,
            retention=self.event_retention_period,
            start=self.archive_start_date,
        )

    @property
    def log_as_json(self) -> bool:
        """Whether log lines and results are JSON objects."""
        return output_is_json(self.log_format)


class Settings(PipelineSettings):
    """All that the environment says, secrets included."""

    pg_connection_string: Annotated[SecretStr, AfterValidator(_conninfo)] = Field(
        description="says how to reach the events database: postgresql://USER:PASSWORD@HOST:5432/DATABASE"
    )
    export_pg_connection_string: Annotated[SecretStr, AfterValidator(_conninfo)] | None = None
    pg_auth: Annotated[Literal["password", "azure"], BeforeValidator(_lower)] = "password"
    azure_storage_connection_string: Annotated[SecretStr, AfterValidator(_azure_connection_string)] | None = None
    azure_storage_account_url: Annotated[str, AfterValidator(_account_url)] | None = None
    archive_local_path: Path | None = None
    azure_storage_container: Annotated[str, AfterValidator(_container)] = "archive"
    run_budget: Annotated[timedelta | None, BeforeValidator(_budget)] = None
    metrics_textfile: Path | None = None
    alert_webhook_url: Annotated[SecretStr, AfterValidator(_http_url)] | None = None

    @classmethod
    def _contradictions(cls, present: set[str]) -> list[str]:
        given = [name for name in _LAKES if name in present]
        if len(given) == 1:
            return []
        found = f"{' and '.join(given)} are" if given else "none is"
        return [f"Exactly one of {', '.join(_LAKES)} says where the files go; {found} set."]


class InstanceSettings(_EnvironmentSettings):
    """Where Dagster keeps its own records and its runs' output: in PostgreSQL and Azure if those are named, else files.

    The attributes are the variables of the same name.
    """

    dagster_pg_host: str | None = None
    dagster_pg_port: Annotated[int, Field(ge=1, le=65_535)] = 5432
    dagster_pg_db: str | None = None
    dagster_pg_username: str | None = None
    dagster_pg_password: SecretStr | None = None
    dagster_logs_account: Annotated[str | None, AfterValidator(_storage_account)] = None
    dagster_logs_container: Annotated[str, AfterValidator(_container)] = "dagster-logs"

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
    """The folder of Dagster's instance, as DAGSTER_HOME names it; None where there is none."""
    return os.environ.get("DAGSTER_HOME") or None


def output_is_json(log_format: str | None = None) -> bool:
    """Whether standard output is to hold JSON lines: as LOG_FORMAT says, else wherever it is no terminal.

    Args:
        log_format: as validated; None to look at the variable itself, which says enough where the settings are wrong.
    """
    chosen = log_format or os.environ.get("LOG_FORMAT", "").strip().lower()
    return chosen == "json" or (chosen != "console" and not sys.stdout.isatty())


def misspelt() -> list[tuple[str, str]]:
    """Variables that nobody reads but whose names, but for their case, are close to one that somebody does."""
    known = {name.upper() for kind in (Settings, InstanceSettings) for name in kind.model_fields}
    near = {name: get_close_matches(name.upper(), known, 1, _CLOSE) for name in os.environ if name not in known}
    return sorted((name, found[0]) for name, found in near.items() if found)
