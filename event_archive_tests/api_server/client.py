"""The plainest client of the API, for the API's own tests. Not here: anything that copes with a fault."""

from collections.abc import Iterator
from typing import Any

import urllib3

from event_archive_tests.api_server.running import ApiServer

Json = dict[str, Any]


class Client:
    """Asks one API, once, and takes what it gets."""

    def __init__(self, pool: urllib3.PoolManager, api: ApiServer) -> None:
        self._pool = pool
        self._api = api

    def get(self, address: str = "/events", **parameters: Any) -> urllib3.BaseHTTPResponse:
        url = address if address.startswith("http") else self._api.url + address
        headers = {"X-API-Key": self._api.key, "Accept-Encoding": "gzip"}
        fields = {name: str(value) for name, value in parameters.items() if value is not None}
        return self._pool.request("GET", url, fields=fields or None, headers=headers)

    def page(self, **parameters: Any) -> Json:
        answer = self.get(**parameters)
        assert answer.status == 200
        return dict(answer.json())

    def pages(self, most: int = 100, **parameters: Any) -> Iterator[Json]:
        """Page after page of the flat envelope, until there are no more, or so many."""
        cursor = None
        for _ in range(most):
            page = self.page(cursor=cursor, **parameters)
            yield page
            cursor = page["nextCursor"]
            if not page["hasMore"]:
                return

    def events(self, **parameters: Any) -> list[Json]:
        return [event for page in self.pages(**parameters) for event in page["data"] or []]
