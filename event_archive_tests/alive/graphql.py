"""What the scenario asks of Dagster through its webserver."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from event_archive_tests.fixtures.graphql import LOCATION, REPOSITORY_NAME, Webserver

_ENDED = {"SUCCESS", "FAILURE", "CANCELED"}
_REPOSITORY = {"repositoryLocationName": LOCATION, "repositoryName": REPOSITORY_NAME}
_SELECTOR = {**_REPOSITORY, "scheduleName": "archive_daily"}

_RUNS = "{ runsOrError { ... on Runs { results { runId status tags { key value } } } } }"
_BACKFILL = """
query Backfill($id: String!) { partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { status } } }
"""
_LAUNCH_BACKFILL = """
mutation LaunchBackfill($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}
"""
_SCHEDULE = """
query Schedule($selector: ScheduleSelector!) {
  scheduleOrError(scheduleSelector: $selector) { ... on Schedule { scheduleState { id status } } }
}
"""
_PREVIEW = """
mutation Preview($selector: ScheduleSelector!, $at: Float!) {
  scheduleDryRun(selectorData: $selector, timestamp: $at) {
    ... on DryRunInstigationTick { evaluationResult { runRequests { tags { key value } } } }
  }
}
"""
_STOP_SCHEDULE = """
mutation Stop($id: String!) {
  stopRunningSchedule(id: $id) { ... on ScheduleStateResult { scheduleState { status } } }
}
"""


@dataclass(frozen=True)
class Run:
    """One run, as Dagster's records show it."""

    id: str
    status: str
    tags: dict[str, str]

    @property
    def day(self) -> str:
        return self.tags["dagster/partition"]

    @property
    def ended(self) -> bool:
        return self.status in _ENDED


class Dagster(Webserver):
    """The running installation."""

    def runs(self, **tags: str) -> list[Run]:
        """The runs that carry the tags, ``_`` standing for ``/``; the latest first."""
        found = self.ask(_RUNS)["runsOrError"]["results"]
        wanted = {name.replace("_", "/", 1): value for name, value in tags.items()}.items()
        runs = [Run(run["runId"], run["status"], {tag["key"]: tag["value"] for tag in run["tags"]}) for run in found]
        return [run for run in runs if wanted <= run.tags.items()]

    def scheduled(self, days: list[str]) -> list[Run]:
        """The schedule's runs of some days."""
        return [run for run in self.runs(dagster_schedule_name="archive_daily") if run.day in days]

    def statuses(self, **tags: str) -> dict[str, int]:
        return dict(Counter(run.status for run in self.runs(**tags)))

    @property
    def idle(self) -> bool:
        return all(run.ended for run in self.runs())

    def launch_backfill(self, assets: tuple[str, ...], days: list[str]) -> str:
        """Launches what the dialog of several partitions launches, and returns its id."""
        params: dict[str, Any] = {"assetSelection": [{"path": [asset]} for asset in assets], "partitionNames": days}
        launched = self.ask(_LAUNCH_BACKFILL, params=params)["launchPartitionBackfill"]
        assert launched["__typename"] == "LaunchBackfillSuccess", launched
        backfill_id: str = launched["backfillId"]
        return backfill_id

    def backfill_status(self, backfill_id: str) -> str:
        status: str = self.ask(_BACKFILL, id=backfill_id)["partitionBackfillOrError"]["status"]
        return status

    def schedule_state(self) -> dict[str, str]:
        state: dict[str, str] = self.ask(_SCHEDULE, selector=_SELECTOR)["scheduleOrError"]["scheduleState"]
        return state

    def preview(self, at: float) -> list[dict[str, str]]:
        """The tags of the runs that a tick at a time, Unix seconds, would launch, as the schedule's page shows them."""
        found = self.ask(_PREVIEW, selector=_SELECTOR, at=at)["scheduleDryRun"]["evaluationResult"]["runRequests"]
        return [{tag["key"]: tag["value"] for tag in request["tags"]} for request in found]

    def stop_schedule(self) -> None:
        self.ask(_STOP_SCHEDULE, id=self.schedule_state()["id"])
        assert self.schedule_state()["status"] == "STOPPED"
