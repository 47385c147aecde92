"""How often a pass has begun again for cursors that are refused. Not here: where it begins (``shards``)."""

from dataclasses import dataclass
from datetime import datetime

from event_archive.errors import RefusedError

_MOST_IN_VAIN = 2


@dataclass(slots=True)
class Restarts:
    """Those of one shard in one run."""

    _furthest_pages: int = 0
    _furthest: datetime | None = None
    _in_vain: int = 0

    def count(self, pages: int, watermark: datetime | None, url: str) -> None:
        """Counts one.

        Args:
            pages: of the pass that came to no end.
            watermark: behind it.
            url: of the API.

        Raises:
            RefusedError: it got no further than before, twice.
        """
        further = pages > self._furthest_pages or watermark != self._furthest
        self._in_vain = 0 if further else self._in_vain + 1
        self._furthest_pages, self._furthest = max(self._furthest_pages, pages), watermark
        if self._in_vain == _MOST_IN_VAIN:
            raise RefusedError(
                f"{url} does not know its cursors any more before a pass is at its end, and begins again without "
                f"getting further than {self._furthest_pages} pages. What arrived is kept. Raise API_PAGE_LIMIT, or "
                "ask for windows of time (API_SHARD, API_TIME_FILTER) where the API has them."
            )
