"""Puts the rows of a day's file back into a table: of each key the last one. Never changes a row that stands there.

A day is one transaction. Before it commits, it counts that every row stands in the target, identical in every column.

Not here: making or widening the target (``target``), what is checked before (``checks``, ``losses``), the sequences
behind its columns (``sequences``).
"""

import logging
import time
from dataclasses import dataclass, replace
from datetime import date

from psycopg import sql

from event_archive.domain.dataset import Dataset, TableName
from event_archive.domain.days import now_utc
from event_archive.domain.manifest import Manifest
from event_archive.domain.progress import NO_PROGRESS, Progress
from event_archive.domain.source import Source
from event_archive.errors import ConfigurationError, IntegrityError, OtherSourceError, RefusedError
from event_archive.lake.protocol import Lake, StoredFile
from event_archive.operations.claim import owner_by, source_of, source_to_read
from event_archive.operations.loading import load
from event_archive.operations.losses import losses
from event_archive.operations.readback import ARCHIVED, READBACK, Readback
from event_archive.operations.restore.checks import (
    require_no_other_rows,
    require_of_the_day,
    require_only_inserted,
    require_parsed,
)
from event_archive.operations.restore.key_types import require_same_rows_by_types, warn_of_letters
from event_archive.operations.restore.keys import (
    require_no_other_key,
    require_none_under_a_former_key,
    require_same_current_rows,
)
from event_archive.operations.restore.losses import (
    TABLE_OF_YOUR_OWN,
    report_losses,
    warn_of_zones,
    zones_changed,
)
from event_archive.operations.restore.sequences import move_on
from event_archive.operations.restore.target import ADVICE, open_target, widened
from event_archive.operations.site import Site
from event_archive.operations.verbatim import load_verbatim, require_lasting
from event_archive.postgres.catalogue import dependents
from event_archive.postgres.catalogue.server import identity
from event_archive.postgres.pins import own_search_path
from event_archive.postgres.session import Connection, one
from event_archive.table.holds import hold_on
from event_archive.table.locks import await_day, require_same_schema
from event_archive.table.shape import TIME_TYPES, require_unchanged
from event_archive.table.uniqueness import require_keys_once, warn_of_order

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RestoredDay:
    """What a restore did.

    Attributes:
        day: the day.
        target: the table.
        restored: rows inserted.
        skipped: rows that stood there already, identical.
        superseded: rows of the file that a later row of the same key replaces; not restored.
        source: whose rows the file holds, as its manifest says; None where it has none.
        setval: the statements that somebody else has to run, or the table's next row may get a key that stands there.
        seconds: how long the call took.
    """

    day: date
    target: TableName
    restored: int
    skipped: int
    superseded: int
    source: Source | None
    setval: tuple[str, ...]
    seconds: float


def days_with_file(dataset: Dataset, lake: Lake, first: date, last: date) -> list[date]:
    """The days to restore of a range: those that have a file, and a single day in any case.

    Raises:
        ConfigurationError: the range ends before it begins.
        RefusedError: no day of it has a file.
        UnreachableError: as the lake says.
    """
    if first > last:
        raise ConfigurationError(f"{first} lies after {last}: give the earlier day first.")
    if first == last:
        return [first]
    days = [day for file in lake.list(dataset.folder) if (day := dataset.day_of(file.path)) and first <= day <= last]
    if not days:
        raise RefusedError(
            f"There is no file from {first} to {last} in {lake.url(dataset.folder)}: nothing was restored."
        )
    return days


