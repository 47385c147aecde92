"""Log files as they are usually loaded: boto3, gzip, the json module, and executemany, a transaction a file.

``python -m …``. Files are whole in memory; which of them were loaded it does not keep.
"""

import gzip
import json
import os
from datetime import UTC, datetime
from typing import Any

import boto3
import psycopg
from psycopg.types.json import Jsonb

_TABLE = """
CREATE TABLE logs (
  id text PRIMARY KEY, timestamp timestamptz NOT NULL, level text, method text, url text, query jsonb, headers jsonb,
  message text, pid bigint, hostname text, request_id text, raw_data json NOT NULL
)
"""
_INSERT = f"INSERT INTO logs VALUES ({', '.join(['%s'] * 12)}) ON CONFLICT (id) DO NOTHING"
_LEVELS = {10: "trace", 20: "debug", 30: "info", 40: "warn", 50: "error", 60: "fatal"}


def main() -> None:
    """Loads all there is."""
    client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT"], region_name=os.environ["AWS_REGION"])
    bucket = os.environ["LOGS_URL"].removeprefix("s3://")
    with psycopg.connect(os.environ["PG_CONNECTION_STRING"]) as connection:
        connection.execute(_TABLE)
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
            for file in page.get("Contents", ()):
                body = client.get_object(Bucket=bucket, Key=file["Key"])["Body"].read()
                text = gzip.decompress(body)
                entries = (
                    json.loads(text) if text.startswith(b"[") else [json.loads(line) for line in text.splitlines()]
                )
                with connection.cursor() as cursor:
                    cursor.executemany(_INSERT, [_row(file["ETag"], *of) for of in enumerate(entries)])
                connection.commit()


def _row(etag: str, number: int, entry: dict[str, Any]) -> tuple[object, ...]:
    request = entry["req"]
    return (
        f"{etag}.{number}",
        datetime.fromtimestamp(entry["time"] / 1000, UTC),
        _LEVELS[entry["level"]],
        request["method"],
        request["url"],
        Jsonb(request["query"]),
        Jsonb(entry["headers"]),
        entry["msg"],
        entry["pid"],
        entry["hostname"],
        str(request["id"]),
        json.dumps(entry),
    )


if __name__ == "__main__":
    main()
