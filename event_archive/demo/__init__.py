"""All of it on one machine: events come in by each way, aged days go out into a folder, one day is restored.

Drives the command line on embedded servers. Not here: anything that a real installation uses.
"""

import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from datetime import date, timedelta
from pathlib import Path

import click

from event_archive.config.environment import Settings
from event_archive.demo import samples
from event_archive.demo.feeds import feeds
from event_archive.demo.installation import installation
from event_archive.demo.report import report
from event_archive.demo.samples import fill, late_events
from event_archive.domain.days import ONE_DAY, now_utc
from event_archive.errors import ConfigurationError, RefusedError

_END_SECONDS = 3
_UNTIL_THE_TICK = timedelta(seconds=60)
"""At least, for the daemon to be there; the tick comes with a full minute."""


def show() -> None:
    """Lets events come in, archives and purges them, restores a day; the second time, only a held day is left."""
    with installation() as (home, datasets):
        if not _first_nights(home, datasets):
            _command("run")
        report(datasets)


def serve(port: int) -> None:
    """The same, then Dagster's UI on it, until Ctrl-C or SIGTERM: a night begins soon, since late events arrived.

    Raises:
        ConfigurationError: the port is taken.
    """
    _require_free(port)
    with installation() as (home, datasets):
        _first_nights(home, datasets)
        with feeds(home, _aged_day(datasets), first=False):
            _serve(port, home, datasets)


def _serve(port: int, home: Path, datasets: list[Settings]) -> None:
    _dagster("job", "execute", "-j", "check_job")
    late_events(datasets[0], 3)
    tick = now_utc() + _UNTIL_THE_TICK + timedelta(minutes=1)
    click.echo(f"\nDagster's UI: http://127.0.0.1:{port} (Ctrl-C ends it, and the embedded servers with it)")
    click.echo(f"At {tick:%H:%M} UTC its schedules begin a night: see Runs and Timeline.")
    click.echo("Meanwhile, in another shell, any command works on the demo with these variables:")
    for name in (
        *("PG_CONNECTION_STRING", "ARCHIVE_LOCAL_PATH", "DATASETS_FILE", "DAGSTER_HOME"),
        *("API_BASE_URL", "API_KEY", "LOGS_URL", "REDIS_URL"),
    ):
        click.echo(f"  export {name}='{os.environ[name]}'")
    command = [sys.executable, "-m", "dagster", "dev", "-m", "event_archive.definitions", "-p", str(port)]
    # What Dagster says of its own command is no news of the demo.
    quiet = {"PYTHONWARNINGS": "ignore:Function `dev_command` is superseded"}
    environment = os.environ | quiet | {"ARCHIVE_CRON": f"{tick.minute} {tick.hour} * * *"}
    # A group of its own, so that all of Dagster's processes end with this one. A folder without a dagster.yaml, which
    # Dagster would warn of beside DAGSTER_HOME.
    with subprocess.Popen(command, start_new_session=True, env=environment, cwd=home) as process:
        try:
            process.wait()
        finally:
            _end(process)


def _require_free(port: int) -> None:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise ConfigurationError(
            f"Port {port} cannot be had ({why}). Name another: make ui UI_PORT={port + 1}, or event-archive demo --ui "
            f"--port {port + 1}"
        ) from None


def _first_nights(home: Path, datasets: list[Settings]) -> bool:
    """Two nights of the command line and a restore, where there are no tables yet; whether there were none."""
    events, page_views, *_ = datasets
    if not any([fill(events), fill(page_views)]):
        return False
    click.echo("\nEvents come in by an HTTP API, as log files and on a Redis stream, all on this machine.")
    with feeds(home, _aged_day(datasets), first=True):
        _command("ingest", "api")
        _command("ingest", "logs")
        _command("ingest", "stream", "--drain")
    held = events.dataset.start + (samples.AGED_DAYS - 2) * ONE_DAY
    _command("hold", held.isoformat(), "--dataset", "events", "--reason", "a customer asks about it")
    _command("run")
    late_events(events, 1)
    _command("run")
    _command("restore", events.dataset.start.isoformat(), "--dataset", "events")
    return True


def _aged_day(datasets: list[Settings]) -> date:
    """The youngest aged day of the tables that sources fill, as it was when they were described."""
    return datasets[-1].dataset.start + (samples.AGED_DAYS - 1) * ONE_DAY


def _command(*arguments: str) -> None:
    click.echo(f"\n$ event-archive {' '.join(repr(word) if ' ' in word else word for word in arguments)}")
    command = [sys.executable, "-m", "event_archive.cli", *arguments]
    done = subprocess.run(command, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise RefusedError(
            f"event-archive {arguments[0]} ended with exit code {done.returncode}: see what it says above."
        )


def _dagster(*arguments: str) -> None:
    command = [sys.executable, "-m", "dagster", *arguments, "-m", "event_archive.definitions"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RefusedError(f"dagster {' '.join(arguments)} ended with exit code {done.returncode}:\n{done.stderr}")


def _end(process: "subprocess.Popen[bytes]") -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_END_SECONDS)
