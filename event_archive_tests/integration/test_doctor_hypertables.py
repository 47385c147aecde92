"""What the doctor says of a hypertable: jobs and aggregates of TimescaleDB, compressed chunks, indexes."""

import json
from datetime import UTC, datetime

import pytest

from event_archive.domain.days import Retention
from event_archive.postgres.catalogue.timescale import retention_policies
from event_archive_tests.fixtures.doctor import findings, wrong
from event_archive_tests.fixtures.hypertable import CHUNK, CHUNKS, READING, TELLS_LIMIT
from event_archive_tests.fixtures.installation import Commands, Installation
from event_archive_tests.fixtures.pipeline import Pipeline
from event_archive_tests.fixtures.postgres import Database
from event_archive_tests.fixtures.timescale import make_hypertable

pytestmark = pytest.mark.slow


# The doctor


POLICY = """INSERT INTO timescaledb_information.jobs VALUES (1001, 'policy_retention', {scheduled}, %s::jsonb,
'public', 'reading')"""


def job(after: str, *, key: str = "drop_after", scheduled: bool = True) -> tuple[str, str]:
    return POLICY.format(scheduled=scheduled), json.dumps({key: after, "hypertable_id": 1})


def refresh(start_offset: str | None, *, name: str = "hourly") -> tuple[str, str]:
    """A continuous aggregate's policy; which name the job has for it depends on the version of TimescaleDB."""
    return (
        f"""INSERT INTO timescaledb_information.continuous_aggregates
        VALUES ('public', 'reading', 'public', 'hourly', '_timescaledb_internal', '_materialized_hypertable_2');
        INSERT INTO timescaledb_information.jobs SELECT 1002, 'policy_refresh_continuous_aggregate', true,
        config, schema_, '{name}' FROM (VALUES ($1::jsonb)) AS v (config),
        LATERAL (SELECT CASE '{name}' WHEN 'hourly' THEN 'public' ELSE '_timescaledb_internal' END) AS s (schema_)"""
    ).replace("$1", "%s"), json.dumps({"start_offset": start_offset, "end_offset": "01:00:00"})


@pytest.mark.parametrize(
    ("rows", "status", "message"),
    [
        (None, "good", "no job drops its chunks"),
        (job("90 days"), "bad", "job 1001 drops chunks older than 90 days, before their rows can be archived"),
        (job("1 year"), "bad", "before their rows can be archived"),
        (job("2 years"), "warning", "drops chunks older than 2 years, whether or not their rows are archived"),
        (job("2 years", key="drop_created_before"), "bad", "drops chunks older than 2 years, before"),
        (job("90 days", scheduled=False), "good", "no job drops its chunks"),
        (refresh("1 mon"), "good", "no continuous aggregate loses"),
        (refresh("2 years"), "warning", "public.hourly is computed again from rows of the last 2 years: it loses"),
        (refresh("2 years", name="_materialized_hypertable_2"), "warning", "public.hourly is computed again"),
        (refresh(None), "warning", "public.hourly is computed again from rows of all times"),
    ],
)
def test_the_doctor_sees_what_timescaledb_does_by_itself(
    healthy_locally: Installation,
    command: Commands,
    timescale: Database,
    rows: tuple[str, str] | None,
    status: str,
    message: str,
):
    timescale.execute(READING)
    make_hypertable(timescale, "reading", "at", CHUNKS)
    timescale.execute(POLICY.format(scheduled=True).replace("'reading'", "'another'"), '{"drop_after": "1 day"}')
    if rows:
        statements, config = rows
        for statement in statements.split(";"):
            timescale.execute(statement, *([config] if "%s" in statement else []))
    variables = {"EVENT_TABLE": "public.reading", "EVENT_TIME_COLUMN": "at"}
    found = findings(command("doctor", "--json", **variables), 1 if status == "bad" else 0)
    assert message in found["hypertable"].message
    assert wrong(found) == ({} if status == "good" else {"hypertable": status})


@pytest.mark.parametrize("compressed", [CHUNKS[0][0], CHUNKS[1][0]], ids=["without rows", "with rows"])
def test_the_doctor_sees_a_compressed_chunk_that_a_trigger_keeps_from_being_purged(
    healthy_locally: Installation, command: Commands, timescale: Database, compressed: str
):
    timescale.execute(READING)
    make_hypertable(timescale, "reading", "at", CHUNKS)
    timescale.execute(
        f"""INSERT INTO {CHUNK} VALUES (1, '2024-03-01 00:00Z', 'x');
        UPDATE timescaledb_information.chunks SET is_compressed = true WHERE range_start = '{compressed}';
        {TELLS_LIMIT}"""
    )
    variables = {"EVENT_TABLE": "public.reading", "EVENT_TIME_COLUMN": "at"}
    is_bad = compressed == CHUNKS[1][0]
    found = findings(command("doctor", "--json", **variables), 1 if is_bad else 0)["triggers"]
    assert found.status == ("bad" if is_bad else "warning")
    assert ("A chunk of 2024-03-01 is compressed" in found.message) is is_bad
    assert command("run", **variables).code == (1 if is_bad else 0)


def test_an_index_of_a_hypertable_is_never_to_be_made_concurrently(
    healthy_locally: Installation, command: Commands, timescale: Database
):
    """TimescaleDB refuses that."""
    timescale.execute(READING.replace("(at, id)", "(id, at)"))
    make_hypertable(timescale, "reading", "at", CHUNKS)
    found = findings(command("doctor", "--json", EVENT_TABLE="public.reading", EVENT_TIME_COLUMN="at"), 0)["time_index"]
    assert found.remedy == 'CREATE INDEX ON "public"."reading" ("at") WITH (timescaledb.transaction_per_chunk);'


def test_the_doctor_names_a_hypertable_that_refers_once_and_how_to_index_it(
    healthy_locally: Installation, timescale: Database, command: Commands
):
    timescale.execute('CREATE TABLE note (e bigint CONSTRAINT told REFERENCES "Event", at timestamptz NOT NULL)')
    make_hypertable(timescale, "note", "at", CHUNKS)
    for n, (start, _) in enumerate(CHUNKS):
        chunk = f"_timescaledb_internal.note_{start}".replace("-", "_")
        timescale.execute(f'ALTER TABLE {chunk} ADD CONSTRAINT "{n}_told" FOREIGN KEY (e) REFERENCES "Event"')
    found = findings(command("doctor", "--json"), 0)["foreign_keys"]
    assert found.message.partition(". ")[0] == "refers to the table: told of public.note, which no index serves"
    statement = 'CREATE INDEX ON "public"."note" ("e") WITH (timescaledb.transaction_per_chunk);'
    assert found.remedy.partition(". ")[2].endswith(statement)


def test_the_doctor_says_that_a_table_is_no_hypertable(healthy_locally: Installation, command: Commands):
    assert findings(command("doctor", "--json"), 0)["hypertable"].message == "the table is none"


def test_the_age_of_a_policy_is_compared_with_the_retention_by_the_calendar(reading: Pipeline):
    reading.database.execute(*job("1 year"))
    retention = Retention(months=0, days=363)
    with reading.postgres.transaction("test") as connection:
        (policy,) = retention_policies(connection, "public", "reading", retention.before(datetime.now(UTC)))
    assert not policy.too_early
