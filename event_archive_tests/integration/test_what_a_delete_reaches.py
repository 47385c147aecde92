"""What a purge may do to a table beside deleting proven rows: nothing, whatever triggers, sessions and DDL say."""

import re

import pytest

from event_archive.errors import RefusedError
from event_archive_tests.fixtures.meanwhile import before, while_reading
from event_archive_tests.fixtures.pipeline import Pipeline, of_table, rows_of

PARTITIONED = """
CREATE TABLE t (id int, at timestamp, note text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE t_morning PARTITION OF t FOR VALUES FROM ('2024-03-01') TO ('2024-03-01 12:00');
CREATE TABLE t_afternoon (id int, at timestamp, note text, PRIMARY KEY (id, at));
CREATE TABLE invoices (id int PRIMARY KEY, event int, at timestamp,
  FOREIGN KEY (event, at) REFERENCES t_afternoon ON DELETE CASCADE);
INSERT INTO t SELECT n, '2024-03-01 08:00', 'n' FROM generate_series(1, 5) AS n;
INSERT INTO t_afternoon SELECT n, '2024-03-01 13:00', 'n' FROM generate_series(6, 9) AS n;
INSERT INTO invoices SELECT n, n, '2024-03-01 13:00' FROM generate_series(6, 9) AS n;
"""
ATTACH = "ALTER TABLE t ATTACH PARTITION t_afternoon FOR VALUES FROM ('2024-03-01 12:00') TO ('2024-03-02')"


CHILD = """
CREATE TABLE child (event bigint REFERENCES "Event");
"""


def test_a_session_in_which_no_trigger_fires_is_refused(pipeline: Pipeline):
    pipeline.database.execute(CHILD)
    pipeline.add(2)
    pipeline.archive()
    role = f"mute_{pipeline.database.name}"
    pipeline.database.execute(
        f"CREATE ROLE {role} LOGIN SUPERUSER; ALTER ROLE {role} SET session_replication_role = replica"
    )
    mute = Pipeline(pipeline.database, pipeline.lake, records=pipeline.records, role=role)
    try:
        with pytest.raises(RefusedError, match=r"session_replication_role is replica"):
            mute.purge()
        with pytest.raises(RefusedError, match=r"session_replication_role is replica"):
            mute.archive()
    finally:
        pipeline.database.execute(f"DROP ROLE {role}")
    assert pipeline.count() == 2
    assert pipeline.purge().deleted == 2


@pytest.mark.parametrize("how", ["DISABLE TRIGGER ALL", "ENABLE REPLICA TRIGGER", "NOT ENFORCED"])
def test_a_foreign_key_that_is_switched_off_is_refused(pipeline: Pipeline, how: str):
    pipeline.database.execute(CHILD)
    pipeline.add(1)
    pipeline.archive()
    pipeline.database.execute('INSERT INTO child SELECT id FROM "Event"')
    if how == "DISABLE TRIGGER ALL":
        pipeline.database.execute('ALTER TABLE "Event" DISABLE TRIGGER ALL')
    elif how == "NOT ENFORCED":
        pipeline.database.execute("ALTER TABLE child ALTER CONSTRAINT child_event_fkey NOT ENFORCED")
    else:
        for (name,) in pipeline.database.execute(
            """SELECT tgname FROM pg_trigger WHERE tgrelid = '"Event"'::regclass"""
        ):
            pipeline.database.execute(f'ALTER TABLE "Event" ENABLE REPLICA TRIGGER "{name}"')
    with pytest.raises(RefusedError, match="Foreign key child_event_fkey, .* does not fire"):
        pipeline.purge()
    assert (pipeline.count(), rows_of(pipeline, "child")) == (1, 1)


def test_a_foreign_key_that_is_switched_off_for_a_partition_is_refused(pipeline: Pipeline):
    of = of_table(
        pipeline,
        """CREATE TABLE t (id int, at timestamp, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
        CREATE TABLE part PARTITION OF t FOR VALUES FROM ('2024-03-01') TO ('2024-03-02');
        CREATE TABLE child (id int, at timestamp, FOREIGN KEY (id, at) REFERENCES t);
        INSERT INTO t VALUES (1, '2024-03-01'); INSERT INTO child TABLE t;""",
    )
    of.archive()
    of.database.execute("ALTER TABLE part DISABLE TRIGGER ALL")
    with pytest.raises(RefusedError, match=r"Foreign key child_id_at_fkey\w*, .* does not fire"):
        of.purge()
    assert (of.count(), rows_of(of, "child")) == (1, 1)


@pytest.mark.parametrize("referenced", ["t", "part"])
def test_a_foreign_key_that_is_switched_off_fires_again_by_what_the_refusal_says(pipeline: Pipeline, referenced: str):
    of = of_table(
        pipeline,
        f"""CREATE TABLE t (id int, at timestamp, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
        CREATE TABLE part PARTITION OF t FOR VALUES FROM ('2024-03-01') TO ('2024-03-02');
        CREATE TABLE child (id int, at timestamp, FOREIGN KEY (id, at) REFERENCES {referenced});
        INSERT INTO t VALUES (1, '2024-03-01');""",
    )
    of.archive()
    of.database.execute("ALTER TABLE part DISABLE TRIGGER ALL")
    with pytest.raises(RefusedError, match="does not fire") as refused:
        of.purge()
    found = re.search("ALTER TABLE .* ENABLE TRIGGER ALL", str(refused.value))
    assert found
    of.database.execute(found[0])
    assert of.purge().deleted == 1


