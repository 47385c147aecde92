"""Addresses of Pushgateways that no request can be made to, and answers that no Pushgateway gives."""

import pytest
from prometheus_client import CollectorRegistry

from event_archive.errors import UnreachableError
from event_archive.observability.pushgateway import push_registry
from event_archive_tests.fixtures.servers import answering


def test_a_path_that_is_no_ascii_is_told_without_it():
    with pytest.raises(UnreachableError, match=r"^METRICS_PUSHGATEWAY cannot be asked \(UnicodeEncodeError\)") as told:
        push_registry("http://127.0.0.1:9/sécret", CollectorRegistry(), {})
    assert "cret/" not in str(told.value)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirection_is_not_followed(status: int):
    """The figures would not go with it, and the password would."""
    asked: list[str] = []
    with (
        answering(b"", asked=asked) as elsewhere,
        answering(b"", status, {"Location": elsewhere}) as url,
        pytest.raises(UnreachableError, match=f"METRICS_PUSHGATEWAY answers {status}"),
    ):
        push_registry(url.replace("://", "://user:s3cr3t@"), CollectorRegistry(), {})
    assert asked == []


def test_a_page_of_somebody_else_is_no_gateways_answer():
    with (
        answering(b"<html>", headers={"Content-Type": "text/html"}) as url,
        pytest.raises(UnreachableError, match="METRICS_PUSHGATEWAY answers with a web page"),
    ):
        push_registry(url, CollectorRegistry(), {})
