"""The ingestion of an API, over connections that may break. Not here: who fetches and who lands (``crew``)."""

import time
from dataclasses import dataclass

from event_archive.errors import EventArchiveError, UnreachableError
from event_archive.sources.http_api.crew import Crew
from event_archive.sources.http_api.task import Task, Totals
from event_archive.sources.runs import work_connected


@dataclass(frozen=True, slots=True)
class Ingestion(Task):
    """A run over an API."""

    def run(self) -> Totals:
        """Takes in all there is. What of it failed is in ``failures``, whatever is raised.

        Raises:
            UnreachableError: the database is away for longer than a run waits.
            RefusedError: the database refuses, or too many events were rejected.
            BusyError: others kept locks for too long.
            IntegrityError: the books do not balance.
        """
        began = time.monotonic()
        try:
            work_connected(
                self.settings.postgres,
                lambda session, former: Crew(self, session, former, began).work(),
                done=lambda: self.totals.pages,
                told_to_stop=self.told_to_stop,
                meanwhile=" Nothing is fetched meanwhile.",
            )
            if self.totals.ended == "budget" and not self.totals.pages:
                self.totals.failures.append(
                    UnreachableError(
                        f"{self.settings.url}: no page arrived before RUN_BUDGET ended: the API is out of reach, "
                        "refuses each request, or answers none in time. Nothing was taken in; the next run tries again."
                    )
                )
            return self.totals
        except EventArchiveError:
            self.totals.ended = "failed"
            raise
        finally:
            self.totals.seconds = time.monotonic() - began
