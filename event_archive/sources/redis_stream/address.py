"""What REDIS_URL says, as far as it can be told without a connection. Not here: connecting, what Redis answers."""

import codecs
import re
import ssl
from urllib.parse import parse_qs, urlsplit

from redis import ConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from event_archive.certificates import require_files
from event_archive.errors import ConfigurationError

_TIMEOUT_SECONDS = 6.0
"""After which a server that says nothing counts as away."""
_OWN = {
    # A read that is tried again loses sight of what the reply that broke off had delivered.
    "retry": Retry(NoBackoff(), 0),
    "socket_timeout": _TIMEOUT_SECONDS,
    "socket_connect_timeout": _TIMEOUT_SECONDS,
    "decode_responses": False,
    "legacy_responses": False,
}
_TAKEN = {
    *("db", "username", "password", "client_name", "protocol", "encoding", "decode_responses", "health_check_interval"),
    *(
        "lib_name",
        "lib_version",
        "encoding_errors",
        "socket_timeout",
        "socket_connect_timeout",
        "socket_read_size",
        "socket_keepalive",
    ),
    *("retry_on_timeout", "max_connections", "legacy_responses", "ssl_keyfile", "ssl_certfile", "ssl_password"),
    *("ssl_cert_reqs", "ssl_ca_certs", "ssl_ca_path", "ssl_ca_data", "ssl_check_hostname", "ssl_min_version"),
    *("ssl_ciphers", "ssl_include_verify_flags", "ssl_exclude_verify_flags", "ssl_validate_ocsp"),
    *("ssl_validate_ocsp_stapled", "ssl_ocsp_expected_cert"),
}
"""Parameters of redis-py that a text can be; it knows others, which are objects."""


def pool(url: str) -> ConnectionPool:
    """The pool of a URL, without a connection.

    Raises:
        ConfigurationError: the URL is wrong.
    """
    unknown = [name for name in parse_qs(urlsplit(url).query, keep_blank_values=True) if name not in _TAKEN]
    if unknown:
        # What is no name may be a part of a password, and so may all before an "@".
        is_torn = "@" in urlsplit(url).query
        names = ", ".join(name for name in unknown if re.fullmatch("[a-z_]{1,40}", name) and not is_torn)
        told = f": {names}" if names else ""
        raise ConfigurationError(
            f"REDIS_URL has a parameter that redis-py does not know, or that no text can be{told}. Nothing was read. "
            "Leave it out."
        )
    try:
        # RESP2 takes the client two thirds of the time.
        found = ConnectionPool.from_url(url, protocol=2)
        found.connection_kwargs.update(_OWN)
        given = found.connection_kwargs
        words = [given.get(name) or "" for name in ("client_name", "lib_name", "lib_version")]
        is_right = int(given["protocol"]) in (2, 3) and int(given.get("socket_read_size", 1)) > 0
        if not is_right or not all(re.fullmatch("[!-~]*", word) for word in words):
            raise ValueError("what redis-py finds out once it is connected")
        codecs.lookup_error(given.get("encoding_errors", "strict"))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if ciphers := given.get("ssl_ciphers"):
            context.set_ciphers(ciphers)
        if certificates := given.get("ssl_ca_data"):
            context.load_verify_locations(cadata=certificates)
        found.make_connection()
    except (TypeError, ValueError, LookupError, AttributeError, OSError, RedisError):
        raise refused() from None
    require_files("REDIS_URL", found.connection_kwargs)
    return found


def refused() -> ConfigurationError:
    """The error that people see for what redis-py raises, which may repeat a part of the URL."""
    return ConfigurationError(
        "REDIS_URL names a host that cannot be one, or has a parameter that redis-py does not know, or not with this "
        "value. Nothing was read. Take what follows the question mark from redis-py's documentation, or leave it out."
    )
