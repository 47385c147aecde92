"""Values of variables: from text to what it means, or a ValueError that says what is allowed. Not here: variables."""

import re
from contextlib import suppress
from datetime import date, datetime, timedelta
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import SecretStr

from event_archive.domain.dataset import TableName, check_identifier
from event_archive.domain.days import EARLIEST_START, midnight, parse_day
from event_archive.errors import ConfigurationError
from event_archive.lake.names import check_path

_ADDRESS = re.compile(r"[\"']*([a-z][\w+.:-]+:/|\w+=\S*[; ]\s*\w+=)", re.IGNORECASE)
"""What begins like an address or a connection string."""
_FOR_A_SHELL = re.compile(r"[~$]|[a-z]:[\\/]", re.IGNORECASE)
"""How a path begins that only a shell expands, or only Windows knows."""
_LONGEST = timedelta(days=100 * 366)
"""As a retention is at most: later, sums with dates come to no date."""

_LATEST_START = date(9998, 12, 31)


def _refuse_address(text: str, what: str) -> None:
    """Refuses what may hold a password, where a value stands in messages and becomes a name."""
    if _ADDRESS.match(text):
        raise ValueError(f"must be {what}, not an address or a connection string")


def parse_identifier(name: str) -> str:
    """A name that a column can have."""
    _refuse_address(name, "a name")
    check_identifier(name)
    return name


def parse_table(text: str) -> str:
    """A table's name, as ``TableName`` writes it."""
    _refuse_address(text, "schema.table")
    return str(TableName.parse(text))


def parse_file_prefix(prefix: str) -> str:
    """What files' names begin with: at most 200 bytes, without a slash."""
    _refuse_address(prefix, "what files' names begin with")
    if "/" in prefix or len(prefix.encode()) > 200:
        raise ValueError("must be at most 200 bytes without a slash")
    check_path(prefix)
    return prefix


def parse_folder(folder: str) -> str:
    """A folder in the lake, slashes at its ends taken away: at most 700 bytes, 255 between two slashes."""
    _refuse_address(folder, "a folder in the lake")
    stripped = folder.strip("/")
    check_path(stripped)
    # File systems take no longer name; Azure takes 1,024 characters in all, the file's name among them.
    if len(stripped.encode()) > 700 or any(len(part.encode()) > 255 for part in stripped.split("/")):
        raise ValueError("must be at most 700 bytes, 255 between two slashes")
    return stripped


def parse_container(name: str) -> str:
    """A container's name by Azure's rules."""
    if not re.fullmatch(r"(?!.*--)[a-z0-9][a-z0-9-]{1,61}[a-z0-9]", name):
        raise ValueError("must be 3 to 63 lower-case letters, digits and single hyphens, as Azure demands")
    return name


def parse_host(host: str) -> str:
    """A server's name or address, one of IPv6 in brackets as in a URL, or the folder of its socket."""
    if host.startswith("/"):
        return host
    with suppress(ValueError):
        return f"[{IPv6Address(host.removeprefix('[').removesuffix(']'))}]"
    if re.search(r"[/@?#%:\s]", host):
        raise ValueError("must be the name or address of a server alone, without a scheme, a user, a port or a path")
    return host


def parse_storage_account(name: str) -> str:
    """A storage account's name by Azure's rules."""
    if not re.fullmatch(r"[a-z0-9]{3,24}", name):
        raise ValueError("must be a storage account's name: 3 to 24 lower-case letters and digits")
    return name


def parse_start(text: str) -> date:
    """A day that can be the first of Dagster's partitions."""
    try:
        day = parse_day(text)
    except ConfigurationError:
        raise ValueError("is not a day like 2015-01-01") from None
    if not EARLIEST_START <= day <= _LATEST_START:
        raise ValueError(f"must be a day from {EARLIEST_START} to {_LATEST_START}")
    return day


