"""What to do where PostgreSQL refuses to archive or purge. Not here: the advice of holds and of restores."""

from dataclasses import replace
from datetime import date

from event_archive.domain.dataset import Dataset
from event_archive.postgres.errors import Advice

_NO_UTF_8 = (
    "A text of it is no UTF-8, as may be where the database's encoding is SQL_ASCII, or cannot be written in UTF-8, or "
    "would not come back as it is, as some characters that have two codes in EUC_JP. No file can hold it, and the next "
    "run fails alike: correct the text, or move the table to a database whose encoding is UTF8."
)

_REFERRED_TO = (
    "Rows of another table, or younger ones of this, still refer to rows of this day. Remove those of another table "
    "first, or archive them first, by a dataset that `after` names in DATASETS_FILE; or drop the foreign key."
)

FILTERED = (
    "A publication of its deletes filters rows by columns that the table's replica identity lacks, or leaves some of "
    "that out of its column list: change the publication, or, for a filter, ALTER TABLE … REPLICA IDENTITY FULL."
)

ARCHIVE_ADVICE = Advice(
    outcome="Nothing was deleted.",
    again="the next run tries again",
    lost="Nothing was deleted that is not archived; the next run goes on.",
    privileges=(
        "The role needs USAGE on the schema, on the columns' types, and on the schemas of types, collations and the "
        "key's operators, EXECUTE on the functions that those types use, SELECT and DELETE on the table, SELECT on "
        "event_archive_hold where that exists, and TEMPORARY on the database: GRANT them, or connect as another role."
    ),
    by_code={
        "23503": _REFERRED_TO,
        # RESTRICT, from PostgreSQL 18 on.
        "23001": _REFERRED_TO,
        "42P10": FILTERED,
        "22021": _NO_UTF_8,
        "22P05": _NO_UTF_8,
    },
)
"""For everything that archives, purges, or looks which days are to be archived."""


def export_advice(variable: str) -> Advice:
    """For what a replica is asked: the role that ``variable`` names reads the table there, and does nothing else."""
    return replace(
        ARCHIVE_ADVICE,
        privileges=(
            f"The role in {variable} needs USAGE on the schema and SELECT on the table: GRANT them, or name another "
            "role."
        ),
        by_code={
            **ARCHIVE_ADVICE.by_code,
            "0A000": f"No standby has an unlogged table: where it is one, or a partition is, unset {variable}.",
        },
    )


LOOK_ADVICE = replace(ARCHIVE_ADVICE, outcome="Nothing was changed by this.", again="the next look may succeed")
"""For looks at the table that may come after a purge."""

ADOPT_ADVICE = replace(
    ARCHIVE_ADVICE, outcome="Nothing was adopted.", again="try again", lost="Nothing was adopted; try again."
)

ADOPT_SOURCE_ADVICE = replace(
    ADOPT_ADVICE,
    privileges=ARCHIVE_ADVICE.privileges.replace(
        "SELECT on event_archive_hold where that exists",
        "SELECT, INSERT and DELETE on event_archive_hold where that exists",
    ),
)
"""Holds on days of the table's former name are taken along."""

CLEARING_ADVICE = replace(
    ARCHIVE_ADVICE,
    outcome="The day is purged all the same.",
    again="a later purge clears away",
    lost="The day is purged all the same.",
)
"""For what is cleared away behind a purge that has committed."""

VACUUM_ADVICE = replace(
    CLEARING_ADVICE,
    again="autovacuum does it where that is on, and so does the next purge, unless a statement_timeout ended this one",
)


def tell_forms_apart(dataset: Dataset, day: date) -> str:
    """What to do with a file whose keys disagree on which of its rows are forms of one."""
    return (
        f"If the present key of {dataset.table} tells all rows of the file apart, accept it by that alone: "
        f"{dataset.command(f'adopt {day} --present-key')}. Else load it into a table without a key, by "
        "\\copy, and choose"
    )
