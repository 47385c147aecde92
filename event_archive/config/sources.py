"""The variables of the sources, validated: what each reads from, and the database it lands in.

Not here: how a value is parsed (``values``), what a source does.
"""

import socket
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, ClassVar, Literal
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from event_archive.config.conninfo import check_conninfo
from event_archive.config.reading import EnvironmentSettings
from event_archive.config.values import (
    check_api_key,
    check_azure_connection_string,
    check_redis_url,
    lower_case,
    parse_account_url,
    parse_budget,
    parse_cron,
    parse_field,
    parse_header,
    parse_identifier,
    parse_logs_url,
    parse_names,
    parse_path,
    parse_redis_name,
    parse_start_instant,
    parse_url,
    parse_url_path,
    parse_zone,
)
from event_archive.domain.dataset import TableName
from event_archive.postgres.session import Postgres

LOGS_OLDEST_SERVER = 16
"""Of PostgreSQL, for log files: the first that has ``pg_input_is_valid``."""


class LandingShape(EnvironmentSettings):
    """Where events land, without secrets."""

    ingest_schema: Annotated[str, AfterValidator(parse_identifier)] = "public"
    table_name: ClassVar[str]
    variable: ClassVar[str]
    """The one that says where events are: there is such a source where it is set."""

    @property
    def table(self) -> TableName:
        """The table that events land in."""
        return TableName(self.ingest_schema, self.table_name)


class LandingSettings(LandingShape):
    """What every source needs: a database, and how much may be wrong before somebody has to look.

    The attributes are the variables of the same name; the documentation's table says what each means.
    """

    pg_connection_string: Annotated[SecretStr, AfterValidator(check_conninfo)] = Field(
        description="says how to reach the events database: postgresql://USER:PASSWORD@HOST:5432/DATABASE"
    )
    pg_auth: Annotated[Literal["password", "azure"], BeforeValidator(lower_case)] = "password"
    max_rejected: Annotated[int, Field(ge=0)] = 1000
    run_budget: Annotated[timedelta | None, BeforeValidator(parse_budget)] = None
    log_format: Annotated[Literal["json", "console"] | None, BeforeValidator(lower_case)] = None

    @property
    def postgres(self) -> Postgres:
        """The database that events land in."""
        return Postgres(self.pg_connection_string.get_secret_value(), self.pg_auth)


class ApiShape(LandingShape):
    """What shapes the ingestion of the API in Dagster; no secrets, so that definitions load where none is set."""

    api_base_url: Annotated[str | None, AfterValidator(parse_url)] = None
    api_cron: Annotated[str, AfterValidator(parse_cron)] = "*/15 * * * *"
    table_name: ClassVar[str] = "ingested_events"
    variable: ClassVar[str] = "API_BASE_URL"


class ApiSettings(LandingSettings, ApiShape):
    """The HTTP API that events are fetched from.

    The attributes are the variables of the same name.
    """

    api_base_url: Annotated[str, AfterValidator(parse_url)] = Field(
        description="is the address of the API, like https://api.example.com/v1"
    )
    api_key: Annotated[SecretStr, AfterValidator(check_api_key)] | None = None
    api_key_header: Annotated[str, AfterValidator(parse_header)] = "X-API-Key"
    api_events_path: Annotated[str, AfterValidator(parse_url_path)] = "/events"
    api_page_limit: Annotated[int, Field(ge=1, le=100_000)] = 1000
    api_pagination: Annotated[Literal["cursor", "page", "offset", "link"], BeforeValidator(lower_case)] = "cursor"
    api_shard: Annotated[timedelta | None, BeforeValidator(parse_budget)] = None
    api_start: Annotated[datetime | None, BeforeValidator(parse_start_instant)] = None
    api_overlap: Annotated[timedelta, BeforeValidator(parse_budget)] = timedelta(minutes=10)
    api_read_all_every: Annotated[timedelta | None, BeforeValidator(parse_budget)] = None
    api_concurrency: Annotated[int, Field(ge=1, le=10)] = 5
    api_time_filter: Annotated[tuple[str, ...] | None, BeforeValidator(parse_names)] = None
    api_conflict: Annotated[Literal["ignore", "update"], BeforeValidator(lower_case)] = "ignore"
    api_timezone: Annotated[ZoneInfo, BeforeValidator(parse_zone)] = ZoneInfo("UTC")
    api_limit_parameter: str = "limit"
    api_cursor_parameter: str | None = None
    api_data_field: str | None = None
    api_has_more_field: str | None = None
    api_next_cursor_field: str | None = None
    api_total_field: str | None = None
    api_id_field: Annotated[str, AfterValidator(parse_field)] = "id"
    api_type_field: Annotated[str, AfterValidator(parse_field)] = "type"
    api_time_field: Annotated[str, AfterValidator(parse_field)] = "timestamp"

    @classmethod
    def _contradictions(cls, present: set[str]) -> list[str]:
        if "API_SHARD" in present and "API_START" not in present:
            return ["API_SHARD is set, and API_START is not: it is the first day that events are asked for."]
        return []

    @property
    def url(self) -> str:
        """Where events are asked for, without parameters."""
        return self.api_base_url.rstrip("/") + "/" + self.api_events_path.lstrip("/")

    @property
    def proxy(self) -> SecretStr | None:
        """The proxy that the environment names for the API, as other programs read it; None for none."""
        address = urlsplit(self.api_base_url)
        named = getproxies().get(address.scheme)
        return SecretStr(named) if named and not proxy_bypass(address.hostname or "") else None

    @property
    def time_filter(self) -> tuple[str, str] | None:
        """The parameters that ask for a window of time, its start and its end; None where the API has none."""
        names = self.api_time_filter or (("since", "until") if self.api_shard else None)
        return (names[0], names[1]) if names else None