def parse_cron(text: str) -> str:
    """A cron expression of five fields; Dagster checks each when it makes the schedule."""
    if len(text.split()) != 5:
        raise ValueError("must be five fields, minute, hour, day of month, month and day of week, like '0 2 * * *'")
    return text


def parse_path(text: str) -> Path:
    """A path on this machine, of a file or a folder; an address would be taken for a folder of that name."""
    _refuse_address(str(text), "a path on this machine")
    if _FOR_A_SHELL.match(str(text)):
        raise ValueError(
            "must be a path on this machine as it is: ~ and $ are not expanded here, a drive's letter is none"
        )
    return Path(text)


def parse_budget(text: str) -> timedelta:
    """A duration: ``1 day``, ``2 hours``, ``90 minutes``, ``600 seconds``."""
    match = re.fullmatch(r"(\d+)\s*(second|minute|hour|day)s?", text.strip(), re.IGNORECASE)
    if not match or not int(match[1]):
        raise ValueError("is not a duration like '2 hours', '90 minutes' or '600 seconds'")
    unit = timedelta(**{match[2].lower() + "s": 1})
    if int(match[1]) > _LONGEST / unit:
        raise ValueError("is longer than 100 years")
    return int(match[1]) * unit


def parse_size(text: str) -> int:
    """A number of bytes, in units of 1,000: ``20 MB``, ``500 kB``, ``1 GB``."""
    match = re.fullmatch(r"(\d+)\s*(B|kB|MB|GB)", text.strip(), re.IGNORECASE)
    if not match or not int(match[1]):
        raise ValueError("is not a size like '20 MB', '500 kB' or '1 GB'")
    return int(match[1]) * {"b": 1, "kb": 1000, "mb": 1000**2, "gb": 1000**3}[match[2].lower()]


def check_http_url(secret: SecretStr) -> SecretStr:
    """An http or https URL."""
    url = secret.get_secret_value()
    if not (re.fullmatch(r"https?://[^\s/]+(/\S*)?", url) and _has_address(url)):
        raise ValueError("must be an http or https URL with a host's name; a port is 1 to 65535")
    return secret


