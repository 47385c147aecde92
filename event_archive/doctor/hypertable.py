"""What else TimescaleDB does to the rows of a hypertable by itself. Not here: what is the same for every table."""

from datetime import datetime

from psycopg import sql

from event_archive.doctor.findings import Finding
from event_archive.domain.dataset import Dataset, TableName
from event_archive.postgres.catalogue import timescale
from event_archive.postgres.catalogue.server import server_now
from event_archive.postgres.session import Connection
from event_archive.table.shape import Table


def hypertable(connection: Connection, shape: Table) -> Finding:
    """Jobs that drop rows, archived or not, and continuous aggregates that lose what was purged."""
    if not shape.is_hypertable:
        return Finding("hypertable", "good", "the table is none")
    dataset, name = shape.dataset, shape.dataset.table
    now: datetime = server_now(connection)
    aged_before = dataset.retention.before(now)
    policies = timescale.retention_policies(connection, name.schema, name.name, aged_before)
    found, remedies = _drops(policies, dataset)
    refreshes = timescale.refreshes_behind(connection, name.schema, name.name, aged_before)
    for refresh in refreshes:
        found.append(
            f"{TableName(refresh.schema, refresh.name)} is computed again from rows of "
            f"{f'the last {refresh.start_offset}' if refresh.start_offset else 'all times'}: it loses what it holds of "
            "purged days"
        )
    if refreshes:
        remedies.append(
            f"Let the policies of those continuous aggregates have a start_offset shorter than {dataset.retention}."
        )
    if not found:
        return Finding("hypertable", "good", "no job drops its chunks, no continuous aggregate loses what is purged")
    too_early = any(policy.too_early for policy in policies)
    return Finding("hypertable", "bad" if too_early else "warning", "; ".join(found), " ".join(remedies))


def _drops(policies: list[timescale.RetentionPolicy], dataset: Dataset) -> tuple[list[str], list[str]]:
    found = [
        f"job {policy.job} drops chunks older than {policy.after}"
        + (", before their rows can be archived" if policy.too_early else ", whether or not their rows are archived")
        for policy in policies
    ]
    if not found:
        return [], []
    table = sql.Literal(str(dataset.table)).as_string(None)
    remedy = f"SELECT remove_retention_policy({table}); the purge deletes rows after {dataset.retention}, and only"
    return found, [f"{remedy} those that are archived."]