def restore_day(site: Site, day: date, target: TableName, *, progress: Progress = NO_PROGRESS) -> RestoredDay:
    """Restores one day.

    Args:
        site: the dataset, with its database, which has both tables, and its lake.
        day: whose file.
        target: the table to fill; created in the shape of the source where it does not exist. The source itself
            restores in place.
        progress: is told of every block that is read.

    Raises:
        RefusedError: there is no file, or the target cannot take its rows without a loss.
        IntegrityError: the file contradicts its manifest, or a row of the same key but with other values stands in the
            target. The day is rolled back.
        BusyError: another command is working on this day, or restores into the table.
        UnreachableError, FileChangedError: as PostgreSQL or the lake says.
    """
    started = time.monotonic()
    dataset, lake = site.dataset, site.lake
    path = dataset.path(day)
    file = lake.stat(path)
    if file is None:
        raise RefusedError(f"{lake.url(path)}: there is no file, so there is nothing to restore.")
    manifest = Manifest.from_file(file)
    source = source_to_read(dataset, day, manifest, file, lake) if manifest else None
    if manifest is None:
        logger.warning("%s has no manifest: another tool wrote or copied it. Its rows are restored as they read", path)
    with site.postgres.transaction(f"{target}, {day}", advice=ADVICE) as connection:
        here = source_of(identity(connection), dataset)
        if source and not source.is_same(here):
            logger.warning("%s holds rows of %s; they are restored into %s of %s", path, source, target, here.database)
        has_nights = target == dataset.table and _has_nights(connection, site)
        outcome = "Nothing was restored: restore the day again."
        await_day(connection, dataset, day, site.postgres, outcome=outcome)
        table = open_target(connection, dataset, target)
        if target == dataset.table:
            warn_of_order(connection, table)
        readback = load(connection, table, lake, file, progress)
        if manifest:
            manifest.require(file, readback.manifest)
        require_parsed(connection, readback, file)
        if not (manifest and readback.is_as_written(manifest)):
            load_verbatim(connection, readback, lake, file, progress)
            lost = losses(connection, readback, table.names)
            require_lasting(
                connection, readback, file, outcome="Nothing of this day was restored.", advice=TABLE_OF_YOUR_OWN
            )
            report_losses(target, lost, file, by_us=manifest is not None)
            warn_of_zones(target, zones_changed(connection, readback), file)
            require_same_rows_by_types(connection, dataset, readback, file, manifest)
        if manifest:
            warn_of_letters(connection, readback, file, manifest, here)
            require_no_other_key(connection, dataset, day, readback, file, manifest, here)
        readback = _reaching(connection, readback)
        # The file has been read, twice where need be: from here on the target is locked.
        require_unchanged(connection, table, "fill")
        readback = widened(connection, dataset, readback, file, (source and source.time_column) or dataset.time_column)
        require_of_the_day(connection, dataset, day, readback, file)
        require_no_other_rows(connection, dataset, day, readback, file)
        require_same_current_rows(connection, dataset, day, readback, file, manifest)
        if manifest:
            require_none_under_a_former_key(connection, dataset, day, readback, file, manifest)
        progress.begin("restoring")
        restored = _insert(connection, readback, file)
        require_keys_once(connection, table, day, outcome="Rolled back: nothing was restored.")
        setval = move_on(connection, readback)
        if restored and has_nights and dataset.is_aged(day, now_utc()) and hold_on(connection, dataset, day) is None:
            logger.warning(
                "%s, %s: restored in place. These rows are aged, and will be purged again unless the day is held: %s",
                target,
                day,
                dataset.command(f"hold {day} --reason …"),
            )
        require_same_schema(connection, table.dataset, table.schema_version)
    current = readback.rows - readback.superseded
    return RestoredDay(
        day, target, restored, current - restored, readback.superseded, source, setval, time.monotonic() - started
    )


def _has_nights(connection: Connection, site: Site) -> bool:
    """Whether the nights of this database archive and purge the table, as they do where no run of it is refused."""
    try:
        owner_by(connection, site)
    except (OtherSourceError, IntegrityError):
        return False
    return True


def _reaching(connection: Connection, readback: Readback) -> Readback:
    """The same file, compared with those partitions of the target alone in which rows of its times may lie.

    Rows with one key have one time where the time column belongs to the key, as in a table partitioned by it.
    """
    table = readback.table
    column = table.dataset.time_column
    if not table.is_partitioned or column not in table.key or table.time_type not in TIME_TYPES:
        return readback
    query = sql.SQL("SELECT min({0})::text, max({0})::text FROM {1}").format(sql.Identifier(column), READBACK)
    first, last = one(connection, query)
    reach = sql.SQL("{time} OPERATOR(pg_catalog.>=) {first}::{type} AND {time} OPERATOR(pg_catalog.<=) {last}::{type}")
    kind = sql.SQL(TIME_TYPES[table.time_type])
    return replace(
        readback, reach=reach.format(time=table.time, first=sql.Literal(first), last=sql.Literal(last), type=kind)
    )


def _insert(connection: Connection, readback: Readback, file: StoredFile) -> int:
    """Inserts the rows whose key the target does not have, and proves that all rows then stand in it, and no other
    was touched.
    """
    table = readback.table
    names = [sql.Identifier(column.name) for column in table.columns if not column.generated]
    query = sql.SQL(
        "INSERT INTO {table} ({names}) OVERRIDING SYSTEM VALUE SELECT {names} FROM {readback} AS {archived} "
        "WHERE {line} OPERATOR(pg_catalog.>) 0 AND NOT EXISTS (SELECT FROM {rows} WHERE {same_key}) ORDER BY {line}"
    ).format(
        table=table.identifier,
        names=sql.SQL(", ").join(names),
        readback=READBACK,
        archived=ARCHIVED,
        line=readback.line,
        rows=table.rows,
        same_key=readback.equal_keys(table.key),
    )
    before, tree = dependents.changes(connection, table.oid), dependents.tree(connection, table.oid)
    # As where the table was made or widened here.
    locked = dependents.locks_out(connection, tree)
    with own_search_path(connection):
        restored = connection.execute(query).rowcount
        dependents.fire_deferred_triggers(connection)
    standing = one(
        connection,
        sql.SQL("SELECT count(*) FROM {}, {} WHERE {}").format(table.rows, readback.current, readback.identical),
    )[0]
    expected = readback.rows - readback.superseded
    if standing != expected:
        raise IntegrityError(
            f"{file.path}: {expected} rows should stand in {table.dataset.table}, identical in every column; "
            f"{standing} do. Rolled back: nothing was restored. A trigger, a rule or a generated column of the table "
            "changes what is inserted: restore into another table with --table."
        )
    changes = dependents.changes(connection, table.oid) - before
    truncated = not locked and dependents.locks_out(connection, tree)
    require_only_inserted(connection, table, changes, restored, truncated=truncated)
    return restored
