"""Redis or PostgreSQL that goes away, refuses, or never answered; the numbers are those of the list of cases."""

import logging

import pytest

from event_archive.errors import ConfigurationError, UnreachableError
from event_archive.sources.redis_stream.group import StreamAwayError
from event_archive.sources.runs import RECONNECT_SECONDS
from event_archive_tests.faults.redis_wire import RedisWire
from event_archive_tests.faults.wire import Trouble, Wire, any_message
from event_archive_tests.fixtures.streaming import Background
from event_archive_tests.fixtures.valkey import GROUP, KEY, Stream, position
from event_archive_tests.fixtures.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("hurried")]


# 7
def test_while_postgresql_is_down_nothing_is_acknowledged_or_rejected_and_reading_stops(
    stream: Stream, database_line: Wire, caplog: pytest.LogCaptureFixture
):
    stream.add(*map(position, range(10)))
    with Background(stream, stream_batch=10) as consumer:
        until(lambda: consumer.totals.counts.new == 10)
        database_line.shut()
        cut = database_line.expect(Trouble("client", any_message))
        stream.add(*map(position, range(10, 50)))
        until(cut.met.is_set)
        pending = stream.pending()
        until(lambda: consumer._attempt > len(RECONNECT_SECONDS))
        assert stream.pending() == pending != {}
        assert consumer.metrics.still_seconds < 5, "it is alive"
        database_line.open()
        until(stream.is_drained)
    assert (consumer.totals.counts.new, consumer.totals.counts.rejected) == (50, 0)
    assert consumer.totals.reconnects == 1
    warnings = [of.message for of in caplog.records if of.levelno == logging.WARNING]
    assert len(warnings) == 1, "it is said once"
    assert warnings[0].endswith("Nothing is read meanwhile.")


# 8
@pytest.mark.parametrize("how", ["group destroyed", "stream deleted", "server flushed"])
def test_a_group_that_is_gone_is_made_again_from_the_beginning_of_the_stream(each_stream: Stream, how: str):
    stream = each_stream
    redis = stream.server.redis
    with Background(stream) as consumer:
        stream.add(*map(position, range(10)))
        until(lambda: consumer.totals.counts.new == 10)
        if how == "group destroyed":
            redis.xgroup_destroy(KEY, GROUP)
        elif how == "stream deleted":
            redis.delete(KEY)
        else:
            redis.flushall()
        until(lambda: consumer.totals.groups_recreated == 1)
        stream.add(*map(position, range(10, 20)))
        until(lambda: consumer.totals.counts.new == 20)
    assert consumer.totals.counts.known == (10 if how == "group destroyed" else 0)
    assert stream.rows() == list(range(20))
    assert b"groups_recreated_total{" in consumer.metrics.text()


# 9
def test_a_group_that_is_there_goes_on_where_it_is(each_stream: Stream):
    each_stream.add(position(0))
    each_stream.server.redis.xgroup_create(KEY, GROUP, id="$")
    each_stream.add(position(1))
    assert each_stream.run().counts.new == 1
    assert each_stream.rows() == [1]


# 9
def test_a_key_of_another_type_is_a_wrong_setting(each_stream: Stream):
    each_stream.server.redis.set(KEY, "a text")
    with pytest.raises(ConfigurationError, match="telemetry:t is no stream.*Check STREAM_KEY"):
        each_stream.run()


# 9
@pytest.mark.parametrize(
    ("credentials", "words"),
    [
        ("", "Redis refuses the connection.*Check user and password in REDIS_URL"),
        ("default:wrong", "Redis refuses the connection.*Check user and password in REDIS_URL"),
        ("somebody:wrong", "Redis refuses the connection"),
        ("reader:secret", "needs, on the key telemetry:t: .xgroup .xreadgroup"),
    ],
)
def test_a_refusal_is_a_wrong_setting_with_what_to_do(each_stream: Stream, credentials: str, words: str):
    each_stream.set_user("reader", "on", ">secret", "~*", "+get", "+ping")
    each_stream.set_user("default", "resetpass", ">another")
    url = f"unix://{credentials}@{each_stream.server.socket}".replace("//@", "//")
    with pytest.raises(ConfigurationError, match=words) as refused:
        each_stream.run(redis_url=url)
    assert "secret" not in str(refused.value)
    assert "wrong" not in str(refused.value)


