"""The rows that are measured: the specification's table in several conditions, made by PostgreSQL itself."""

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal

from event_archive_tests.benchmarks.server import Server
from event_archive_tests.fixtures.postgres import SPECIFICATION_TABLE

DAY = date(2020, 3, 1)
"""The day that is measured. The day after it holds a tenth as many rows, which nobody may touch."""

CSV_BYTES = 360
"""Of a narrow row, about."""

Kind = Literal["narrow", "wide", "bloated", "thin", "events", "array", "lines", "files"]

EMPTY: tuple[Kind, ...] = ("events", "array", "lines", "files")
"""An empty database, whose rows are somewhere else yet."""

_NARROW = """
jsonb_build_object(
  'user', n % 9973, 'session', md5(n::text), 'path', '/orders/' || n % 1000, 'note', 'comma, "quote"',
  'referrer', 'https://shop.example/campaign/' || n % 77, 'amount', round(n * 7 % 100000 / 100.0, 2),
  'tags', '["web", "eu"]'::jsonb, 'agent', 'Mozilla/5.0 (X11; Linux x86_64)')
"""
# Digests: PostgreSQL cannot press them into the page.
_WIDE = """
jsonb_build_object('user', n % 9973, 'body', (
  SELECT string_agg(encode(sha256((n * 200 + part)::text::bytea), 'base64'), '') FROM generate_series(1, 225) AS part))
"""


@dataclass(frozen=True, slots=True)
class Data:
    """A table to measure.

    Attributes:
        kind: ``narrow`` has rows of about 360 bytes of CSV, ``wide`` of 10 KB, which PostgreSQL stores out of line;
            ``bloated`` is narrow with room for two more rows beside each, ``thin`` has next to no payload; those of
            ``events`` an API holds yet, ``array`` and ``lines`` one log file each, ``files`` a log file for each row.
        rows: of the measured day.
        days: the rows are spread over so many days from ``DAY`` on.
    """

    kind: Kind
    rows: int
    days: int = 1

    @property
    def name(self) -> str:
        """Of the database that holds it."""
        return f"{self.kind}_{self.rows}_{self.days}"

    def make(self, server: Server) -> str:
        """Makes the database, unless it is there, and returns its name."""
        if server.execute("postgres", f"SELECT 1 FROM pg_database WHERE datname = '{self.name}'"):
            return self.name
        building = f"{self.name}_building"
        server.drop(building)
        server.execute("postgres", f"CREATE DATABASE {building}")
        if self.kind in EMPTY:
            server.execute("postgres", f"ALTER DATABASE {building} RENAME TO {self.name}")
            return self.name
        statements = [SPECIFICATION_TABLE, self._insert(DAY, self.rows, self.days)]
        if self.kind == "bloated":
            statements += ['DELETE FROM "Event" WHERE id % 3 > 0']
        if self.days == 1:
            statements += [self._insert(DAY + timedelta(days=1), self.rows // 10, 1)]
        server.execute(building, *statements, 'VACUUM (ANALYZE) "Event"')
        server.execute("postgres", "CHECKPOINT", f"ALTER DATABASE {building} RENAME TO {self.name}")
        return self.name

    def _insert(self, day: date, rows: int, days: int) -> str:
        """Rows in the order of time, as an application writes them."""
        made = rows * 3 if self.kind == "bloated" else rows
        payload = {"wide": _WIDE, "thin": "'{}'"}.get(self.kind, _NARROW)
        return f"""
        INSERT INTO "Event" (event_id, event_type, created_at, processed_at, payload)
        SELECT overlay(overlay(md5(time::text || n) PLACING '-' FROM 9) PLACING '-' FROM 14),
               (ARRAY['order.created', 'order.paid', 'user.signed_up'])[1 + n % 3], time,
               CASE WHEN n % 4 > 0 THEN time + interval '250 milliseconds' END, {payload}
        FROM (SELECT n, timestamp '{day}' + n * (interval '{days} days' / {max(made, 1)}) AS time
              FROM generate_series(0, {made} - 1) AS n) AS series
        """
