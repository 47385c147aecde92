"""Accepts a file as it is, once a person has looked at it: gives it a new manifest and keeps its bytes.

Not here: how the file is read, taking over another tool's file (``archive`` does, at an append).
"""

import hashlib
import logging
from dataclasses import replace
from datetime import date

from event_archive.domain.contradiction import contradiction
from event_archive.domain.dataset import key_named, keys_named
from event_archive.domain.key_types import key_types_of, retyped, types_in
from event_archive.domain.keys import keys_in, keys_with, names_now, numbers_in, places_of
from event_archive.domain.manifest import Manifest
from event_archive.domain.progress import NO_PROGRESS, Progress
from event_archive.domain.source import Claim
from event_archive.domain.wording import counted
from event_archive.errors import IntegrityError, NewerFormError, RefusedError
from event_archive.lake.protocol import StoredFile
from event_archive.operations.claim import claim
from event_archive.operations.forms import differing
from event_archive.operations.loading import count_keyless, load
from event_archive.operations.losses import losses
from event_archive.operations.site import Site
from event_archive.operations.verbatim import WRITE_THE_TIME, load_verbatim, named, require_lasting
from event_archive.table.advice import ADOPT_ADVICE
from event_archive.table.shape import glance

logger = logging.getLogger(__name__)


