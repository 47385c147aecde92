"""Lives of tables at random: no row of any table of any shape is lost, changed or doubled, whatever befalls it.

Each has a number, so that the same are lived again; ``LIVES="$(seq 100 600)"`` in the environment lives others.
"""

import os

import psycopg
import pytest

from event_archive.operations import dropping
from event_archive_tests.faults.life import Life
from event_archive_tests.faults.share import share_of
from event_archive_tests.faults.tally import survived
from event_archive_tests.fixtures.postgres import Database

LIVES = os.environ.get("LIVES", "").split() or [str(number) for number in range(share_of(60))]


SESSION = """SET TimeZone TO 'UTC'; SET DateStyle TO 'ISO, YMD'; SET IntervalStyle TO 'postgres';
SET extra_float_digits TO 1; SET bytea_output TO 'hex'"""


@pytest.mark.parametrize("life", LIVES)
def test_a_life_at_random_loses_no_row(
    database: Database, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, life: str
):
    lake = request.getfixturevalue("azure_lake" if int(life) % 6 == 5 else "local_lake")
    monkeypatch.setattr(dropping, "_PATIENCE", 0)
    with psycopg.connect(database.dsn, autocommit=True) as other:
        other.execute(SESSION)
        lived = Life(database, lake, other, life)
        lived.live()
        lived.nights()
        other.execute("DROP SCHEMA ext CASCADE")
    survived("lives: tables at random")