def test_nobody_is_told_to_remove_younger_rows_of_the_table_that_refer_to_older_ones(pipeline: Pipeline):
    """They may be in no file yet."""
    of = of_table(
        pipeline,
        """CREATE TABLE t (id int PRIMARY KEY, at timestamp, cause int REFERENCES t);
        INSERT INTO t VALUES (1, '2024-03-01', NULL), (2, '2024-03-02', 1);""",
    )
    of.archive()
    with pytest.raises(RefusedError, match="Rows of another table, or younger ones of this, still refer") as refused:
        of.purge()
    assert "Remove those of another table first" in str(refused.value)


def test_a_partition_with_a_cascade_that_is_attached_while_the_file_is_read(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    of = of_table(pipeline, PARTITIONED)
    of.archive()
    with (
        while_reading(monkeypatch, of.lake, lambda: of.database.execute(ATTACH)),
        pytest.raises(RefusedError, match="CASCADE"),
    ):
        of.purge()
    assert (rows_of(of, "t"), rows_of(of, "invoices")) == (9, 4)


def test_a_partition_with_a_cascade_that_is_attached_just_before_the_delete(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    """Its rows are in the file, too, so that the DELETE takes them, and the invoices with them."""
    of = of_table(pipeline, PARTITIONED)
    of.database.execute(ATTACH.replace("ATTACH", "ATTACH"))
    of.database.execute("ALTER TABLE invoices DROP CONSTRAINT invoices_event_at_fkey")
    of.archive()
    of.database.execute(
        """ALTER TABLE t DETACH PARTITION t_afternoon;
        ALTER TABLE invoices ADD FOREIGN KEY (event, at) REFERENCES t_afternoon ON DELETE CASCADE"""
    )
    before(monkeypatch, lambda: of.database.execute(ATTACH))
    with pytest.raises(RefusedError, match="CASCADE"):
        of.purge()
    assert (rows_of(of, "t"), rows_of(of, "invoices")) == (9, 4)


def test_the_last_look_at_the_table_is_not_led_astray_by_a_search_path(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    """Triggers have the database's own path; what follows the DELETE must not: nothing equals anything there."""
    of = of_table(
        pipeline,
        f"""CREATE TABLE t (id int PRIMARY KEY, at timestamp); CREATE TABLE kid (LIKE t INCLUDING ALL);
        INSERT INTO t VALUES (1, '2024-03-01'); CREATE SCHEMA evil;
        CREATE FUNCTION evil.no("char", "char") RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT false';
        CREATE OPERATOR evil.= (LEFTARG = "char", RIGHTARG = "char", FUNCTION = evil.no);
        ALTER DATABASE {pipeline.database.name} SET search_path = evil, pg_catalog, public""",
    )
    of.archive()
    before(monkeypatch, lambda: of.database.execute("ALTER TABLE public.kid INHERIT public.t"))
    with pytest.raises(RefusedError, match="inheritance children"):
        of.purge()
    assert rows_of(of, "ONLY public.t") == 1


def test_a_child_that_begins_to_inherit_keeps_its_rows(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch):
    of = of_table(
        pipeline, "CREATE TABLE t (id int PRIMARY KEY, at timestamp); CREATE TABLE kid (LIKE t INCLUDING ALL)"
    )
    of.database.execute("INSERT INTO t SELECT n, '2024-03-01 08:00' FROM generate_series(1, 5) AS n")
    of.database.execute("INSERT INTO kid SELECT * FROM t")
    of.archive()
    before(monkeypatch, lambda: of.database.execute("ALTER TABLE kid INHERIT t"))
    with pytest.raises(RefusedError, match="inheritance children"):
        of.purge()
    assert (rows_of(of, "ONLY t"), rows_of(of, "kid")) == (5, 5)


@pytest.mark.parametrize(
    ("published", "remedy"),
    [
        ("WHERE (event_type = 'x')", 'ALTER TABLE "Event" REPLICA IDENTITY FULL'),
        ("(event_id)", 'ALTER PUBLICATION p SET TABLE "Event" (id, event_id)'),
    ],
    ids=["row filter", "column list"],
)
def test_a_publication_that_cannot_describe_a_delete_is_told(pipeline: Pipeline, published: str, remedy: str):
    """PostgreSQL says why in a detail, which is not repeated since others hold values."""
    pipeline.add(2)
    pipeline.archive()
    pipeline.database.execute(f'CREATE PUBLICATION p FOR TABLE "Event" {published}')
    words = (
        "Nothing was deleted. A publication of its deletes filters rows by columns that the table's replica identity"
    )
    with pytest.raises(RefusedError, match=words):
        pipeline.purge()
    assert pipeline.count() == 2
    pipeline.database.execute(remedy)
    assert pipeline.purge().deleted == 2
