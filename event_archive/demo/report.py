"""What the demo shows at its end: the files, and what is left in the tables. Not here: what was done."""

from pathlib import Path

import click
from psycopg import sql

from event_archive.config import services
from event_archive.config.environment import Settings
from event_archive.demo.samples import connection_of
from event_archive.domain.days import now_utc
from event_archive.domain.manifest import Manifest
from event_archive.domain.wording import counted, size
from event_archive.nightly.backlog import days_to_do
from event_archive.postgres.session import one


def report(datasets: list[Settings]) -> None:
    """Every file with its manifest, then each table."""
    click.echo("\nThe lake, each file with its own description in its metadata:\n")
    click.echo(f"{'file':<25}  {'rows':>7}  {'size':>8}  sha256")
    for settings in datasets:
        with services.lake(settings) as lake:
            files = list(lake.list(settings.dataset.folder))
        for file in files:
            manifest = Manifest.from_file(file)
            if manifest and settings.dataset.day_of(file.path):
                name = Path(file.path).name
                click.echo(f"{name:<25}  {manifest.rows:>7,}  {size(manifest.bytes):>8}  {manifest.sha256}")
    click.echo()
    for settings in datasets:
        _report_table(settings)
    click.echo(f"The CSVs: {datasets[0].archive_local_path}/{datasets[0].dataset.folder}/")
    click.echo("The same runs and days in Dagster's UI: make ui")
    click.echo('Your own tables: README.md, "Run it on your tables", and first of all: event-archive doctor')


def _report_table(settings: Settings) -> None:
    dataset = settings.dataset
    query = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(dataset.table.schema, dataset.table.name))
    with connection_of(settings) as connection:
        (rows,) = one(connection, query)
    left = days_to_do(dataset, now_utc(), services.primary(settings))
    held = len(left.held.intersection(left.days))
    click.echo(
        f"{dataset.table} holds {counted(rows, 'row', 'rows')}. Aged days that still have rows: {len(left.days)} "
        f"(held: {held})."
    )
