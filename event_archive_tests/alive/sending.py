"""Who sends records: an application that writes rows itself, an API, log files, a stream; all is remembered as sent.

Not here: who takes them in (``life``).
"""

import json
import random
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

from event_archive.domain.days import midnight
from event_archive_tests.alive.books import COLUMNS, Books
from event_archive_tests.api_server.running import ApiServer
from event_archive_tests.fixtures.log_files import Logs, entry, ndjson
from event_archive_tests.fixtures.postgres import Database
from event_archive_tests.fixtures.valkey import Stream, position

_INSERT = f"""
INSERT INTO "Event" (event_id, event_type, created_at, payload) SELECT *
FROM unnest(%s::text[], %s::text[], %s::timestamp[], %s::text[]::jsonb[])
RETURNING {", ".join(f"{name}::text" for name in COLUMNS["events"])}
"""
_PROCESS = f"""
UPDATE "Event" SET processed_at = created_at + interval '1 hour' WHERE created_at::date = %s
RETURNING {", ".join(f"{name}::text" for name in COLUMNS["events"])}
"""


@dataclass(repr=False)
class Senders:
    """All that sends.

    Attributes:
        books: what was sent.
    """

    database: Database
    api: ApiServer
    logs: Logs
    stream: Stream
    books: Books = field(default_factory=Books)
    _number: int = 0
    _dice: random.Random = field(default_factory=lambda: random.Random("a life"))

    def send(self, day: date, count: int) -> None:
        """Records of a day, from everywhere."""
        self.insert(day, count)
        self.add_to_api(*(self.api_event(day) for _ in range(count)))
        self.write_file(f"{day}/{self._next()}.log", day, count)
        self.add_to_stream(*(self.stream_entry(day) for _ in range(count)))

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _instant(self, day: date) -> datetime:
        return midnight(day) + timedelta(milliseconds=self._dice.randrange(86_400_000))

    def insert(self, day: date, count: int) -> None:
        """The application writes rows."""
        numbers = [self._next() for _ in range(count)]
        payloads = [json.dumps({"n": of, "text": 'comma, "quote"\nnewline ü', "empty": ""}) for of in numbers]
        instants = [self._instant(day).replace(tzinfo=None) for _ in numbers]
        self._wrote(_INSERT, [f"evt-{of}" for of in numbers], ["order.created"] * count, instants, payloads)

    def process(self, day: date) -> None:
        """The application writes into the rows of a day once more."""
        self._wrote(_PROCESS, day)

    def _wrote(self, statement: str, *values: object) -> None:
        rows: Any = self.database.execute(statement, *values)
        self.books.events |= {row[0]: row for row in rows}

    def api_event(self, day: date, **fields: Any) -> str:
        """An event, which the API does not give yet."""
        number = self._next()
        event = {"id": f"api-{number}", "type": "click", "timestamp": self._instant(day).isoformat(), "n": 1e-7}
        return json.dumps(event | fields, ensure_ascii=False)

    def add_to_api(self, *events: str) -> None:
        """Events that the API gives from here on."""
        self.api.add(events)
        self.books.records["ingested_events"] += events

    def write_file(self, name: str, day: date, count: int, *bad: bytes) -> None:
        """A log file of a day's entries, and what cannot be one."""
        numbers = [self._next() for _ in range(count)]
        entries = [entry(of, time=int(self._instant(day).timestamp() * 1000)) for of in numbers]
        self.logs.write(name, ndjson(*entries) + b"".join(of + b"\n" for of in bad))
        self.books.records["logs"] += [json.dumps(of) for of in entries]
        self.books.rejected += [("logs", of) for of in bad]

    def stream_entry(self, day: date) -> dict[str, Any]:
        """An entry, which is not in the stream yet."""
        number = self._next()
        return position(number, timestamp=self._instant(day).isoformat().replace("+00:00", "Z"))

    def add_to_stream(self, *entries: dict[str, Any]) -> None:
        """Entries of the stream."""
        ids = self.stream.add(*entries)
        sent = [json.dumps(of | {"streamId": name.decode()}) for of, name in zip(entries, ids, strict=True)]
        self.books.records["positions"] += sent

    def send_what_cannot_be_rows(self, day: date) -> None:
        """A record of each source that cannot be a row."""
        self.write_file("no-time.log", day, 3, b'{"level":30,"msg":"no time"}')
        event = self.api_event(day, name="\0")
        self.api.add([event])
        broken = b'{"deviceId":"device-1","timestamp":'
        self.stream.add(broken)
        self.books.rejected += [("api", event.encode()), ("stream", broken)]
