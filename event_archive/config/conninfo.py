"""A connection string of libpq: what it must be like, which database it names. Not here: who connects with it."""

import re

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import Conninfo
from pydantic import SecretStr

from event_archive.postgres.connecting import without_secrets
from event_archive.postgres.diagnosis import refused_options

_URL = "postgresql://USER:PASSWORD@HOST:5432/DATABASE"
_INTEGERS = {
    *("connect_timeout", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count"),
    "tcp_user_timeout",
}
"""Options that libpq looks at after it has begun to connect, if at all."""
_SCHEMA_PARAMETERS = {"schema", "currentschema", "search_path"}
"""Of Prisma, JDBC and others."""


def check_conninfo(secret: SecretStr) -> SecretStr:
    """A libpq URL or key=value DSN that is one: whose password has not fallen apart into host and port."""
    text = secret.get_secret_value()
    if text[0] in "'\"":
        raise ValueError("must be without the quotes around it")
    _check_scheme(text)
    is_one = True
    try:
        given = conninfo_to_dict(text)
    except ProgrammingError:
        _check_parameters(text)
        given, is_one = {}, False
    numbers = re.fullmatch(r"[\d,]*", str(given.get("port", "")))
    if _is_torn(text) or "@" in str(given.get("host", "")) or ("://" in text and not numbers) or not is_one:
        raise ValueError(
            f"must be a libpq URL ({_URL}) or key=value DSN; in a URL, the password's special characters are "
            "percent-encoded"
        )
    for name in _INTEGERS & given.keys():
        if not re.fullmatch(r"[+-]?\d+", str(given[name])):
            raise ValueError(f"its {name} must be a number")
    if not numbers or any(port and not 0 < int(port) < 2**16 for port in str(given.get("port", "")).split(",")):
        raise ValueError("its port must be a number from 1 to 65535")
    if words := refused_options(text):
        words = without_secrets(" ".join(words.split()), text)
        raise ValueError(f"libpq refuses an option, of its own or of the environment or service file: {words}")
    return secret


def database_named(conninfo: str) -> str:
    """What tells the database that a connection string names from others, whatever the role; empty where unknown."""
    try:
        given = conninfo_to_dict(conninfo)
    except ProgrammingError:
        return conninfo
    place = {name: given.get(name) for name in ("service", "host", "hostaddr")}
    database = given.get("dbname") or given.get("user")
    return f"{place} {given.get('port') or '5432'} {database}" if given else ""


def _check_scheme(text: str) -> None:
    """Refuses the URLs of other clients."""
    scheme = text.partition("://")[0].lower()
    if scheme.startswith("jdbc:"):
        raise ValueError(
            f"must be a libpq URL ({_URL}), not JDBC's: without 'jdbc:', user and password before the host"
        )
    if re.fullmatch(r"postgres(ql)?\+\w+", scheme):
        raise ValueError(f"must be a libpq URL ({_URL}), not SQLAlchemy's: without '+' and the driver after it")
    if "://" in text and re.fullmatch(r"[a-z][\w+.-]*", scheme) and scheme not in ("postgresql", "postgres"):
        raise ValueError(f"must begin with postgresql://, as a libpq URL does ({_URL})")


def _check_parameters(text: str) -> None:
    """Names a URL's parameters that libpq does not know, where they cannot be a part of a password."""
    query = text.partition("?")[2]
    known = {option.keyword.decode() for option in Conninfo.get_defaults()}
    names = [part.partition("=")[0] for part in query.split("&") if part != "ssl=true"]
    unknown = [name for name in names if name not in known]
    torn = "@" in query or "password" in query or _is_torn(text)
    if not unknown or torn or not all(re.fullmatch(r"\w+", name) for name in unknown):
        return
    schema = "; EVENT_TABLE names the schema" if _SCHEMA_PARAMETERS & {name.lower() for name in unknown} else ""
    raise ValueError(f"its parameter {', '.join(unknown)} is none of libpq's: leave it out{schema}")


def _is_torn(text: str) -> bool:
    """Whether an unescaped password may have fallen apart into host, port and database, which messages would repeat."""
    authority, _, path = re.sub(r"^postgres(ql)?://|\?.*", "", text, flags=re.DOTALL).partition("/")
    return text.startswith("postgres") and "://" in text and ("@" in path or authority.count("@") > 1)