# 9
def test_a_user_with_the_rights_that_the_message_names_is_enough(each_stream: Stream):
    rights = ["+xgroup", "+xreadgroup", "+xack", "+xpending", "+xclaim", "+xinfo", "+xrange", "+eval"]
    each_stream.set_user("app", "reset", "on", ">secret", f"~{KEY}", *rights)
    each_stream.add(*map(position, range(10)))
    each_stream.read_as("gone", 5)
    totals = each_stream.run(redis_url=f"unix://app:secret@{each_stream.server.socket}", stream_claim_idle="1 second")
    assert (totals.counts.new, totals.claimed) == (10, 5)


# 9
@pytest.mark.parametrize("url", ["unix:///nowhere", "redis://127.0.0.1:1"])
def test_a_server_that_never_answered_ends_the_consumer_after_a_while(stream: Stream, url: str):
    with pytest.raises(StreamAwayError, match="Check REDIS_URL and the server"):
        stream.run(redis_url=url)


# 9
@pytest.mark.parametrize(
    "parameter",
    [
        *("nonsense=1", "cache=1", "retry_on_error=x", "credential_provider=x", "event_dispatcher=x"),
        *("maint_notifications_config=x", "encoding_errors=bogus", "socket_timeout=soon", "protocol=9"),
        *(
            "client_name=a%20b",
            "ssl_ciphers=bogus",
            "ssl_ca_data=abc",
            "ssl_cert_reqs=bogus",
            "pa55%2Fw0rd=1",
            "pa55=1@h",
        ),
        "socket_read_size=0",
    ],
)
def test_a_parameter_of_the_url_that_nobody_knows_is_a_wrong_setting(stream: Stream, parameter: str):
    scheme = "rediss" if "ssl" in parameter else "redis"
    with pytest.raises(ConfigurationError, match="has a parameter that redis-py does not know") as caught:
        stream.run(redis_url=f"{scheme}://127.0.0.1:1?{parameter}")
    assert "pa55" not in str(caught.value)


# 22
def test_redis_that_restarts_is_waited_for_and_nothing_is_lost_or_doubled(
    each_stream: Stream, caplog: pytest.LogCaptureFixture
):
    stream = each_stream
    with Background(stream, stream_batch=10) as consumer:
        for number in range(5):
            stream.add(*map(position, range(number * 100, number * 100 + 100)))
            until(lambda: consumer.totals.counts.new > number * 100)  # noqa: B023 (waited for in the loop)
            stream.server.restart()
            until(lambda: consumer.totals.reconnects == number + 1)  # noqa: B023 (as above)
        until(stream.is_drained)
    assert stream.rows() == list(range(500))
    warnings = [of.message for of in caplog.records if of.levelno == logging.WARNING]
    assert len(warnings) == 5, "each is said once"


# 22
def test_both_that_go_away_are_told_apart(
    stream: Stream, redis_line: RedisWire, database_line: Wire, caplog: pytest.LogCaptureFixture
):
    stream.add(*map(position, range(10)))
    with Background(stream) as consumer:
        until(lambda: consumer.totals.counts.new == 10)
        database_line.shut()
        database_line.expect(Trouble("client", any_message))
        stream.add(*map(position, range(10, 20)))
        until(lambda: "postgres" in consumer._away_since)
        redis_line.shut()
        until(lambda: "redis" in consumer._away_since)
        redis_line.open()
        database_line.open()
        until(lambda: consumer.totals.counts.new == 20)
    assert consumer.totals.reconnects == 2
    assert len([of for of in caplog.records if of.levelno == logging.WARNING]) == 2


# 22
def test_postgresql_that_never_answered_ends_the_consumer_after_a_while(stream: Stream, database_line: Wire):
    database_line.shut()
    with pytest.raises(UnreachableError, match="PostgreSQL cannot be reached"):
        stream.run()
    assert not stream.server.redis.exists(KEY)
