"""A month of five datasets in two databases, reported to Dagster: every day of each."""

from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from event_archive.domain.days import ONE_DAY
from event_archive.lake.local.folder import LocalLake
from event_archive_tests.fixtures.installation import run_cli
from event_archive_tests.fixtures.pipeline import SPECIFICATION
from event_archive_tests.fixtures.postgres import Server, new_database

LAST = SPECIFICATION.retention.last_aged_day(datetime.now(UTC))
MONTH = [LAST - n * ONE_DAY for n in reversed(range(30))]
TABLES = ("one", "two", "three", "parted")
ROWS_A_DAY = 20
FILE = """
defaults: {{retention: 1 year, start: {start}, time_column: at}}
datasets:
  one: {{table: one, asset_keys: bare}}
  two: {{table: two}}
  three: {{table: three, after: [two]}}
  parted: {{table: parted, purge: drop}}
  elsewhere: {{table: one, pg_connection_string_env: PG_CONNECTION_STRING_ELSEWHERE}}
"""
FILL = """
INSERT INTO {table} SELECT row_number() OVER (), day + n * interval '1 minute', 'row ' || n
FROM unnest(%s::timestamp[]) AS day, generate_series(1, %s) AS n
"""


@pytest.mark.timeout(600)
def test_a_month_of_five_datasets_is_done_in_one_run(server_18: Server, tmp_path: Path):
    with contextmanager(new_database)(server_18) as here, contextmanager(new_database)(server_18) as there:
        for database, tables in ((here, TABLES), (there, ("one",))):
            for table in tables:
                partitioned = " PARTITION BY RANGE (at)" if table == "parted" else ""
                database.execute(
                    f"CREATE TABLE {table} (id bigint, at timestamp, note text, PRIMARY KEY (id, at)){partitioned}"
                )
                for day in MONTH if partitioned else ():
                    bounds = f"FOR VALUES FROM ('{day}') TO ('{day + ONE_DAY}')"
                    database.execute(f"CREATE TABLE parted_{day:%Y_%m_%d} PARTITION OF parted {bounds}")
                database.execute(f"CREATE INDEX ON {table} (at)")
                database.execute(FILL.format(table=table), MONTH, ROWS_A_DAY)
        (tmp_path / "datasets.yaml").write_text(FILE.format(start=MONTH[0]))
        home = tmp_path / "home"
        home.mkdir()
        (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
        done = run_cli(
            "run",
            timeout_seconds=400,
            PG_CONNECTION_STRING=here.dsn,
            PG_CONNECTION_STRING_ELSEWHERE=there.dsn,
            ARCHIVE_LOCAL_PATH=str(tmp_path / "lake"),
            DATASETS_FILE=str(tmp_path / "datasets.yaml"),
            DAGSTER_HOME=str(home),
        )
        assert done.code == 0, done.said
        assert (done.end["days"], done.end["failed"]) == (5 * len(MONTH), 0)
        assert done.end["deleted"] == 5 * len(MONTH) * ROWS_A_DAY
        for database, table in [(here, table) for table in TABLES] + [(there, "one")]:
            assert database.execute(f"SELECT count(*) FROM {table}") == [(0,)]
        assert here.execute("SELECT count(*) FROM pg_inherits WHERE inhparent = 'parted'::regclass") == [(0,)]
    files = [
        file.path for file in LocalLake(tmp_path / "lake").list(SPECIFICATION.folder) if file.path.endswith(".csv")
    ]
    assert len(files) == 5 * len(MONTH)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        for prefix in ([], ["two"], ["three"], ["parted"], ["elsewhere"]):
            recorded = instance.get_materialized_partitions(dg.AssetKey([*prefix, "purged_events"]))
            assert recorded == {day.isoformat() for day in MONTH}
