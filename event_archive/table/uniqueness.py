"""Whether each key of a day stands once, as its unique index is to see to. Not here: which index that is (``key``).

An index that was made under another order of texts, as before an upgrade of the C library or of ICU, finds some keys no
more: PostgreSQL then takes in a second row of the same key.
"""

import logging
from datetime import date

from psycopg import sql

from event_archive.domain.dataset import quoted
from event_archive.domain.wording import counted
from event_archive.errors import RefusedError
from event_archive.postgres.catalogue.collations import Outdated, outdated_collations
from event_archive.postgres.catalogue.columns import columns_sorted_as_text
from event_archive.postgres.pins import own_search_path
from event_archive.postgres.session import Connection, one
from event_archive.table.shape import TABLE_ALIAS, TIME_TYPES, Table

logger = logging.getLogger(__name__)

MEND_INDEX = (
    "Find the rows of one key without the index, give each a key of its own or delete it, then REINDEX the table: "
    "docs/howto/failed-day.md says how."
)
"""What to do about it."""
# By the rows of the day, which the index of the time finds: that of the key is the one in doubt. No index holds
# tableoid, so that none is read in place of the rows.
_DOUBLED = """
SELECT pg_catalog.count(*) FROM (
  SELECT FROM (SELECT {keys} FROM {rows}
                WHERE {window} AND {row}.tableoid OPERATOR(pg_catalog.<>) 0 OFFSET 0) AS {row} GROUP BY {keys}
  HAVING pg_catalog.count(*) OPERATOR(pg_catalog.>) 1) AS doubled_
"""


def texts_of_key(connection: Connection, table: Table) -> list[str]:
    """The columns of the table's key that its index sorts by the order of texts, which an upgrade may change."""
    return sorted(columns_sorted_as_text(connection, table.oid).intersection(table.key))


def outdated_order(connection: Connection, table: Table) -> list[Outdated]:
    """The collations by which texts of the table's key may sort otherwise than when its index was made."""
    return outdated_collations(connection, table.oid, texts_of_key(connection, table))


def require_keys_once(connection: Connection, table: Table, day: date, *, outcome: str) -> None:
    """Checks that no two rows of a day have one key. Reads all rows of the day.

    Args:
        connection: in a transaction.
        table: whose rows; of one whose time is none by its type, all rows are read.
        day: the day.
        outcome: what was not done, for the message.

    Raises:
        RefusedError: some have: of two such rows, one would pass for a former form of the other.
    """
    keys = sql.SQL(", ").join(sql.SQL("{}.{}").format(TABLE_ALIAS, sql.Identifier(name)) for name in table.key)
    window = table.within(day, day) if table.time_type in TIME_TYPES else sql.SQL("true")
    query = sql.SQL(_DOUBLED).format(keys=keys, rows=table.rows, window=window, row=TABLE_ALIAS)
    with own_search_path(connection):
        doubled = one(connection, query)[0]
    if doubled:
        named = ", ".join(map(quoted, table.key))
        raise RefusedError(
            f"{table.dataset.table}, {day}: {counted(doubled, 'key stands', 'keys stand')} in more than one row, which "
            f"the unique index on ({named}) should have prevented: it is damaged, as where texts sort otherwise since "
            "an upgrade of the C library or of ICU.",
            outcome=outcome,
            advice=MEND_INDEX,
        )


def warn_of_order(connection: Connection, table: Table) -> None:
    """Warns where texts may sort otherwise than when the index of the key was made, which may not find all rows."""
    if outdated := outdated_order(connection, table):
        logger.warning(
            "%s: the order of texts may have changed since the index of its key was made (%s). Rows that it does not "
            "find may be restored beside those that stand. REINDEX first: docs/howto/failed-day.md says how",
            table.dataset.table,
            ", ".join(of.name for of in outdated),
        )
