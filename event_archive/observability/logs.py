"""How log lines look. Here: the handler of the ``event_archive`` logger. Not here: what is logged, and results.

Under Dagster they go to standard output; on the command line to standard error, since standard output is the result.
"""

import logging
from typing import TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

_LOGGER = "event_archive"
_LIBRARIES = ("azure", "psycopg", "urllib3")
_NOWHERE = logging.NullHandler()


def configure(*, as_json: bool, verbose: bool, stream: TextIO) -> None:
    """Sets the handler of this package's logger; calling it again replaces the former one.

    Args:
        as_json: a JSON object a line; else plain lines.
        verbose: what is done, and not warnings alone.
        stream: where the lines go.
    """
    logger = logging.getLogger(_LOGGER)
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_formatter(as_json=as_json))
    logger.handlers = [handler]
    logger.setLevel(logging.INFO if verbose else logging.WARNING)
    logger.propagate = False
    for library in _LIBRARIES:
        # What they warn of on the way to an error is said in ours.
        logging.getLogger(library).addHandler(_NOWHERE)


def _formatter(*, as_json: bool) -> logging.Formatter:
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper("iso"),
    ]
    if not as_json:
        return structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[_plain_line],
        )
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            structlog.processors.EventRenamer("message"),
            structlog.processors.JSONRenderer(default=str),
        ],
    )


def _plain_line(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    return f"{event['level']}: {event['event']}"
