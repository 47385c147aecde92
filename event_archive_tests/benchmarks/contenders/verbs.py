"""What this project's command line does not do by itself. ``python -m … archive DAY``, ``purge DAY``, ``to_do``.

``event-archive run`` archives and purges; these are the halves, by the functions that the assets call.
"""

import sys
from datetime import date

from event_archive.config import services
from event_archive.config.environment import Settings
from event_archive.domain.days import now_utc
from event_archive.domain.manifest import Manifest
from event_archive.domain.record import Record
from event_archive.nightly.backlog import days_to_do
from event_archive.operations.archive import archive_day
from event_archive.operations.purge import purge_day
from event_archive.operations.site import Site


def archive(day: date) -> None:
    """The export alone."""
    settings = Settings.load()
    with services.lake(settings) as lake:
        archive_day(Site(settings.dataset, services.primary(settings), lake), day)


def purge(day: date) -> None:
    """The purge alone, with what the lake itself says of the file in place of Dagster's record."""
    settings = Settings.load()
    dataset = settings.dataset
    with services.lake(settings) as lake:
        file = lake.stat(dataset.path(day))
        manifest = Manifest.from_file(file) if file else None
        if file is None or manifest is None:
            raise SystemExit(f"there is no file of {day}")
        record = Record(file.etag, manifest.rows)
        purge_day(Site(dataset, services.primary(settings), lake), day, record, dry_run=False)


def to_do() -> None:
    """What the schedule asks the table at each tick."""
    settings = Settings.load()
    print(len(days_to_do(settings.dataset, now_utc(), services.primary(settings)).days))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["archive", text]:
            archive(date.fromisoformat(text))
        case ["purge", text]:
            purge(date.fromisoformat(text))
        case ["to_do"]:
            to_do()
        case words:
            raise SystemExit(f"no such verb: {words}")
