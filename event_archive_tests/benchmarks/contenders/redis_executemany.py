"""A stream's positions as they are usually taken in: redis-py, its JSON parser, and executemany, a transaction a read.

``python -m …``. What a dead consumer had in hand it leaves there.
"""

import json
import os
import signal
from typing import Any

import psycopg
from psycopg.types.json import Jsonb
from redis import Redis
from redis.exceptions import ResponseError

_TABLE = """
CREATE TABLE IF NOT EXISTS positions (
  device_id text, ts timestamptz, latitude float8, longitude float8, altitude float8, angle float8, satellites int,
  speed float8, priority int, attributes jsonb, stream_id text, PRIMARY KEY (device_id, ts))
"""
_INSERT = """
INSERT INTO positions VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (device_id, ts) DO UPDATE SET latitude = excluded.latitude, longitude = excluded.longitude,
  altitude = excluded.altitude, angle = excluded.angle, satellites = excluded.satellites, speed = excluded.speed,
  priority = excluded.priority, attributes = excluded.attributes, stream_id = excluded.stream_id
"""
_FIELDS = ("latitude", "longitude", "altitude", "angle", "satellites", "speed", "priority")


def main() -> None:
    """Takes in what there is, until it is told to stop."""
    stopped = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
    stream, group = os.environ["STREAM_KEY"], os.environ["STREAM_GROUP"]
    redis = Redis.from_url(os.environ["REDIS_URL"], protocol=2, legacy_responses=True)
    with psycopg.connect(os.environ["PG_CONNECTION_STRING"]) as connection:
        connection.execute(_TABLE)
        connection.commit()
        try:
            redis.xgroup_create(stream, group, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise
        while not stopped:
            read: Any = redis.xreadgroup(group, "one", {stream: ">"}, count=1000, block=1000)
            for _, entries in read:
                with connection.cursor() as cursor:
                    cursor.executemany(_INSERT, [_row(of, fields) for of, fields in entries])
                connection.commit()
                redis.xack(stream, group, *(of for of, _ in entries))


def _row(of: bytes, fields: dict[bytes, bytes]) -> tuple[object, ...]:
    record = json.loads(fields[b"payload"])
    values = (record[name] for name in _FIELDS)
    return record["deviceId"], record["timestamp"], *values, Jsonb(record["attributes"]), of.decode()


if __name__ == "__main__":
    main()
