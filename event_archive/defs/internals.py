"""Dagster's private modules: the one file that imports them, so that an upgrade has one file to look through.

Here: names that Dagster has and does not publish, each with why it is needed and what to watch. Not here: what is made
of them. Nothing else in this package imports from a module of Dagster whose name begins with an underscore.
"""

# What define_asset_job returns. Types only. Watch for a public name.
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

# Where a record lies in Dagster's log of events, as its cursors say it. Watch from_storage_id.
from dagster._core.event_api import EventLogCursor

# How a step failure says that a signal ended it. Watch that an interrupted step still records INTERRUPT.
from dagster._core.execution.plan.objects import ErrorSource

# How the executor that ours extends treats steps that ask for a retry. Watch its constructor's arguments.
from dagster._core.execution.retries import RetryMode

# The executor that ours extends. Watch that an interrupt still leaves ``execute`` as an exception.
from dagster._core.executor.in_process import InProcessExecutor

# What dagster.yaml resolves to: our instance class supplies its defaults. Watch the names of the parts.
from dagster._core.instance.ref import InstanceRef

# What takes down a logger that dagster.yaml names (managed_python_loggers). Watch that it is a handler of that logger.
from dagster._core.log_manager import DagsterLogHandler

# The state of schedules and sensors, which the doctor reads, and their ticks. Watch the statuses.
from dagster._core.scheduler.instigation import InstigatorState, InstigatorStatus, InstigatorType, TickStatus

# Which of a check's executions came to an end. Watch the statuses.
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

# One query for the latest run of each of many days. Watch get_run_records(bucket_by=...).
from dagster._core.storage.dagster_run import TagBucket

# What get_status_by_partition answers with: materialized, in progress or failed. Watch the members.
from dagster._core.storage.partition_status_cache import AssetPartitionStatus

# Tags that Dagster itself puts on runs, or obeys. Watch that they are still written and read.
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    AUTO_RETRY_RUN_ID_TAG,
    MAX_RETRIES_TAG,
    PARTITION_NAME_TAG,
    RETRY_NUMBER_TAG,
    RUN_KEY_TAG,
    SCHEDULE_NAME_TAG,
    WILL_RETRY_TAG,
)

# How an instance names one of its classes with its configuration. Watch its three fields.
from dagster._serdes import ConfigurableClassData

# Whether Dagster can read a cron expression, asked when definitions are built. Watch for a public check.
from dagster._utils.schedules import is_valid_cron_schedule

# The tree of a component that belongs to none, as build_defs_for_component makes it: asked for others, it would import
# what lies in the working directory. Watch for a public way to tell.
from dagster.components.core.component_tree import TestComponentTree

# What reading an event raises that another version of Dagster wrote. Watch for a public base of its errors.
from dagster_shared.check import CheckError

# As above. Watch for the same.
from dagster_shared.serdes.errors import DeserializationError

# The warning about partitions of checks, which are a preview. Watch for their release: then it goes.
from dagster_shared.utils.warnings import PreviewWarning

__all__ = [
    "ASSET_PARTITION_RANGE_END_TAG",
    "ASSET_PARTITION_RANGE_START_TAG",
    "AUTO_RETRY_RUN_ID_TAG",
    "MAX_RETRIES_TAG",
    "PARTITION_NAME_TAG",
    "RETRY_NUMBER_TAG",
    "RUN_KEY_TAG",
    "SCHEDULE_NAME_TAG",
    "WILL_RETRY_TAG",
    "AssetCheckExecutionRecordStatus",
    "AssetPartitionStatus",
    "CheckError",
    "ConfigurableClassData",
    "DagsterLogHandler",
    "DeserializationError",
    "ErrorSource",
    "EventLogCursor",
    "InProcessExecutor",
    "InstanceRef",
    "InstigatorState",
    "InstigatorStatus",
    "InstigatorType",
    "PreviewWarning",
    "RetryMode",
    "TagBucket",
    "TestComponentTree",
    "TickStatus",
    "UnresolvedAssetJobDefinition",
    "is_valid_cron_schedule",
]
