"""A stream's consumer group, as one consumer sees it, on one connection that tries nothing again by itself.

Not here: what an entry holds, in which order pending and new entries are read.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from redis import Redis
from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthenticationWrongNumberOfArgsError,
    ClusterDownError,
    ConnectionError,  # noqa: A004 (as redis-py calls it)
    InvalidResponse,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,  # noqa: A004 (likewise)
    TryAgainError,
)

from event_archive.certificates import untrusted
from event_archive.config.sources import StreamSettings
from event_archive.errors import ConfigurationError, EventArchiveError, UnreachableError
from event_archive.sources.redis_stream.address import pool, refused
from event_archive.sources.redis_stream.records import Entry
from event_archive.sources.redis_stream.replies import keep_all_fields

BLOCK_SECONDS = 1.0
"""How long a read waits for the first entry: a consumer that is told to stop hears of it that late."""
_REMOVE = """
if #redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2]) > 0 then return -1 end
return redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
"""
"""Both at once, since whoever deletes a consumer deletes what it has pending."""
_HAS = "return #redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])"
"""Without the entry, whose size may be what ends the process."""
_GONE = ("NOGROUP", "UNBLOCKED", "no such key")
"""What Redis says, in other words at times, where the group or the stream is not there, or goes while a read waits."""
_PASSING = (
    *(ConnectionError, TimeoutError, InvalidResponse),
    *(ReadOnlyError, OutOfMemoryError, ClusterDownError, TryAgainError),
)
"""Of a connection, and of servers that fail over, load or are full."""
_NO_PERMISSION = ("no permissions", "can't run this command", "can't access at least one of the keys")
"""Of a script: its error is another one. Redis 6.2 says the second and the third."""
_PASSING_WORDS = ("MISCONF", "NOREPLICAS", "BUSY ")
"""What servers say that cannot save, or are held up by a script."""


class StreamAwayError(UnreachableError):
    """Redis cannot be reached, or cannot serve for a while."""


class NoGroupError(EventArchiveError):
    """The consumer group is not there, or not any more."""


@dataclass(frozen=True, slots=True)
class Pending:
    """An entry that was delivered and is not acknowledged.

    Attributes:
        id: the entry's.
        deliveries: how often it was delivered; or the number that ``Group.mark`` gave it, and deliveries since.
    """

    id: bytes
    deliveries: int


@dataclass(frozen=True, slots=True)
class Group:
    """A consumer group.

    Each method may raise StreamAwayError, NoGroupError, and ConfigurationError where Redis refuses.

    Attributes:
        stream: the stream's key.
        name: the group's.
        consumer: this process's name in it.
    """

    stream: str
    name: str
    consumer: str
    _redis: Redis = field(repr=False)

    def create(self) -> bool:
        """Makes the group, from the stream's beginning, and the stream, where they are missing; whether it did."""
        with self._told():
            try:
                self._redis.xgroup_create(self.stream, self.name, id="0", mkstream=True)
            except OutOfMemoryError as full:
                # Said also where the group is there, which may be read all the same.
                try:
                    self._redis.xpending(self.stream, self.name)
                except ResponseError:
                    raise full from None
                return False
            except ResponseError as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise
                return False
        return True

    def new(self, count: int, *, may_wait: bool = True) -> list[Entry]:
        """Entries that nobody was given yet, as soon as there is one; none after ``BLOCK_SECONDS``, or at once."""
        return self._read(b">", count, block=int(BLOCK_SECONDS * 1000) if may_wait else None)

    def given(self, after: bytes, count: int) -> list[Entry]:
        """Pending entries of this consumer, delivered once more; those that were trimmed have no fields.

        Args:
            after: the id that theirs follow.
            count: how many at most.
        """
        return self._read(after, count)

    def pending(self, count: int) -> list[Pending]:
        """What this consumer was given and has not acknowledged, the oldest first."""
        return [Pending(of["message_id"], of["times_delivered"]) for of in self._pending(count, self.consumer)]

    def pending_entries(self) -> int:
        """How many entries the whole group was given and has not acknowledged."""
        with self._told():
            return int(self._redis.xpending(self.stream, self.name)["pending"])

    def idle(self, seconds: float, count: int) -> list[bytes]:
        """Ids of what was delivered so long ago and is not acknowledged, the oldest first.

        Those of this consumer are among them: it may never have heard of a read that arrived late, or was another
        process's of the same name.
        """
        return [of["message_id"] for of in self._pending(count, idle_ms=int(seconds * 1000))]

    def entry(self, of: bytes) -> Entry:
        """An entry by its id, which is not delivered by it; without fields where it was trimmed."""
        with self._told():
            found = cast("list[tuple[bytes, Any]]", self._redis.xrange(self.stream, of, of))
        return Entry(*found[0]) if found else Entry(of, {})

    def trimmed(self, ids: Sequence[bytes]) -> set[bytes]:
        """Those that the stream does not have any more."""
        with self._told():
            pipeline = self._redis.pipeline(transaction=False)
            for of in ids:
                pipeline.eval(_HAS, 1, self.stream, of)
            found = pipeline.execute()
        return {of for of, number in zip(ids, found, strict=True) if not number}

    def claim(self, ids: Sequence[bytes], seconds: float) -> set[bytes]:
        """Takes over what is still pending, and idle for so long; returns what it was.

        Entries that were trimmed are pending of nobody afterwards: look for them before.
        """
        with self._told():
            idle_ms = int(seconds * 1000)
            return {*self._redis.xclaim(self.stream, self.name, self.consumer, idle_ms, list(ids), justid=True)}

    def mark(self, of: bytes, deliveries: int) -> None:
        """Gives a pending entry another number of deliveries."""
        with self._told():
            self._redis.xclaim(self.stream, self.name, self.consumer, 0, [of], retrycount=deliveries, justid=True)

    def acknowledge(self, ids: Sequence[bytes]) -> None:
        """Ends what is pending, of whichever consumer."""
        with self._told():
            self._redis.xack(self.stream, self.name, *ids)

    def leave(self) -> bool:
        """Takes this consumer out of the group, unless something is pending of it; whether it did."""
        return self._remove(self.consumer.encode())

    def remove_dead(self, seconds: float) -> int:
        """Takes others out of the group that were not heard of for so long and have nothing pending; how many."""
        with self._told():
            known = self._redis.xinfo_consumers(self.stream, self.name)
        dead = [of["name"] for of in known if not of["pending"] and of["idle"] >= seconds * 1000]
        return sum(self._remove(name) for name in dead if name != self.consumer.encode())

    def _remove(self, consumer: bytes) -> bool:
        with self._told():
            pending = self._redis.eval(_REMOVE, 1, self.stream, self.name, consumer)
        return bool(pending == 0)

    def _read(self, after: bytes, count: int, block: int | None = None) -> list[Entry]:
        with self._told():
            reply = self._redis.xreadgroup(self.name, self.consumer, {self.stream: after}, count=count, block=block)
        return [Entry(*of) for found in cast("dict[bytes, Any]", reply).values() for of in found]

    def _pending(self, count: int, consumer: str | None = None, idle_ms: int | None = None) -> list[dict[str, Any]]:
        with self._told():
            found = self._redis.xpending_range(self.stream, self.name, "-", "+", count, consumer, idle_ms)
        return cast("list[dict[str, Any]]", found)

    @contextmanager
    def _told(self) -> Iterator[None]:
        with _told(self.stream, self.name):
            yield


