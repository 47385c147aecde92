"""How log lines look. Here: the handler of the ``event_archive`` logger. Not here: what is logged, and results.

As JSON under Dagster and of ``event-archive run``: standard output; else standard error.
"""

import json
import logging
from datetime import UTC, datetime
from typing import TextIO

from event_archive.domain.days import iso
from event_archive.errors import printable

_LOGGER = "event_archive"
_LIBRARIES = ("azure", "psycopg", "sqlalchemy", "urllib3")
_NOWHERE = logging.NullHandler()
_OF_EVERY_RECORD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


def configure(*, as_json: bool, verbose: bool, stream: TextIO) -> None:
    """Sets the handler of this package's logger; calling it again replaces the former one.

    Args:
        as_json: a JSON object a line; else plain lines.
        verbose: what is done, and not warnings alone.
        stream: where the lines go.
    """
    logger = logging.getLogger(_LOGGER)
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_JsonFormatter() if as_json else _PlainFormatter())
    logger.handlers = [handler]
    logger.setLevel(logging.INFO if verbose else logging.WARNING)
    logger.propagate = False
    for library in _LIBRARIES:
        # What they warn of on the way to an error is said in ours.
        logging.getLogger(library).addHandler(_NOWHERE)


class _PlainFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return f"{record.levelname.lower()}: {printable(record.getMessage(), lines=True)}"


class _JsonFormatter(logging.Formatter):
    """One object a line: the message, its level, when, and what the caller gave as ``extra``."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "message": record.getMessage(),
            "level": record.levelname.lower(),
            # As in every line of a command's output.
            "outcome": record.levelname.lower(),
            "timestamp": iso(datetime.fromtimestamp(record.created, UTC)),
        }
        line |= {name: value for name, value in vars(record).items() if name not in _OF_EVERY_RECORD}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)
