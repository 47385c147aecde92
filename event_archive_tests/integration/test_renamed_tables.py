"""A table or schema that was renamed takes its files, and its held days, along."""

from collections.abc import Iterator

import psycopg
import pytest

from event_archive.domain.dataset import TableName
from event_archive.errors import (
    OtherSourceError,
    RefusedError,
)
from event_archive.lake.protocol import Lake
from event_archive.operations.claim import adopt_source, owner
from event_archive.operations.verify import verify_day
from event_archive.table.holds import hold, holds
from event_archive_tests.fixtures.pipeline import DAY, Pipeline
from event_archive_tests.fixtures.postgres import Database
from event_archive_tests.fixtures.strangers import EVENT_TWO, OTHER_DAY, refused_everywhere

pytestmark = pytest.mark.slow


def test_a_renamed_table_is_accepted_once(pipeline: Pipeline):
    pipeline.add(2)
    pipeline.run()
    pipeline.add(1, prefix="late")
    pipeline.database.execute('ALTER TABLE "Event" RENAME TO "Event2"')
    renamed = pipeline.of(table=EVENT_TWO)
    refused_everywhere(renamed, "accept it once")
    adopt_source(renamed.site)
    assert renamed.run().deleted == 1
    assert len(renamed.values("id")) == 3
    assert verify_day(renamed.dataset, DAY, table=None, lake=renamed.lake).problems == ()
    pipeline.database.execute('CREATE TABLE "Event" (LIKE "Event2" INCLUDING ALL)')
    refused_everywhere(pipeline, r'belongs to public\."Event2"')


def test_a_held_day_stays_held_where_the_table_is_renamed(pipeline: Pipeline):
    pipeline.add(2)
    pipeline.archive()
    hold(pipeline.dataset, DAY, DAY, "case 17", pipeline.postgres)
    pipeline.database.execute(
        'CREATE SCHEMA app; ALTER TABLE "Event" SET SCHEMA app; ALTER TABLE app."Event" RENAME TO e'
    )
    renamed = pipeline.of(table=TableName("app", "e"))
    adopt_source(renamed.site)
    assert renamed.run().outcome == "held"
    assert [(held.first, held.reason) for held in holds(renamed.dataset, renamed.postgres)] == [(DAY, "case 17")]
    adopt_source(renamed.site)
    assert renamed.count() == 2
    # What is held under the new name hinders nobody under the former one.
    assert pipeline.database.execute("SELECT count(*) FROM public.event_archive_hold") == [(0,)]


def test_a_hold_of_a_former_name_that_is_not_kept_as_it_was_stays(pipeline: Pipeline):
    """A day that is held for another reason under the new name, and all days of a table that bears the former one."""
    pipeline.add(2)
    pipeline.archive()
    hold(pipeline.dataset, DAY, OTHER_DAY, "case 17", pipeline.postgres)
    pipeline.database.execute('ALTER TABLE "Event" RENAME TO e')
    renamed = pipeline.of(table=TableName("public", "e"))
    hold(renamed.dataset, DAY, DAY, "case 18", renamed.postgres)
    adopt_source(renamed.site)
    of_former = "SELECT day FROM event_archive_hold WHERE table_name = 'public.\"Event\"' ORDER BY day"
    assert pipeline.database.execute(of_former) == [(DAY,)]
    pipeline.database.execute('CREATE TABLE "Event" (LIKE e INCLUDING ALL)')
    hold(pipeline.dataset, OTHER_DAY, OTHER_DAY, "case 17", pipeline.postgres)
    adopt_source(renamed.site)
    assert pipeline.database.execute(of_former) == sorted([(DAY,), (OTHER_DAY,)])


