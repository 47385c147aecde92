"""As ``ingest_victim``, of log files in a folder. Started by ``test_ingest_logs``."""

import os
import sys
from typing import Any

import psycopg

from event_archive.config.sources import LogsSettings
from event_archive.sources import landing
from event_archive.sources.log_files import decoding, loading
from event_archive.sources.log_files.ingest import Ingestion
from event_archive.sources.log_files.ledger import Ledger
from event_archive.sources.log_files.listing import Listings
from event_archive.sources.log_files.local import Folder
from event_archive_tests.faults.ingest_victim import Point, after, before, die_at, serve

POINTS: dict[str, Point] = {
    "listed": (Ledger, "discover", after),
    "listing": (Listings, "save", after),
    "claimed": (Ledger, "claim", after),
    "locked": (Ledger, "lock", after),
    "open": (Folder, "open", after),
    "copy in": (psycopg.Copy, "write", after),
    "merged": (landing, "_merge", after),
    "rejected": (landing, "_reject", after),
    "former rows": (loading.Loader, "_forget", after),
    "completed": (Ledger, "complete", after),
    "failed": (Ledger, "fail", before),
    "before the commit": (psycopg.Connection, "commit", before),
    "after the commit": (psycopg.Connection, "commit", after),
}
"""Where a child can be made to die."""


def run(order: dict[str, Any]) -> int:
    """Loads all files that wait; 0 where it went well."""
    os.environ.update(order["variables"])
    # Small files make several batches then.
    decoding._BLOCK_BYTES = 1024
    loading._BATCH_ROWS = 1
    loading._BATCH_BYTES = 1
    if order.get("point"):
        die_at(POINTS[order["point"]], order["nth"])
    totals = Ingestion(LogsSettings.load()).run()
    for failure in totals.failures:
        print(failure, file=sys.stderr)
    return 0


if __name__ == "__main__":
    serve(run)
