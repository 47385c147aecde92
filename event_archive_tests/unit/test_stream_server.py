"""What a consumer of a stream answers to Prometheus and Kubernetes."""

import re
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from event_archive.errors import ConfigurationError, UnreachableError
from event_archive.sources.landing import Counts
from event_archive.sources.redis_stream import server
from event_archive.sources.redis_stream.metrics import Metrics
from event_archive.sources.redis_stream.server import serving
from event_archive.sources.redis_stream.state import GroupState

BEHIND = GroupState(
    length=9,
    last=b"9-0",
    consumers=1,
    lag_entries=None,
    lag_seconds=2.5,
    pending=3,
    oldest_pending_seconds=7.5,
    settled=b"(5-0",
)


def look() -> GroupState:
    return BEHIND


def out_of_reach() -> GroupState:
    raise UnreachableError("Redis does not answer.")


@contextmanager
def page(path: str, metrics: Metrics, **services: object) -> Iterator[tuple[int, str]]:
    with serving(0, metrics, look, services) as port:  # type: ignore[arg-type]
        yield ask(port, path)


def ask(port: int, path: str, host: str = "127.0.0.1") -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{host}:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def samples(text: str) -> dict[tuple[str, str], float]:
    """Each value by the metric's name and the label that is its own."""
    return {
        (sample.name, sample.labels.get("outcome", sample.labels.get("service", ""))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if "le" not in sample.labels
    }


def test_a_scrape_tells_what_was_consumed_and_what_became_of_it():
    metrics = Metrics("telemetry:t", "processor")
    metrics.batch(Counts(taken=10, new=4, known=3, superseded=1, rejected=1, lost=1), 0.5, 0.25)
    metrics.batch(Counts(taken=1, too_old=1), 0.5, 0.25)
    metrics.reconnected("postgres")
    metrics.group_recreated()
    metrics.devices(7)
    with page("/metrics", metrics) as (status, text):
        assert status == 200
    found = samples(text)
    of = {outcome: value for (name, outcome), value in found.items() if name == "event_archive_stream_entries_total"}
    assert of == {"new": 4, "known": 3, "superseded": 1, "rejected": 1, "too_old": 1, "lost": 1}
    assert found["event_archive_stream_entries_consumed_total", ""] == sum(of.values())
    assert found["event_archive_stream_batch_seconds_count", ""] == 2
    assert found["event_archive_stream_write_seconds_sum", ""] == 0.5
    assert found["event_archive_stream_reconnects_total", "postgres"] == 1
    assert found["event_archive_stream_reconnects_total", "redis"] == 0
    assert found["event_archive_stream_groups_recreated_total", ""] == 1
    assert found["event_archive_stream_devices", ""] == 7
    assert 'event_archive_stream_devices{group="processor",stream="telemetry:t"}' in text


def test_each_scrape_looks_at_the_group():
    with page("/metrics", Metrics("s", "g")) as (_, text):
        pass
    found = samples(text)
    assert found["event_archive_stream_lag_seconds", ""] == 2.5
    assert found["event_archive_stream_pending_entries", ""] == 3
    assert found["event_archive_stream_pending_oldest_seconds", ""] == 7.5
    assert str(found["event_archive_stream_lag_entries", ""]) == "nan"


def test_a_scrape_while_redis_is_away_tells_no_lag_rather_than_an_old_one():
    metrics = Metrics("s", "g")
    metrics.state(1, 1, 1, 1)
    with serving(0, metrics, out_of_reach, {}) as port:
        status, text = ask(port, "/metrics")
    assert status == 200
    assert str(samples(text)["event_archive_stream_lag_seconds", ""]) == "nan"


def test_a_consumer_whose_loop_stands_still_is_not_healthy(monkeypatch: pytest.MonkeyPatch):
    metrics = Metrics("s", "g")
    with page("/healthz", metrics, redis=out_of_reach) as (status, _):
        assert status == 200
    monkeypatch.setattr(server, "STILL_SECONDS", -1.0)
    with page("/healthz", metrics) as (status, text):
        assert status == 503
    assert "has not gone round" in text


def test_a_consumer_is_ready_where_both_services_answer():
    with page("/readyz", Metrics("s", "g"), redis=look, postgres=look) as (status, text):
        assert (status, text) == (200, "ok\n")
    with page("/readyz", Metrics("s", "g"), redis=out_of_reach, postgres=look) as (status, text):
        assert (status, text) == (503, "redis: Redis does not answer.\n")


def test_a_consumer_that_waits_for_a_service_which_answers_is_not_ready():
    metrics = Metrics("s", "g")
    metrics.away = {"redis": "Redis takes no writes."}
    with page("/readyz", metrics, redis=look, postgres=look) as (status, text):
        assert (status, text) == (503, "redis: Redis takes no writes.\n")


def test_a_service_that_answers_again_is_not_told_as_away_while_the_consumer_waits_for_another():
    metrics = Metrics("s", "g")
    metrics.away = {"redis": "Redis does not answer.", "postgres": "PostgreSQL cannot be reached."}
    with page("/readyz", metrics, redis=out_of_reach, postgres=look) as (status, text):
        assert (status, text) == (503, "redis: Redis does not answer.\n")


def test_any_other_page_is_not_there():
    with page("/", Metrics("s", "g")) as (status, _):
        assert status == 404


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_a_cluster_of_ipv6_is_answered_too():
    with serving(0, Metrics("s", "g"), look, {}) as port:
        assert ask(port, "/readyz", "[::1]")[0] == 200


def test_a_port_that_is_taken_is_a_wrong_setting():
    with (
        serving(0, Metrics("s", "g"), look, {}) as port,
        pytest.raises(ConfigurationError, match=f"HTTP_PORT is {port}"),
        serving(port, Metrics("s", "g"), look, {}),
    ):
        pass


def test_somebody_who_hangs_up_is_no_news(capfd: pytest.CaptureFixture[str]):
    with serving(0, Metrics("s", "g"), look, {}) as port:
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                client.sendall(b"GET /metrics HTTP/1.1\r\n")
        assert ask(port, "/readyz")[0] == 200
    assert capfd.readouterr().err == ""


def test_the_documentation_names_each_metric():
    text = (Path(__file__).parents[2] / "docs/howto/stream.md").read_text()
    documented = set(re.findall(r"^\| `(event_archive_stream_\w+)", text, re.MULTILINE))
    told = Metrics("s", "g").text().decode()
    assert documented == set(re.findall(r"^# TYPE (event_archive_stream_\w+)", told, re.MULTILINE))