def adopt_day(site: Site, day: date, *, present_key: bool = False, progress: Progress = NO_PROGRESS) -> Manifest:
    """Gives the day's file a manifest of the bytes it has, and writes it in blocks that can be appended to.

    This deletes nothing. A purge still compares every row, and the day must be archived again first.

    Args:
        site: the dataset, with its database and its lake. The database loads the file to find out whether it is CSV,
            and of how many rows.
        day: whose file.
        present_key: whether the table's key tells all rows of the file apart, whatever key they were archived under.
        progress: is told of every block.

    Raises:
        RefusedError: there is no file, or it says ``today`` or the like in place of a time.
        OtherSourceError: the files belong to another table or database.
        IntegrityError: it is no CSV file with a header, or the file of another table or day, or of a newer program; or
            the present key does not tell all rows of it apart, though it is to, or is of types that cut it short.
        FileChangedError: somebody wrote it meanwhile.
        UnreachableError, BusyError: as PostgreSQL or the lake says.
    """
    dataset, lake = site.dataset, site.lake
    path = dataset.path(day)
    file = lake.stat(path)
    if file is None:
        raise RefusedError(f"{lake.url(path)}: there is no file to adopt.")
    with site.postgres.transaction(f"{dataset.table}, {day}", advice=ADOPT_ADVICE) as connection:
        claimed = claim(site, connection)
        former = _own_manifest(file, day, claimed)
        table = glance(connection, dataset)
        try:
            readback = load(connection, table, lake, file, progress)
        except IntegrityError as error:
            raise IntegrityError(
                error.problem,
                outcome="It cannot be adopted.",
                advice="Put the right file back, or move this one elsewhere.",
            ) from error
        load_verbatim(connection, readback, lake, file, progress)
        require_lasting(connection, readback, file, outcome="It cannot be adopted.", advice=WRITE_THE_TIME)
        keyless = count_keyless(connection, readback)
        known = numbers_in(former, claimed.source, table.oid)
        now = names_now(former, claimed.source, table.oid, table.numbers)
        recorded, unknown = keys_in(readback.columns, former, table.key, now) if former else ((), ())
        merged, former_forms, _ = differing(connection, readback, recorded) if present_key and recorded else (0, 0, 0)
        cut = losses(connection, readback, table.key, with_superseded=True) if present_key else {}
    if lacking := readback.lacks_of_key:
        raise IntegrityError(
            f"{path}: its header lacks the key: {', '.join(lacking)}. It cannot be adopted: without the key its rows "
            "cannot be compared, nor restored. Add it to the file; or, if the table still holds every row and every "
            "column of the file, move that elsewhere: the next run writes the day anew."
        )
    if unknown and not present_key:
        raise IntegrityError(
            f"{path}: rows of it were archived under {keys_named(unknown)}, and nobody can tell "
            "which columns those are in its header. It cannot be adopted so: give no other column in it a name that "
            "those have or had, or, if the present key tells its rows apart, adopt it by that alone: "
            f"{dataset.command(f'adopt {day} --present-key')}."
        )
    if merged:
        rows, told = counted(merged, "row", "rows"), keys_named(recorded)
        raise IntegrityError(
            f"{path}: by the present key, {key_named(table.key)}, later rows replace {rows} of it, by {told} they do "
            "not. It cannot be adopted by the present key alone: give each row its own key; or put the file back as "
            f"it was, and begin anew under another {dataset.setting('EVENT_FILE_PREFIX')}."
        )
    if cut:
        raise IntegrityError(
            f"{path}: as the present types of the key, values of it would lose something: {named(cut)}. It cannot be "
            "adopted by the present key alone: write the values into the file as the table has them (for rows that are "
            "purged, as ones that no other row has or will get); or put the file back as it was, and begin anew under "
            f"another {dataset.setting('EVENT_FILE_PREFIX')}."
        )
    of_before = replace(former, keys=recorded) if former else None
    keys = (table.key,) if present_key else keys_with(of_before, table.key)
    if keyless := keyless + readback.unparsed:
        lack = f"{counted(keyless, 'row of it lacks', 'rows of it lack')} a value of the key, {key_named(table.key)}"
        if present_key:
            raise IntegrityError(
                f"{path}: {lack}. It cannot be adopted by that key alone: write the values into the file first."
            )
        logger.warning(
            "%s: %s: no row of the table is compared with those, and no restore by that key takes the day",
            path,
            lack,
        )
    if present_key and readback.superseded:
        logger.warning(
            "%s: by %s, later rows replace %s of it, which no restore brings back",
            path,
            key_named(table.key),
            counted(readback.superseded, "row", "rows"),
        )
    if former_forms:
        logger.warning(
            "%s: by %s, later rows replace %s of it, which a restore now brings back beside them",
            path,
            keys_named(recorded),
            counted(former_forms, "row", "rows"),
        )
    if former is None and not present_key:
        logger.warning(
            "%s: no manifest tells under which keys its rows were archived: if under another than %s, what a later row "
            "replaced by that comes back beside it",
            path,
            key_named(table.key),
        )
    # Of the same bytes it is known how they were written.
    types = former.types if former and former.sha256 == readback.manifest.sha256 else ""
    source = claimed.source
    if former and former.time_column in readback.columns and source.time_column not in readback.columns:
        # By the column that the file knows, what the table has no column for any more is found.
        with_time = replace(source, time_column=former.time_column)
        source = with_time if claimed.holds(with_time) else source
    # A person said that names are the table's: of the key, or by calling columns so in the header.
    is_as_it_was = former is not None and former.columns == readback.manifest.columns
    numbers = table.numbers | {
        name: of
        for name, of in known.items()
        if not present_key and (is_as_it_was or now[name] not in readback.columns)
    }
    places = places_of(keys, table.oid, numbers)
    noted = {} if present_key else {now.get(name, name): of for name, of in types_in(former).items()}
    key_types = key_types_of(keys, table.key_types, noted)
    manifest = replace(
        readback.manifest.of(source, day), keys=keys, key_places=places, key_types=key_types, types=types
    )
    others = retyped(manifest, table.key_types, now)
    is_another = others or not manifest.takes_key(table.key)
    if is_another or any(numbers[name] != table.numbers[name] for name in table.key):
        logger.warning(
            "%s: the key of %s is now another one, %s%s: a run refuses this day until it is adopted with --present-key",
            path,
            dataset.table,
            key_named(table.key),
            others and f", of which {others}",
        )
    with lake.read(file) as blocks, lake.write(path, replaces=file) as upload:
        progress.begin("adopting", total_bytes=file.size_bytes)
        written = hashlib.sha256()
        for block in blocks:
            upload.write(block)
            written.update(block)
            progress.advance(0, len(block))
        if written.hexdigest() != manifest.sha256:
            raise contradiction(file, "it changed between two readings")
        upload.commit(manifest.to_metadata())
    logger.info("%s: adopted as it is, %s, sha256 %s", path, counted(manifest.rows, "row", "rows"), manifest.sha256)
    return manifest


def _own_manifest(file: StoredFile, day: date, claimed: Claim) -> Manifest | None:
    """The manifest that adopting replaces; None where it cannot be read, or there is none.

    Raises:
        IntegrityError: it is of another table or day: the file's bytes may be what it says, and are not ours.
    """
    try:
        manifest = Manifest.claimed_by(file)
    except NewerFormError:
        raise
    except IntegrityError:
        return None
    if manifest:
        manifest.require_own(file, day, claimed)
    return manifest
