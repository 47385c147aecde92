"""Whose folder it is: the marker beside the files, which every run that writes or deletes must find to be its own.

The first run writes it. Reading is open to all. Not here: what a claim means (``domain``), the marker itself
(``marker``), folders from before it (``unclaimed``).
"""

import logging
from dataclasses import replace
from datetime import date

from event_archive.domain.dataset import Dataset, TableName
from event_archive.domain.days import now_utc
from event_archive.domain.manifest import Manifest
from event_archive.domain.source import Claim, Source
from event_archive.domain.wording import counted
from event_archive.errors import ConfigurationError, FileChangedError, IntegrityError, OtherSourceError, RefusedError
from event_archive.lake.protocol import Lake, StoredFile
from event_archive.operations.marker import claim_to_read, files_of, marker_path, read_claim, read_marker, write_marker
from event_archive.operations.replica import described, require_copy
from event_archive.operations.site import Site
from event_archive.operations.unclaimed import files_elsewhere, require_unclaimed, sources_of_files
from event_archive.postgres.catalogue.server import Identity, identity, server_now
from event_archive.postgres.session import Connection, Postgres
from event_archive.table.advice import ADOPT_SOURCE_ADVICE, ARCHIVE_ADVICE, LOOK_ADVICE
from event_archive.table.holds import keep_holds, require_no_former_name
from event_archive.table.shape import glance

logger = logging.getLogger(__name__)


def claim(site: Site, connection: Connection) -> Claim:
    """Checks that the files belong to this table of this database, and claims them where they belong to nobody yet.

    Args:
        site: the dataset, with its lake.
        connection: to the primary, in a transaction.

    Raises:
        OtherSourceError: they belong to another source, or days of a former one are held. Nothing was written.
        IntegrityError: the marker cannot be read.
        RefusedError, UnreachableError: as PostgreSQL or the lake says.
    """
    # Asked after the marker is looked up: else a run beside this one could have noted a later position in between.
    marker, asking = site.lake.stat(marker_path(site.dataset)), _primary(site, connection)
    # A server that was promoted meanwhile may have claimed them since this one asked.
    asked = (asking, marker.etag if marker else "")
    if asked not in site.claims:
        site.claims[asked] = _claimed(site, connection, asking, marker)
    return site.claims[asked]


def claim_first(site: Site) -> Claim:
    """As ``claim``, in a transaction of its own: before a run of many days.

    Raises:
        OtherSourceError, IntegrityError, RefusedError, UnreachableError, BusyError: as for ``claim``.
    """
    with site.postgres.transaction(str(site.dataset.table), advice=ARCHIVE_ADVICE) as connection:
        return claim(site, connection)


def claim_to_export(site: Site, connection: Connection, day: date) -> Claim:
    """As ``claim``, where a day's rows may be read from a replica; the primary claims.

    Raises:
        NotAgedError: by the primary's clock the day is too young.
        OtherSourceError: what is read is no copy of the primary, or as for ``claim``.
        FormerTimelineError: as ``require_copy``.
    """
    if site.export_postgres is None:
        return claim(site, connection)
    with site.postgres.transaction(str(site.dataset.table), advice=ARCHIVE_ADVICE) as primary:
        site.dataset.require_aged(day, server_now(primary))
        claimed, original = claim(site, primary), identity(primary)
    replica = site.export_postgres.variable
    require_copy(original, identity(connection), primary=site.postgres.variable, replica=replica)
    return claimed


def require_replica(site: Site, connection: Connection) -> None:
    """Checks that a connection is one to a copy of the primary, where rows are read from a replica.

    Raises:
        OtherSourceError, FormerTimelineError: as ``require_copy``.
    """
    if site.export_postgres:
        with site.postgres.transaction(str(site.dataset.table), advice=ARCHIVE_ADVICE) as primary:
            original = identity(primary)
        replica = site.export_postgres.variable
        require_copy(original, identity(connection), primary=site.postgres.variable, replica=replica)


