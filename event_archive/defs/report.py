"""What a command tells Dagster of the days it did: the one way from the command line to an instance's records.

Here: materializations and check evaluations that belong to no run, with the metadata that the assets record. The UI
shows the days, and the purge's gate sees them, as if a run had done them. Not here: doing the days.

No ``dagster/code_version`` is recorded with them: Dagster would then want to know of each input's version too, and take
the day for outdated without. As it is, it goes by the time of the materializations.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from typing import TYPE_CHECKING
from uuid import uuid4

import dagster as dg

from event_archive.defs.checks import ARCHIVE_IS_WHOLE
from event_archive.defs.columns import columns_of_file
from event_archive.defs.gate import asset_keys, record_if_any, warn_of_lost_rows
from event_archive.defs.metadata import (
    Metadata,
    aged_metadata,
    archive_metadata,
    check_description,
    check_metadata,
    purge_metadata,
    purges_of_others,
)
from event_archive.defs.preview import preview_of_day
from event_archive.defs.records import instance_of_environment, out_of_reach, records_errors, unwritable
from event_archive.domain.dataset import Dataset
from event_archive.domain.record import Record
from event_archive.lake.protocol import Lake
from event_archive.operations.archive import ArchivedDay
from event_archive.operations.purge import PurgedDay
from event_archive.table.rows import RowsOfDay

if TYPE_CHECKING:
    # pyarrow is slow to import, and only a command that verifies needs it.
    from event_archive.operations.verify import VerifiedDay


@contextmanager
def reporting() -> Iterator["Callable[[Dataset], DayReports]"]:
    """Reports of days to the instance of DAGSTER_HOME, made for each dataset.

    Raises:
        ConfigurationError: DAGSTER_HOME is no folder.
        RecordsError: the records cannot be opened.
    """
    with instance_of_environment() as instance:
        yield lambda dataset: DayReports(dataset, instance)


class DayReports:
    """Reports what was done to days, each at once.

    Every method raises ``RecordsError`` where the records cannot be read or written. What was done to the day stands.

    Args:
        dataset: whose days.
        instance: Dagster's records.
    """

    def __init__(self, dataset: Dataset, instance: dg.DagsterInstance) -> None:
        self._dataset = dataset
        self._keys = asset_keys(dataset)
        self._instance = instance
        self._check_run_id = str(uuid4())
        self._lost = dict[date, str]()

    def recorded(self, day: date) -> Record | None:
        """What is recorded of a day's file, for a purge whose partitions hold rows of that day, too.

        Raises:
            IntegrityError: it was recorded by hand.
        """
        try:
            return record_if_any(self._instance, self._dataset, day)
        except records_errors() as error:
            raise out_of_reach(error) from None

    def counted(self, day: date, rows: RowsOfDay) -> None:
        """As ``aged_events``."""
        with self._writing(day):
            self._materialized(self._keys.aged_events, day, aged_metadata(rows))

    def archived(self, archived: ArchivedDay, lake: Lake) -> None:
        """As ``archive_csv``, which opens the gate of the day's purge.

        Args:
            archived: the day.
            lake: where its file lies, for the preview.

        Raises:
            FileChangedError, RefusedError, UnreachableError: as the lake says.
        """
        with self._writing(archived.day):
            self._lost[archived.day] = warn_of_lost_rows(self._instance, self._dataset, archived)
            preview = preview_of_day(self._instance, self._dataset, archived, lake)
            metadata = archive_metadata(archived, preview, columns_of_file(archived, lake))
            self._materialized(self._keys.archive_csv, archived.day, metadata)

    def purged(self, purged: PurgedDay) -> None:
        """As ``purged_events``, for days that went with it as well."""
        with self._writing(purged.day):
            for each in [*purges_of_others(purged), purged]:
                self._materialized(self._keys.purged_events, each.day, purge_metadata(each))

    def verified(self, verified: "VerifiedDay") -> None:
        """As the check ``archive_is_whole``."""
        lost = self._lost.get(verified.day, "")
        evaluation = dg.AssetCheckEvaluation(
            asset_key=self._keys.archive_csv,
            check_name=ARCHIVE_IS_WHOLE,
            passed=not (verified.problems or lost),
            description=check_description(verified, lost),
            metadata=check_metadata(verified),
            partition=verified.day.isoformat(),
        )
        # Dagster 1.13 keeps one evaluation of a check, a partition and a run, and events without a run share one.
        event = dg.DagsterEvent(
            dg.DagsterEventType.ASSET_CHECK_EVALUATION.value, job_name="", event_specific_data=evaluation
        )
        with self._writing(verified.day):
            self._instance.report_dagster_event(event, self._check_run_id)

    def _materialized(self, key: dg.AssetKey, day: date, metadata: Metadata) -> None:
        self._instance.report_runless_asset_event(
            dg.AssetMaterialization(key, partition=day.isoformat(), metadata=metadata)
        )

    @contextmanager
    def _writing(self, day: date) -> Iterator[None]:
        try:
            yield
        except records_errors() as error:
            raise unwritable(error, f"{self._dataset.label}, {day}") from None
