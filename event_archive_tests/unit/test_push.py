"""An address of a Pushgateway that no request can be made to."""

import pytest
from prometheus_client import CollectorRegistry

from event_archive.errors import UnreachableError
from event_archive.observability.metrics import push_registry


def test_a_path_that_is_no_ascii_is_told_without_it():
    with pytest.raises(UnreachableError, match=r"^METRICS_PUSHGATEWAY cannot be asked \(UnicodeEncodeError\)") as told:
        push_registry("http://127.0.0.1:9/sécret", CollectorRegistry(), {})
    assert "cret/" not in str(told.value)