def owner(site: Site) -> Claim | None:
    """As ``claim``, in a transaction of its own and without writing anything; None where a run would be the first.

    Returns:
        The claim as it would stand after a run: of this server's timeline, where that is later than the owner's.

    Raises:
        OtherSourceError, IntegrityError, RefusedError, UnreachableError, BusyError: as for ``claim``.
    """
    with site.postgres.transaction(str(site.dataset.table), advice=ARCHIVE_ADVICE) as connection:
        return owner_by(connection, site)


def owner_by(connection: Connection, site: Site) -> Claim | None:
    """As ``owner``, in a transaction of the caller's."""
    found, asking = read_claim(site.dataset, site.lake), identity(connection)
    if found is None:
        require_no_former_name(connection, site.dataset)
    if found and asking.is_standby:
        asking = replace(asking, timeline=found.timeline)  # It may know of a new one late.
    admitted = _admitted(site.dataset, site.lake, asking, found)
    return admitted if found else None


def require_owner(dataset: Dataset, postgres: Postgres, claimed: Claim) -> None:
    """Checks that the files are this table's, and that no copy of this database which was promoted has used them since.

    Args:
        dataset: the table.
        postgres: its database.
        claimed: whose the files are, as ``read_claim`` found it.

    Raises:
        OtherSourceError: they are another's, or such a copy has.
        RefusedError, UnreachableError, BusyError: as PostgreSQL says; they are another's, and there is no such table.
    """
    with postgres.transaction(str(dataset.table), advice=LOOK_ADVICE) as connection:
        asking = identity(connection)
        # A standby may know of a new timeline late.
        if asking.is_standby:
            return
        try:
            _gone_on(dataset, asking, claimed)
        except OtherSourceError:
            # Of a name that is misspelt, there is nothing to own.
            glance(connection, dataset)
            raise


def unclaimed_elsewhere(site: Site) -> str | None:
    """Says that files of this table lie under another prefix, where its own belong to nobody yet; None where none do.

    Raises:
        RefusedError, UnreachableError, BusyError: as PostgreSQL or the lake says.
    """
    with site.postgres.transaction(str(site.dataset.table), advice=ARCHIVE_ADVICE) as connection:
        source = source_of(identity(connection), site.dataset)
    return files_elsewhere(site.dataset, site.lake, source)


def source_to_read(dataset: Dataset, day: date, manifest: Manifest, file: StoredFile, lake: Lake) -> Source:
    """Whose rows a file holds, for those who only read: they need not be the owner.

    Raises:
        IntegrityError: it is the file of another day, or of another table, or does not belong to the owner here.
        RefusedError, UnreachableError: as the lake says.
    """
    claimed = claim_to_read(dataset, lake)
    if claimed and claimed.source.table == str(dataset.table):
        manifest.require_own(file, day, claimed)
    else:
        manifest.require_day(file, day)
        if manifest.table != str(dataset.table):
            raise IntegrityError(
                f"{file.path}: it belongs to {manifest.source}, as its manifest says, not to {dataset.table}.",
                advice=f"Let {dataset.setting('EVENT_TABLE')} name that table to read it.",
            )
    return manifest.source


def adopt_source(site: Site) -> Claim:
    """Makes this table of this database the owner of the files, whoever it was before; holds on its days stay.

    Where nobody has claimed the files, whatever source they name counts as a former one; else those of the marker do.

    Raises:
        FileChangedError, NewerFormError: somebody else wrote the marker meanwhile, or a newer program did.
        OtherSourceError: there are no files, and days of a former name are held.
        RefusedError, UnreachableError: as PostgreSQL or the lake says.
    """
    dataset, lake = site.dataset, site.lake
    with site.postgres.transaction(str(dataset.table), advice=ADOPT_SOURCE_ADVICE) as connection:
        asking = _primary(site, connection)
        source = source_of(asking, dataset)
        marker = lake.stat(marker_path(dataset))
        before = claim_to_read(dataset, lake, replaced=True)
        others = () if before else sources_of_files(dataset, lake)
        after = (before or Claim(source, asking.timeline)).adopted_by(source, asking.timeline, asking.position, others)
        after = replace(after, started=asking.started)
        tables = {former.table for former in after.former} - {source.table}
        if not (before or tables):
            require_no_former_name(connection, dataset)
        for table in tables:
            if kept := keep_holds(connection, dataset, TableName.parse(table)):
                logger.info("%s: %s of %s hold here too", dataset.table, counted(kept, "held day", "held days"), table)
    if after != before or after.position < before.position:
        write_marker(dataset, lake, after, replaces=marker)
    return after


