"""``event-archive demo``."""

import click


@click.command(short_help="Runs all of it on embedded servers.")
@click.option("--ui", is_flag=True, help="Serve the Dagster UI over the demo's database and lake, until Ctrl-C.")
@click.option("--port", type=click.IntRange(1, 65_535), default=3000, show_default=True, help="The UI's port.")
def demo(*, ui: bool, port: int) -> None:
    """Runs all of it on an embedded PostgreSQL, with a folder as the lake."""
    from event_archive.demo import serve, show

    if ui:
        serve(port)
    else:
        show()
