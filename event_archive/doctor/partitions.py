"""Whether partitions can be dropped, where the settings ask for that. Only reads."""

from collections.abc import Sequence
from datetime import date

from event_archive.doctor.dependents import in_words
from event_archive.doctor.findings import Finding
from event_archive.domain.dataset import TableName, quoted
from event_archive.domain.wording import counted
from event_archive.postgres.catalogue.dependents import drop_triggers
from event_archive.postgres.catalogue.partitions import Partition, dependent
from event_archive.postgres.catalogue.server import role_of, server_now
from event_archive.postgres.session import Connection
from event_archive.table.partitions import ends_in_time, partitions_between, passed_over, told, unfit
from event_archive.table.shape import Table


def partitions(connection: Connection, shape: Table) -> Finding:
    """What keeps partitions from being dropped in place of their rows, or when a purge has emptied them."""
    dataset = shape.dataset
    if dataset.purge == "delete" and not dataset.drop_empty_partitions:
        return Finding("partitions", "good", "none is dropped: rows are deleted")
    found = partitions_between(connection, shape, dataset.start, date.max)
    if not found:
        return Finding(
            "partitions",
            "warning",
            f"none is of a range of {quoted(dataset.time_column)} that ends somewhere: rows are deleted",
            f"Set {dataset.setting('EVENT_PURGE')} to delete and {dataset.setting('EVENT_DROP_EMPTY_PARTITIONS')} to "
            "false, or partition the table by range.",
        )
    if foreign := [of for of in found if of.is_table and not of.is_owned]:
        stay = "rows are deleted there" if dataset.purge == "drop" else "they stay once they are empty"
        names = counted(len(foreign), f"partition ({told(foreign[0])}) is", f"partitions ({told(foreign[0])} …) are")
        return Finding(
            "partitions",
            "warning",
            f"{names} not {quoted(role_of(connection))}'s own, so that {stay}",
            f"Let {quoted(role_of(connection))} inherit the owner's role (GRANT … TO it), or make it the owner.",
        )
    # Each costs a look at the whole table's catalogue; what keeps them is mostly the table's.
    for partition in dict.fromkeys((found[0], found[-1])):
        why_not = unfit(connection, shape, partition)
        if not why_not and dataset.purge == "drop":
            why_not = passed_over(connection, shape, partition)
        if why_not:
            return Finding(
                "partitions",
                "warning",
                f"{told(partition)} is not dropped, and rows are deleted: {why_not}",
                "docs/howto/partitions.md says what to do about it.",
            )
    if why_not := _kept_by(connection, found):
        return Finding("partitions", "warning", why_not, "docs/howto/partitions.md says what to do about it.")
    last_aged = dataset.retention.last_aged_day(server_now(connection))
    first = {of: max(of.first or dataset.start, dataset.start) for of in found}
    endless = next((of for of in found if first[of] <= last_aged and not ends_in_time(of, first[of])), None)
    if endless and dataset.purge == "drop":
        return Finding(
            "partitions",
            "warning",
            f"{told(endless)} goes on for more than a year after {first[endless]}: rows of days so long before its end "
            "are deleted, if there are any",
            "docs/howto/partitions.md says what to do about it.",
        )
    looked_at = " and ".join(dict.fromkeys((told(found[0]), told(found[-1]))))
    of_all = f"; of {len(found):,} partitions, the first and the last were looked at" if len(found) > 2 else ""
    return Finding("partitions", "good", f"nothing keeps {looked_at} from being dropped once aged{of_all}")


def _kept_by(connection: Connection, partitions: Sequence[Partition]) -> str:
    """What PostgreSQL, or a function, may refuse a DROP for; an empty string where there is nothing."""
    if found := dependent(connection, [of.oid for of in partitions]):
        schema, name, what = found
        return f"{TableName(schema, name)} is not dropped, and rows are deleted: {what} depends on it"
    if named := in_words(drop_triggers(connection)):
        return f"fires where a partition is dropped: {named}. Where it refuses that, rows are deleted"
    return ""