@contextmanager
def open_group(settings: StreamSettings) -> Iterator[Group]:
    """A connection with Redis, for one thread.

    Raises:
        StreamAwayError: there is none.
        ConfigurationError: REDIS_URL is wrong, or Redis refuses.
    """
    stream, name = settings.stream_key, settings.stream_group
    with _told(stream, name):
        redis = _connect(settings.redis_url.get_secret_value())
    try:
        yield Group(stream, name, settings.consumer, redis)
    finally:
        redis.close()


@contextmanager
def looking(settings: StreamSettings) -> Iterator[Redis]:
    """A connection for looking at the stream from outside; what redis-py raises in the block is raised as ours.

    Raises:
        StreamAwayError: Redis cannot be reached, or cannot serve for a while.
        ConfigurationError: REDIS_URL is wrong, or Redis refuses.
    """
    with open_group(settings) as group, _told(group.stream, group.name):
        yield group._redis  # noqa: SLF001 (of this module)


def _connect(url: str) -> Redis:
    of_url = pool(url)
    try:
        redis = Redis(connection_pool=of_url, single_connection_client=True)
    except (TypeError, ValueError):
        raise refused() from None
    keep_all_fields(redis)
    return redis


@contextmanager
def _told(stream: str, group: str) -> Iterator[None]:
    """What redis-py raises in this block is raised as the error that people see."""
    try:
        yield
    except RedisError as error:
        # Not chained: redis-py's own words are in it.
        raise _error(error, stream, group) from None


def _error(error: RedisError, stream: str, group: str) -> EventArchiveError:
    words = " ".join(str(error).split()).rstrip(".")
    if isinstance(error, AuthenticationError | AuthenticationWrongNumberOfArgsError):
        return ConfigurationError(f"Redis refuses the connection: {words}. Check user and password in REDIS_URL.")
    # Where a script lacks a permission, the error is one of the script.
    if isinstance(error, NoPermissionError) or any(of in words for of in _NO_PERMISSION):
        return ConfigurationError(
            f"{stream}: Redis says: {words}. The user of REDIS_URL needs, on the key {stream}: +xgroup +xreadgroup "
            "+xack +xpending +xclaim +xinfo +xrange +xrevrange +time +eval; and +select where the URL names another "
            "database than 0. Let ACL SETUSER give it these, or connect as another user."
        )
    if isinstance(error, AskError):
        return ConfigurationError(
            f"{stream} is on another node of a Redis Cluster, which is not supported. Let REDIS_URL name a server."
        )
    if any(of in words for of in _GONE):
        return NoGroupError(f"{stream}: the consumer group {group} is gone.")
    if str(error).startswith("WRONGTYPE"):
        return ConfigurationError(f"{stream} is no stream: the key holds a value of another type. Check STREAM_KEY.")
    if refused := untrusted(error, "Redis", check="REDIS_URL", variable="its parameter ssl_ca_certs"):
        return ConfigurationError(str(refused))
    if isinstance(error, _PASSING) or str(error).startswith(_PASSING_WORDS):
        return StreamAwayError(f"Redis cannot be reached, or cannot serve: {words}. Check REDIS_URL and the server.")
    return ConfigurationError(
        f"{stream}: Redis refuses: {words}. Redis 6.2 or newer is needed, or Valkey; check REDIS_URL."
    )
