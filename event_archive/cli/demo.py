"""``event-archive demo``."""

import click

_UI_PORT = 3000


@click.command(short_help="Runs all of it on embedded servers.")
@click.option("--ui", is_flag=True, help="Serve the Dagster UI over the demo's database and lake, until Ctrl-C.")
@click.option("--port", type=click.IntRange(1, 65_535), help=f"The UI's port; without it, {_UI_PORT}.")
def demo(*, ui: bool, port: int | None) -> None:
    """Runs all of it on an embedded PostgreSQL, with a folder as the lake."""
    from event_archive.demo import serve, show

    if port and not ui:
        raise click.UsageError("--port is the UI's: give --ui, too.")
    if ui:
        serve(port or _UI_PORT)
    else:
        show()
