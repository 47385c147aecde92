"""A process with everything imported that forks children which run one day and are killed on the way.

Started by ``conftest.Zygote``; takes a JSON object a line on standard input and answers with its number and the child's
wait status. The points where a child dies are put into the libraries and functions from here: the product has no seam
for it.
"""

import functools
import json
import os
import select
import signal
import sys
from collections.abc import Callable
from typing import Any

import dagster as dg
import psycopg
from azure.storage.blob import BlobClient
from psycopg import sql

from event_archive.config.environment import PipelineSettings
from event_archive.defs import assets
from event_archive.defs.build import build_definitions
from event_archive.defs.failures import first_failure
from event_archive.domain.manifest import Hashes
from event_archive.lake.azure.container import AzureLake
from event_archive.observability import logs
from event_archive.operations.archive import archive_day
from event_archive.operations.purge import purge_day
from event_archive.postgres import copy

BLOCK_BYTES = 32 * 1024
CHUNK_BYTES = 8 * 1024

POINTS = {
    "copy out": 5,
    "block staged": 2,
    "before the block list": 1,
    "after the block list": 1,
    "before the archive's event": 1,
    "copy in": 4,
    "before the delete": 1,
    "after the delete": 1,
    "before the commit": 1,
    "after the commit": 1,
    "before the purge's event": 1,
}
"""Where a child can be made to die, and how often a run of some hundred rows comes by."""


def put(owner: Any, name: str, value: object) -> None:
    """Puts something in the place of what a class or module has."""
    getattr(owner, name)
    setattr(owner, name, value)


def die_at(point: str, nth: int) -> None:
    """Makes this process kill itself when it comes to a point for the nth time."""
    seen = 0

    def come() -> None:
        nonlocal seen
        seen += 1
        if seen == nth:
            os.kill(os.getpid(), signal.SIGKILL)

    def before(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            come()
            return function(*args, **kwargs)

        return wrapper

    def after(function: Callable[..., Any], only: Callable[..., bool] = lambda *_: True) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            result = function(*args, **kwargs)
            if only(*args):
                come()
            return result

        return wrapper

    def deletes(_connection: object, query: object, *_: object) -> bool:
        return isinstance(query, sql.Composed) and query.as_string(None).startswith(("DELETE FROM", "DROP TABLE"))

    deleted: set[int] = set()

    def remember(connection: psycopg.Connection[Any], query: object, *_: object) -> bool:
        if deletes(connection, query):
            deleted.add(id(connection))
        return False

    execute, commit = psycopg.Connection.execute, psycopg.Connection.commit

    def execute_or_die(connection: psycopg.Connection[Any], query: Any, *args: Any, **kwargs: Any) -> Any:
        if deletes(connection, query):
            come()
        return execute(connection, query, *args, **kwargs)

    def commit_or_die(connection: psycopg.Connection[Any]) -> None:
        if point == "before the commit" and id(connection) in deleted:
            come()
        commit(connection)
        if point == "after the commit" and id(connection) in deleted:
            come()

    match point:
        case "copy out":
            put(Hashes, "update", after(Hashes.update))
        case "block staged":
            put(BlobClient, "stage_block", after(BlobClient.stage_block))
        case "before the block list":
            put(BlobClient, "commit_block_list", before(BlobClient.commit_block_list))
        case "after the block list":
            put(BlobClient, "commit_block_list", after(BlobClient.commit_block_list))
        case "before the archive's event":
            put(assets, "archive_day", after(archive_day))
        case "copy in":
            put(psycopg.Copy, "write", after(psycopg.Copy.write))
        case "before the delete":
            put(psycopg.Connection, "execute", execute_or_die)
        case "after the delete":
            put(psycopg.Connection, "execute", after(execute, deletes))
        case "before the commit" | "after the commit":
            put(psycopg.Connection, "execute", after(execute, remember))
            put(psycopg.Connection, "commit", commit_or_die)
        case "before the purge's event":
            put(assets, "purge_day", after(purge_day))
        case _:
            raise ValueError(point)


def run(order: dict[str, Any]) -> int:
    """Runs one day as Dagster does; 0 where it went well."""
    if order.get("point"):
        die_at(order["point"], order["nth"])
    job = build_definitions(PipelineSettings.load()).resolve_job_def("archive_job")
    with dg.DagsterInstance.get() as instance:
        quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
        done = job.execute_in_process(
            run_config=quiet, instance=instance, partition_key=order["day"], raise_on_error=False
        )
    if not done.success:
        print(*first_failure(done.all_events), file=sys.stderr)
    return 0 if done.success else 1


def carry_out(order: dict[str, Any]) -> int:
    """Forks a child for an order, kills it after some seconds where the order says so, and returns its wait status."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = run(order)
        finally:
            sys.stderr.flush()
            os._exit(code)
    if "seconds" in order:
        watch = os.pidfd_open(child)
        select.select([watch], [], [], order["seconds"])
        os.close(watch)
        os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def main() -> None:
    """Carries out orders until standard input ends."""
    put(copy, "_PIECE_OUT_BYTES", CHUNK_BYTES)
    small = functools.partial(AzureLake.from_connection_string, block_bytes=BLOCK_BYTES)
    put(AzureLake, "from_connection_string", small)
    logs.configure(as_json=False, verbose=False, stream=sys.stderr)
    # What Dagster imports when it first runs something shall not be imported by every child.
    run({"day": "2015-01-01"})
    for line in sys.stdin:
        order = json.loads(line)
        print(json.dumps({"number": order["number"], "status": carry_out(order)}), flush=True)


if __name__ == "__main__":
    main()
