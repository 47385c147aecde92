"""Values of variables: from text to what it means, or a ValueError that says what is allowed. Not here: variables."""

import re
from datetime import date, timedelta
from typing import Any

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict
from pydantic import SecretStr

from event_archive.domain.dataset import check_identifier
from event_archive.domain.days import parse_day
from event_archive.errors import ConfigurationError
from event_archive.lake.names import check_path


def parse_identifier(name: str) -> str:
    """A name that a column can have."""
    check_identifier(name)
    return name


def parse_file_prefix(prefix: str) -> str:
    """What files' names begin with: at most 200 characters, without a slash."""
    if "/" in prefix or len(prefix) > 200:
        raise ValueError("must be at most 200 characters without a slash")
    check_path(prefix)
    return prefix


def parse_folder(folder: str) -> str:
    """A folder in the lake, slashes at its ends taken away."""
    stripped = folder.strip("/")
    check_path(stripped)
    return stripped


def parse_container(name: str) -> str:
    """A container's name by Azure's rules."""
    if not re.fullmatch(r"(?!.*--)[a-z0-9][a-z0-9-]{1,61}[a-z0-9]", name):
        raise ValueError("must be 3 to 63 lower-case letters, digits and single hyphens, as Azure demands")
    return name


def parse_storage_account(name: str) -> str:
    """A storage account's name by Azure's rules."""
    if not re.fullmatch(r"[a-z0-9]{3,24}", name):
        raise ValueError("must be a storage account's name: 3 to 24 lower-case letters and digits")
    return name


def parse_start(text: str) -> date:
    """A day."""
    try:
        return parse_day(text)
    except ConfigurationError:
        raise ValueError("is not a day like 2015-01-01") from None


def parse_cron(text: str) -> str:
    """A cron expression of five fields; Dagster checks each when it makes the schedule."""
    if len(text.split()) != 5:
        raise ValueError("must be five fields, minute, hour, day of month, month and day of week, like '0 2 * * *'")
    return text


def parse_budget(text: str) -> timedelta:
    """A duration: ``2 hours``, ``90 minutes``, ``600 seconds``."""
    match = re.fullmatch(r"(\d+)\s*(second|minute|hour)s?", text.strip(), re.IGNORECASE)
    if not match or not int(match[1]):
        raise ValueError("is not a duration like '2 hours', '90 minutes' or '600 seconds'")
    return int(match[1]) * timedelta(**{match[2].lower() + "s": 1})


def parse_size(text: str) -> int:
    """A number of bytes, in units of 1,000: ``20 MB``, ``500 kB``, ``1 GB``."""
    match = re.fullmatch(r"(\d+)\s*(B|kB|MB|GB)", text.strip(), re.IGNORECASE)
    if not match or not int(match[1]):
        raise ValueError("is not a size like '20 MB', '500 kB' or '1 GB'")
    return int(match[1]) * {"b": 1, "kb": 1000, "mb": 1000**2, "gb": 1000**3}[match[2].lower()]


def check_conninfo(secret: SecretStr) -> SecretStr:
    """A libpq URL or key=value DSN that is one: whose password has not fallen apart into host and port."""
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


def check_http_url(secret: SecretStr) -> SecretStr:
    """An http or https URL."""
    if not re.fullmatch(r"https?://[^\s/]+(/\S*)?", secret.get_secret_value()):
        raise ValueError("must be an http or https URL")
    return secret


def check_azure_connection_string(secret: SecretStr) -> SecretStr:
    """A storage connection string with an account and a key or signature."""
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


def parse_account_url(url: str) -> str:
    """The address of a storage account, without a signature, which would be a secret."""
    if "?" in url:
        raise ValueError("must not carry a query: put a SAS into AZURE_STORAGE_CONNECTION_STRING, which is a secret")
    if not re.fullmatch(r"https?://[^\s/?#@]+(/[A-Za-z0-9]+)?/?", url):
        raise ValueError("must be like https://ACCOUNT.blob.core.windows.net")
    return url.rstrip("/")


def lower_case(value: Any) -> Any:
    """The same text in lower case, without white space around it; anything else as it is."""
    return value.strip().lower() if isinstance(value, str) else value