@pytest.mark.parametrize(
    ("rename", "name"),
    [
        ('TABLE "Event" RENAME TO e', TableName("public", "e")),
        ('TABLE "Event" SET SCHEMA elsewhere', TableName("elsewhere", "Event")),
        ("SCHEMA public RENAME TO app", TableName("app", "Event")),
    ],
    ids=["table", "moved", "schema"],
)
def test_a_held_day_stays_held_where_a_renamed_table_begins_in_a_new_place(
    pipeline: Pipeline, rename: str, name: TableName
):
    pipeline.database.execute("CREATE SCHEMA elsewhere")
    pipeline.add(2)
    pipeline.archive()
    hold(pipeline.dataset, DAY, DAY, "case 17", pipeline.postgres)
    pipeline.database.execute(f"ALTER {rename}")
    renamed = pipeline.of(table=name, file_prefix="e")
    for action in (renamed.run, lambda: owner(renamed.site), lambda: adopt_source(renamed.site)):
        with pytest.raises(OtherSourceError, match=r'days are held for public\."Event", which is not there'):
            action()
    assert renamed.count() == 2
    assert list(renamed.lake.list(renamed.dataset.folder)) == list(pipeline.lake.list(pipeline.dataset.folder))
    held_in = "public" if name.schema == "elsewhere" else name.schema
    pipeline.database.execute(f"DELETE FROM {held_in}.event_archive_hold")
    assert renamed.run().deleted == 2
    hold(renamed.dataset, DAY, DAY, "case 18", renamed.postgres)
    pipeline.database.execute(f"CREATE TABLE {name.schema}.beside (LIKE {name} INCLUDING ALL)")
    assert renamed.of(table=TableName(name.schema, "beside"), file_prefix="beside").run().outcome == "nothing to do"


def test_a_look_for_holds_runs_nobodys_function(pipeline: Pipeline):
    pipeline.database.execute(
        """CREATE SCHEMA theirs; CREATE TYPE theirs.t AS (name text);
        CREATE FUNCTION theirs.runs(theirs.t) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE 'it ran'; END $$;
        CREATE CAST (theirs.t AS text) WITH FUNCTION theirs.runs AS IMPLICIT;
        CREATE TABLE theirs.event_archive_hold (table_name theirs.t);
        INSERT INTO theirs.event_archive_hold VALUES (ROW('public.gone'))"""
    )
    pipeline.add(2)
    assert pipeline.run().deleted == 2


HOLDS_OF_ANOTHER = """CREATE SCHEMA theirs; CREATE TABLE theirs.event_archive_hold (table_name text);
INSERT INTO theirs.event_archive_hold VALUES ('theirs.gone');"""


@pytest.fixture
def guest(pipeline: Pipeline) -> Iterator[Pipeline]:
    """Of a role that may read the table, and no more."""
    database, role = pipeline.database, f"guest_{pipeline.database.name}"
    pipeline.add(2)
    database.execute(
        f'CREATE ROLE {role} LOGIN; GRANT SELECT ON "Event" TO {role}; '
        f"GRANT TEMPORARY ON DATABASE {database.name} TO {role}"
    )
    yield Pipeline(database, pipeline.lake, role=role)
    database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.mark.parametrize(
    "granted",
    [
        "GRANT SELECT ON theirs.event_archive_hold TO PUBLIC",
        "GRANT USAGE ON SCHEMA theirs TO PUBLIC",
        """GRANT USAGE ON SCHEMA theirs TO PUBLIC; GRANT SELECT ON theirs.event_archive_hold TO PUBLIC;
        ALTER TABLE theirs.event_archive_hold ENABLE ROW LEVEL SECURITY""",
    ],
    ids=["no USAGE", "no SELECT", "row-level security"],
)
def test_holds_of_others_that_a_role_may_not_read_stop_it_from_nothing(guest: Pipeline, granted: str):
    guest.database.execute(f"{HOLDS_OF_ANOTHER} {granted}")
    assert guest.archive().rows == 2


def test_a_temporary_table_of_the_name_of_the_holds_stops_nobody(each_database: Database, local_lake: Lake):
    pipeline = Pipeline(each_database, local_lake)
    pipeline.add(2)
    with psycopg.connect(pipeline.database.dsn) as other:
        other.execute("CREATE TEMPORARY TABLE event_archive_hold (table_name text)")
        other.execute("INSERT INTO event_archive_hold VALUES ('public.gone')")
        other.commit()
        assert pipeline.archive().rows == 2


def test_holds_beside_the_table_that_a_role_may_not_read_are_not_passed_over(guest: Pipeline):
    guest.database.execute("CREATE TABLE event_archive_hold (table_name text)")
    with pytest.raises(RefusedError, match="permission denied for table event_archive_hold"):
        guest.archive()


def test_a_held_day_stays_held_where_the_schema_is_renamed(pipeline: Pipeline):
    pipeline.add(2)
    pipeline.database.execute('CREATE SCHEMA app; ALTER TABLE "Event" SET SCHEMA app')
    before = pipeline.of(table=TableName("app", "Event"))
    before.archive()
    hold(before.dataset, DAY, DAY, "case 17", before.postgres)
    before.database.execute("ALTER SCHEMA app RENAME TO shop")
    renamed = before.of(table=TableName("shop", "Event"))
    adopt_source(renamed.site)
    assert renamed.run().outcome == "held"
