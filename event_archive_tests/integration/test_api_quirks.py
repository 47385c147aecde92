"""Ways of their own that APIs have with pages and links, and settings that do not fit an API: never a silent end.

The hardest cases have files of their own.
"""

from typing import Any

import pytest

from event_archive.errors import RefusedError
from event_archive_tests.fixtures.ingestion import Ingest


@pytest.mark.parametrize("links", ["lines", "loose"])
def test_a_link_is_found_however_the_header_is_written(ingest: Ingest, links: str):
    ingesting = ingest(pagination="link", links=links)
    assert ingesting.run(api_pagination="link").failures == []
    assert len(ingesting.api.requests) == 5
    assert ingesting.has_all()