def _primary(site: Site, connection: Connection) -> Identity:
    found = identity(connection)
    if found.is_standby:
        raise ConfigurationError(
            f"{described(found)} is a standby. Nothing was written or deleted. {site.postgres.variable} must name the "
            "primary; a standby may serve exports alone."
        )
    return found


def source_of(database: Identity, dataset: Dataset) -> Source:
    """The source that a dataset is in a database."""
    return Source(database.system, database.database, str(dataset.table), dataset.time_column)


def _claimed(site: Site, connection: Connection, asking: Identity, marker: StoredFile | None) -> Claim:
    dataset, lake = site.dataset, site.lake
    try:
        before = read_marker(dataset, lake, marker)
    except FileChangedError:
        return claim(site, connection)
    if before is None:
        require_no_former_name(connection, dataset)
    after = _admitted(dataset, lake, asking, before)
    is_other = after != before
    # Where the server's WAL stands is noted once a day, and of each server that runs: a copy of its disk, which begins
    # no timeline, stands before that.
    is_due = before and marker and (after.started != before.started or marker.modified.date() < now_utc().date())
    if is_other or is_due:
        try:
            written = write_marker(dataset, lake, after, replaces=marker)
        except FileChangedError:
            return claim(site, connection)  # Another run was faster. Whoever it was, its marker counts.
        except RefusedError:
            if is_other:
                raise
            return after  # Where a policy keeps files from being written anew, nothing else needs to be.
        site.claims[asking, written.etag] = after
    if is_other:
        _tell(site, before, after)
    return after


def _tell(site: Site, before: Claim | None, after: Claim) -> None:
    """Tells whose the files are from now on; of a later timeline, what a copy of the server would do to them."""
    dataset, owner = site.dataset, f"{after.source}, timeline {after.timeline}"
    if before and after.timeline > before.timeline:
        logger.warning(
            "%s: from now on these files belong to %s, which was promoted or restored from a backup: before, it was "
            "timeline %d. After a failover that is right. If this server is a copy, stop its runs: what they append "
            "takes the place of rows that the original has archived. Then, on the original: %s",
            files_of(dataset),
            owner,
            before.timeline,
            dataset.adopt_source,
        )
        return
    # That a new folder is the first run's is no news.
    is_news = before or sources_of_files(dataset, site.lake)
    level = logging.INFO if is_news else logging.DEBUG
    logger.log(level, "%s: from now on these files belong to %s", files_of(dataset), owner)


def _admitted(dataset: Dataset, lake: Lake, asking: Identity, before: Claim | None) -> Claim:
    """The claim as it stands once this database has asked."""
    if before:
        return _gone_on(dataset, asking, before)
    source = source_of(asking, dataset)
    require_unclaimed(dataset, lake, source)
    return Claim(source, asking.timeline, position=asking.position, started=asking.started)


def _gone_on(dataset: Dataset, asking: Identity, before: Claim) -> Claim:
    """As ``_admitted``, where somebody has claimed the files."""
    source, adopt = source_of(asking, dataset), dataset.adopt_source
    after = before.admitting(source, asking.timeline, asking.position, place=files_of(dataset), adopt=adopt)
    return replace(after, started=asking.started)
