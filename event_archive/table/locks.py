"""The advisory locks: on a day of a table, and on a table that is made or widened. Not here: holds, which people put.

They last until the transaction ends.
"""

from datetime import date

from event_archive.domain.dataset import Dataset, TableName
from event_archive.postgres.session import Connection, one


def lock_day(connection: Connection, dataset: Dataset, day: date, *, wait: bool = False, shared: bool = False) -> bool:
    """Takes the lock on the table and the day, until the transaction ends.

    Args:
        connection: in a transaction.
        dataset: whose table.
        day: the day.
        wait: for whoever has it, as long as the lock timeout allows.
        shared: with others that ask for it so, but with no purge.

    Returns:
        False where somebody else has it.
    """
    name = f"event_archive {dataset.table} {day}"
    if wait:
        connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (name,))
        return True
    if shared:
        return bool(one(connection, "SELECT pg_try_advisory_xact_lock_shared(hashtextextended(%s, 0))", name)[0])
    return bool(one(connection, "SELECT pg_try_advisory_xact_lock(hashtextextended(%s, 0))", name)[0])


def lock_table(connection: Connection, name: TableName) -> None:
    """Waits until nobody else makes this table or adds columns to it; in this transaction, nobody else does."""
    connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"event_archive {name}",))
