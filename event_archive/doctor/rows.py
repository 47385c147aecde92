"""Rows that no night purges: those of no day, and those of held days. Only reads."""

import time
from collections.abc import Iterator

from event_archive.config import services
from event_archive.doctor.findings import Finding, Patient
from event_archive.doctor.server import STATEMENT_TIMEOUT_SECONDS, reading
from event_archive.domain.wording import counted
from event_archive.errors import BusyError
from event_archive.nightly.orphans import orphans_told
from event_archive.table.holds import holds
from event_archive.table.rows import count_orphans
from event_archive.table.shape import reflect

ROWS = ("orphans", "holds")


def rows(patient: Patient) -> Iterator[Finding]:
    """Rows that no night purges: those of no day, and those of held days."""
    dataset, primary = patient.settings.dataset, services.primary(patient.settings)
    try:
        with reading(primary, str(dataset.table)) as connection:
            table = reflect(connection, dataset)
            orphans = count_orphans(connection, table, until=time.monotonic() + STATEMENT_TIMEOUT_SECONDS)
    except BusyError as error:
        yield Finding("orphans", "warning", f"rows of no day could not be counted in time: {error}")
    else:
        if orphans:
            yield Finding("orphans", "warning", orphans_told(dataset, orphans))
        else:
            yield Finding("orphans", "good", "every row is of a day")
    held = holds(dataset, primary)
    days = sum((hold.last - hold.first).days + 1 for hold in held)
    yield Finding("holds", "good", counted(days, "day is held", "days are held") if days else "no day is held")
