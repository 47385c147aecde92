"""Days whose line to PostgreSQL is cut, and where it is."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from event_archive_tests.faults.union import Row, in_table
from event_archive_tests.faults.wire import Trouble, commit, copy_data, done, statement
from event_archive_tests.fixtures.pipeline import Pipeline

ROWS = 700  # some 140 kB: three of the small blocks, one message a row


def with_file(pipeline: Pipeline, *, late: bool) -> list[Row]:
    """A day of rows; with ``late``, most of them archived and purged already."""
    if late:
        pipeline.add(ROWS)
        before = in_table(pipeline)
        Pipeline(pipeline.database, pipeline.lake).run()
        pipeline.add(50, prefix="late")
        return before + in_table(pipeline)
    pipeline.add(ROWS)
    return in_table(pipeline)


@contextmanager
def ends_within(seconds: float) -> Iterator[None]:
    started = time.monotonic()
    yield
    assert time.monotonic() - started < seconds


CUTS = {
    "before COPY OUT": partial(Trouble, "client", statement("TO STDOUT")),
    "at the first row of COPY OUT": partial(Trouble, "server", copy_data),
    "amid COPY OUT": partial(Trouble, "server", copy_data, nth=40),
    "amid a row of COPY OUT": partial(Trouble, "server", copy_data, nth=30, sent=17),
    "amid COPY OUT, by a reset": partial(Trouble, "server", copy_data, nth=30, reset=True),
    "at the end of COPY OUT": partial(Trouble, "server", lambda kind, _: kind == b"c"),
    "before COPY OUT is done": partial(Trouble, "server", done("COPY")),
    "before COPY IN": partial(Trouble, "client", statement("FROM STDIN")),
    "at the first block of COPY IN": partial(Trouble, "client", copy_data),
    "amid a block of COPY IN": partial(Trouble, "client", copy_data, sent=5000),
    "amid COPY IN, by a reset": partial(Trouble, "client", copy_data, sent=5000, reset=True),
    "before the end of COPY IN": partial(Trouble, "client", lambda kind, _: kind == b"c"),
    "after the end of COPY IN": partial(Trouble, "client", lambda kind, _: kind == b"c", sent=-1),
    "before the DELETE": partial(Trouble, "client", statement("DELETE FROM")),
    "amid the DELETE's text": partial(Trouble, "client", statement("DELETE FROM"), sent=20),
    "after the DELETE was sent": partial(Trouble, "client", statement("DELETE FROM"), sent=-1),
    "after the DELETE was done": partial(Trouble, "server", done("DELETE")),
    "before the purge's COMMIT": partial(Trouble, "client", commit, nth=2),
}