class LogsShape(LandingShape):
    """What shapes the ingestion of log files in Dagster; no secrets, so that definitions load where none is set."""

    logs_url: Annotated[str | None, AfterValidator(parse_logs_url)] = None
    logs_cron: Annotated[str, AfterValidator(parse_cron)] = "*/5 * * * *"
    table_name: ClassVar[str] = "logs"
    variable: ClassVar[str] = "LOGS_URL"


class LogsReading(LandingSettings, LogsShape):
    """How log entries are read, wherever their files are.

    The attributes are the variables of the same name.
    """

    logs_mapping: Annotated[Path, BeforeValidator(parse_path)] | None = None
    logs_timezone: Annotated[ZoneInfo, BeforeValidator(parse_zone)] = ZoneInfo("UTC")


class LogsSettings(LogsReading):
    """Where log files are, and how they are read.

    The attributes are the variables of the same name.
    """

    logs_url: Annotated[str, AfterValidator(parse_logs_url)] = Field(
        description="says where log files are: s3://BUCKET/PREFIX, az://CONTAINER/PREFIX or file:///FOLDER"
    )
    logs_max_attempts: Annotated[int, Field(ge=1, le=100)] = 5
    logs_min_age: Annotated[timedelta | None, BeforeValidator(parse_budget)] = None
    aws_region: str | None = None
    aws_endpoint: Annotated[str | None, AfterValidator(parse_url)] = None
    aws_access_key_id: SecretStr | None = None
    aws_secret_access_key: SecretStr | None = None
    aws_session_token: SecretStr | None = None
    azure_storage_connection_string: Annotated[SecretStr, AfterValidator(check_azure_connection_string)] | None = None
    azure_storage_account_url: Annotated[str, AfterValidator(parse_account_url)] | None = None

    @classmethod
    def _contradictions(cls, present: set[str]) -> list[str]:
        keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        if len(present & {*keys}) == 1:
            return [f"{' and '.join(keys)} are set together, or neither: then boto3 looks for credentials itself."]
        return []


class StreamShape(LandingShape):
    """Which stream fills the table, as far as Dagster has to know; where it is may be absent."""

    redis_url: Annotated[SecretStr, AfterValidator(check_redis_url)] | None = None
    stream_key: Annotated[str, AfterValidator(parse_redis_name)] = "telemetry:t"
    stream_group: Annotated[str, AfterValidator(parse_redis_name)] = "processor"
    table_name: ClassVar[str] = "positions"
    variable: ClassVar[str] = "REDIS_URL"


class StreamReading(LandingSettings, StreamShape):
    """How positions are read, wherever their stream is.

    The attributes are the variables of the same name.
    """

    stream_timezone: Annotated[ZoneInfo, BeforeValidator(parse_zone)] = ZoneInfo("UTC")


class StreamSettings(StreamReading):
    """The Redis stream that positions are consumed from.

    The attributes are the variables of the same name.
    """

    redis_url: Annotated[SecretStr, AfterValidator(check_redis_url)] = Field(
        description="says where the stream is: redis://USER:PASSWORD@HOST:6379/0, rediss:// over TLS"
    )
    stream_consumer: Annotated[str | None, AfterValidator(parse_redis_name)] = None
    stream_batch: Annotated[int, Field(ge=1, le=100_000)] = 5000
    stream_claim_idle: Annotated[timedelta, BeforeValidator(parse_budget)] = timedelta(minutes=5)
    stream_partitions_ahead_days: Annotated[int, Field(ge=1, le=366)] = 7
    stream_max_devices: Annotated[int, Field(ge=0, le=10_000_000)] = 100_000
    http_port: Annotated[int, Field(ge=0, le=65_535)] = 9090

    @property
    def consumer(self) -> str:
        """This process's name in the group; no other process may have it at the same time."""
        return self.stream_consumer or socket.gethostname()


SHAPES: tuple[type[LandingShape], ...] = (ApiShape, LogsShape, StreamShape)
"""What Dagster reads of each source, whether there is such a source or not."""
SETTINGS_BY_SOURCE: Mapping[str, type[LandingSettings]] = {
    "api": ApiSettings,
    "logs": LogsSettings,
    "stream": StreamSettings,
}
"""What each source reads, by its name in commands and in ``rejected_records``."""