def parse_url(url: str | None) -> str | None:
    """An http or https URL without user, password, query or fragment: it stands in messages."""
    if url is not None and not (re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", url) and _has_address(url)):
        raise ValueError("must be an http or https URL without a user, a query or a fragment; a port is 1 to 65535")
    return url


def _has_address(url: str) -> bool:
    """Whether a URL's host can be a name or an address, and its port a port, where it has one."""
    try:
        address = urlsplit(url)
        return bool((address.hostname or "").encode("idna")) and address.port != 0
    except ValueError:
        return False


def parse_url_path(path: str) -> str:
    """The path of a URL and no more: parameters come behind it, and it stands in messages."""
    _refuse_address(path, "a path behind API_BASE_URL")
    if re.search(r"[\s?#]", path):
        raise ValueError("must be a path without a query, a fragment or white space")
    return path


def parse_logs_url(url: str | None) -> str | None:
    """A bucket, a container or a folder of log files, and what their keys begin with."""
    if url is not None and not re.fullmatch(
        r"(s3|az)://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?|file:///.*", url, re.DOTALL
    ):
        raise ValueError(
            "must be like s3://BUCKET/PREFIX, az://CONTAINER/PREFIX or file:///FOLDER; BUCKET and CONTAINER have 3 "
            "to 63 lower-case letters, digits, dots and hyphens"
        )
    return url


def check_api_key(secret: SecretStr) -> SecretStr:
    """A value that an HTTP header can have."""
    if not re.fullmatch(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?", secret.get_secret_value()):
        raise ValueError("must be printable ASCII on one line, as a header's value is")
    return secret


def parse_header(name: str) -> str:
    """A header's name, by RFC 9110, section 5.1."""
    if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
        raise ValueError("is no name of an HTTP header")
    return name


def parse_field(name: str) -> str:
    """The name of a field of JSON, of those that msgspec can look for."""
    if re.search(r'["\\\x00-\x1f]', name):
        raise ValueError("must be a field's name without quotes, backslashes and control characters")
    return name


def parse_names(text: str) -> tuple[str, ...]:
    """The names of two parameters, the start's and the end's: ``since,until``."""
    names = tuple(name.strip() for name in text.split(","))
    if len(names) != 2 or not all(re.fullmatch(r"[\w.\[\]-]+", name) for name in names):
        raise ValueError("must be the names of two parameters, like since,until")
    return names


def parse_zone(text: str) -> ZoneInfo:
    """A time zone of the IANA's."""
    try:
        return ZoneInfo(text)
    except (ValueError, OSError, ZoneInfoNotFoundError):
        raise ValueError("is no time zone like UTC or Europe/Berlin") from None


def parse_start_instant(text: str) -> datetime:
    """The first instant of a day, UTC."""
    return midnight(parse_start(text))


def check_redis_url(secret: SecretStr) -> SecretStr:
    """The address of one Redis or Valkey server, of no cluster and no Sentinel."""
    text = secret.get_secret_value()
    if not re.fullmatch(r"(rediss?://([^\s/?#@]*@)?[^\s/?#@]+(/\d*)?|unix://([^\s/?#@]*@)?/[^\s?#]+)(\?\S*)?", text):
        raise ValueError(
            "must be like redis://USER:PASSWORD@HOST:6379/0, rediss:// over TLS or unix:///SOCKET; the password's "
            "special characters are percent-encoded"
        )
    try:
        # Read where it is looked at.
        _ = urlsplit(text).port
    except ValueError:
        raise ValueError("its port must be a number from 1 to 65535") from None
    return secret


def parse_redis_name(name: str | None) -> str | None:
    """The name of a key, a group or a consumer, which stands in messages."""
    if name is not None and (not name.isprintable() or len(name) > 500):
        raise ValueError("must be at most 500 printable characters")
    return name


def check_azure_connection_string(secret: SecretStr) -> SecretStr:
    """A storage connection string with an account and a key or signature."""
    text = secret.get_secret_value()
    if not text.isascii():
        raise ValueError(
            "must be as the Azure portal shows it under 'Access keys'; it has a character that no account or key has, "
            "like the … of an example"
        )
    pairs = dict(part.split("=", 1) for part in text.strip().strip(";").split(";") if "=" in part)
    names = {name.strip().lower() for name, value in pairs.items() if value}
    emulator = "usedevelopmentstorage" in names
    # Without the account's name a key signs nothing, and the client would ask as nobody.
    by_key = {"accountname", "accountkey"} <= names
    by_signature = "sharedaccesssignature" in names and bool(names & {"accountname", "blobendpoint"})
    if not emulator and not (by_key or by_signature):
        raise ValueError(
            "must hold AccountName and AccountKey, or SharedAccessSignature with either AccountName or BlobEndpoint, "
            "joined by ';', as the Azure portal shows it under 'Access keys'"
        )
    return secret


def parse_account_url(url: str) -> str:
    """The address of a storage account, without a signature, which would be a secret."""
    if "?" in url:
        raise ValueError("must not carry a query: put a SAS into AZURE_STORAGE_CONNECTION_STRING, which is a secret")
    if re.search(r"\.dfs\.|\.blob\.core\.\S+/.", url):
        raise ValueError(
            "must be the Blob endpoint alone, like https://ACCOUNT.blob.core.windows.net, without a container"
        )
    if not re.fullmatch(r"https?://[^\s/?#@]+(/[A-Za-z0-9]+)?/?", url):
        raise ValueError("must be like https://ACCOUNT.blob.core.windows.net")
    return url.rstrip("/")


def lower_case(value: Any) -> Any:
    """The same text in lower case; anything else as it is."""
    return value.lower() if isinstance(value, str) else value
