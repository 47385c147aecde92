"""An API's events as they are usually taken in: requests, its JSON parser, and executemany, a transaction a page.

``python -m …``. Where it is in the API it does not keep.
"""

import os
from datetime import UTC, datetime
from typing import Any

import psycopg
import requests
from psycopg.types.json import Jsonb

_TABLE = """
CREATE TABLE ingested_events (
  id text PRIMARY KEY, event_type text, timestamp timestamptz, data jsonb NOT NULL,
  ingested_at timestamptz DEFAULT now()
)
"""
_INSERT = """
INSERT INTO ingested_events (id, event_type, timestamp, data) VALUES (%s, %s, %s, %s) ON CONFLICT (id) DO NOTHING
"""


def main() -> None:
    """Takes in all there is."""
    parameters: dict[str, str] = {"limit": "1000"}
    with psycopg.connect(os.environ["PG_CONNECTION_STRING"]) as connection, requests.Session() as session:
        connection.execute(_TABLE)
        session.headers["X-API-Key"] = os.environ["API_KEY"]
        more = True
        while more:
            response = session.get(f"{os.environ['API_BASE_URL']}/events", params=parameters, timeout=10)
            response.raise_for_status()
            page = response.json()
            with connection.cursor() as cursor:
                cursor.executemany(_INSERT, [_row(event) for event in page["data"]])
            connection.commit()
            more = page["hasMore"]
            parameters["cursor"] = page["nextCursor"]


def _row(event: dict[str, Any]) -> tuple[object, ...]:
    time = event["timestamp"]
    instant = datetime.fromtimestamp(time / 1000, UTC) if isinstance(time, int) else datetime.fromisoformat(time)
    return event["id"], event["type"], instant, Jsonb(event)


if __name__ == "__main__":
    main()
