"""``python -m …``: adds positions to a stream, as fast as they are consumed or so many a second.

Not here: who reads them.
"""

import argparse
import json
import time
from datetime import UTC, datetime, timedelta

from redis import Redis

DEVICES = 1000
_AT_ONCE = 500
_AHEAD = 20_000
"""Entries that wait at most: a consumer always finds a full batch, and the stream stays small."""
_KEPT = 200_000
_PACE_SECONDS = 0.001


def main() -> None:
    """Adds what is asked for, then ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--stream", required=True)
    parser.add_argument("--group", required=True)
    parser.add_argument("--entries", type=int, required=True)
    parser.add_argument("--rate", type=int, default=0, help="a second; 0 for as many as are consumed")
    options = parser.parse_args()
    redis = Redis.from_url(options.url, protocol=2)
    began, added = time.monotonic(), 0
    while added < options.entries:
        count = min(_AT_ONCE, options.entries - added)
        if options.rate:
            count = min(count, int((time.monotonic() - began) * options.rate) - added)
        elif _waiting(redis, options.stream, options.group) > _AHEAD:
            count = 0
        if count <= 0:
            time.sleep(_PACE_SECONDS)
            continue
        pipeline = redis.pipeline(transaction=False)
        for number in range(added, added + count):
            pipeline.xadd(options.stream, {"payload": payload(number)}, maxlen=_KEPT, approximate=True)
        pipeline.execute()
        added += count


def _waiting(redis: Redis, stream: str, group: str) -> int:
    found = next(of for of in redis.xinfo_groups(stream) if of["name"] == group.encode())
    return int(found["lag"] or 0)


_MIDNIGHT = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
_ATTRIBUTES = json.dumps(
    {"io": {"239": 1, "240": 0, "21": 4, "66": 13_980, "16": {"__bigint": "184467440737095516"}}, "event": "moving"}
)


def payload(number: int) -> bytes:
    """A device's position, a second after its one before, as a gateway writes it: about 330 bytes."""
    ts = _MIDNIGHT + timedelta(seconds=number // DEVICES)
    return (
        f'{{"deviceId":"{350_000_000_000_000 + number % DEVICES}","timestamp":"{ts:%Y-%m-%dT%H:%M:%S}.000Z",'
        f'"latitude":{48 + number % 9973 / 10_000},"longitude":{11 + number % 7919 / 10_000},"altitude":{number % 900},'
        f'"angle":{number % 360},"satellites":{4 + number % 12},"speed":{number % 130},"priority":{number % 3},'
        f'"attributes":{_ATTRIBUTES}}}'
    ).encode()


if __name__ == "__main__":
    main()
