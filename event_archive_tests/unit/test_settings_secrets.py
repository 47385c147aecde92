"""Settings that hold secrets: connection strings, signatures, lakes; none shows, and none stands where none belongs."""

import re

import pytest

from event_archive.config.environment import InstanceSettings, PipelineSettings, Settings
from event_archive.config.reading import EnvironmentSettings
from event_archive.config.sources import ApiSettings, LogsSettings, StreamSettings
from event_archive.domain.dataset import TableName
from event_archive.errors import ConfigurationError
from event_archive_tests.fixtures.settings import SECRET, load

pytestmark = pytest.mark.usefixtures("no_settings")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("postgresql://u:hunter2@h/d?schema=public", "parameter schema is none of libpq's: leave it out; EVENT_TABLE"),
        ("postgresql://u:hunter2@h/d?sslmode=require&pgbouncer=true", "parameter pgbouncer is none of libpq's: leave"),
        ("postgres://u:hunter2@h/d?connection_limit=5&schema=p", "connection_limit, schema is none of libpq's"),
        ("postgresql://u:hunter2@h/d?currentSchema=app", "EVENT_TABLE names the schema"),
        ("jdbc:postgresql://h/d?user=u&password=hunter2", "not JDBC's: without 'jdbc:'"),
        ("postgresql+psycopg://u:hunter2@h/d", "not SQLAlchemy's: without '.' and the driver"),
        ("postgres+asyncpg://u:hunter2@h/d", "not SQLAlchemy's"),
        ("mysql://u:hunter2@h/d", "must begin with postgresql://"),
        ("'postgresql://u:hunter2@h/d'", "without the quotes"),
        ('"host=h password=hunter2"', "without the quotes"),
        ("host=h password=hunter2 sslmode=no-verify", 'libpq refuses an option.*invalid sslmode value: "no-verify"'),
        ("postgresql://u:hunter2@h/d?sslmode=no-verify", 'invalid sslmode value: "no-verify"'),
        ("service=nope password=hunter2", 'definition of service "nope" not found'),
        ("host=h password=hunter2 target_session_attrs=master", 'invalid target_session_attrs value: "master"'),
        ("host=h password=hunter2 channel_binding=hunter2", r'invalid channel_binding value: "\*\*\*"'),
        ("host=h password=hunter2 connect_timeout=soon", "its connect_timeout must be a number"),
        ("host=h password=hunter2 keepalives_idle=x", "its keepalives_idle must be a number"),
        ("host=h password=hunter2 port=abc", "its port must be a number from 1 to 65535"),
        ("postgresql://u:hunter2@h:70000/d", "its port must be a number from 1 to 65535"),
        # What may be a part of a password is not repeated.
        ("postgresql:///d?host=h&password=my&hunter2=x", "special characters are percent-encoded"),
        ("postgresql://u:a@b@h/d?hunter2=x", "special characters are percent-encoded"),
    ],
)
def test_a_connection_string_that_libpq_refuses_is_told_with_what_to_write(
    monkeypatch: pytest.MonkeyPatch, value: str, words: str
):
    with pytest.raises(
        ConfigurationError, match=f"PG_CONNECTION_STRING holds .a secret, not shown.: .*{words}"
    ) as said:
        load(monkeypatch, PG_CONNECTION_STRING=value)
    assert "hunter2" not in str(said.value)


@pytest.mark.parametrize(
    "value",
    [
        "postgresql://u:p@h/d?ssl=true",
        "postgresql://u:my?word=x@h/d",
        "postgresql://u:p@a:1,b:2/d?target_session_attrs=prefer-standby&connect_timeout=3",
        "host=a,b hostaddr=127.0.0.1,127.0.0.2 port=5432,5433 password='it://has ?schema=x&y'",
        "dbname=d",
    ],
)
def test_a_connection_string_that_libpq_takes_is_taken(monkeypatch: pytest.MonkeyPatch, value: str):
    assert load(monkeypatch, PG_CONNECTION_STRING=value).pg_connection_string.get_secret_value() == value


def test_a_url_with_a_signature_is_refused_without_showing_it(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ConfigurationError, match="must not carry a query") as caught:
        load(monkeypatch, AZURE_STORAGE_ACCOUNT_URL=f"https://a.blob.core.windows.net?sig={SECRET}")
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("url", ["https://a.blob.core.windows.net/archive", "https://a.dfs.core.windows.net"])
def test_an_address_that_is_not_the_blob_endpoint_alone_is_refused(monkeypatch: pytest.MonkeyPatch, url: str):
    with pytest.raises(ConfigurationError, match="must be the Blob endpoint alone"):
        load(monkeypatch, AZURE_STORAGE_ACCOUNT_URL=url)


def test_all_that_is_missing_is_said_at_once(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ConfigurationError) as caught:
        load(monkeypatch, PG_CONNECTION_STRING="", AZURE_STORAGE_CONNECTION_STRING="", DRY_RUN="x")
    assert re.findall(r"(PG_CONNECTION_STRING is not set|Exactly one of|DRY_RUN)", str(caught.value)) == [
        "Exactly one of", "DRY_RUN", "PG_CONNECTION_STRING is not set",
    ]  # fmt: skip


def test_two_lakes_are_one_too_many(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ConfigurationError, match="AZURE_STORAGE_CONNECTION_STRING and ARCHIVE_LOCAL_PATH are set"):
        load(monkeypatch, ARCHIVE_LOCAL_PATH="/lake")


def test_what_shapes_the_pipeline_needs_no_secret():
    assert PipelineSettings.load().dataset.table == TableName("public", "Event")


def test_secrets_do_not_show(monkeypatch: pytest.MonkeyPatch):
    settings = load(monkeypatch, ALERT_WEBHOOK_URL=f"https://h/{SECRET}")
    assert SECRET not in repr(settings) + str(settings) + settings.model_dump_json()


CARRIERS = [
    f"https://user:{SECRET}@h/v1",
    f"https://user:pa/{SECRET}@h/v1",
    f"Authorization:Basic {SECRET}",
    f"{SECRET}{'A' * 79}==",
    f"https://h/v1?token={SECRET}",
    f"https://h/v1#{SECRET}",
    f"/events?key={SECRET}",
    f"X-Auth: {SECRET}",
    f"Bearer {SECRET}",
    f"s3://KEY:{SECRET}@bucket/p",
    f"az://c/p?sig={SECRET}",
    f"postgresql://{SECRET}/d",
    f"host=h password={SECRET}",
    f"AccountName=a;AccountKey={SECRET};",
    f"secret: {SECRET}",
]
KINDS = [Settings, InstanceSettings, ApiSettings, LogsSettings, StreamSettings]


@pytest.mark.parametrize("carrier", CARRIERS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_secret_in_a_variable_where_none_belongs_is_in_no_message(
    monkeypatch: pytest.MonkeyPatch, kind: type[EnvironmentSettings], carrier: str
):
    # The path of the datasets file is nobody's setting alone.
    for field in kind.model_fields.keys() - {"datasets_file"}:
        with monkeypatch.context() as variables:
            variables.setenv(field.upper(), carrier)
            _, problems = kind.attempt()
        assert SECRET not in " ".join(problems), field
