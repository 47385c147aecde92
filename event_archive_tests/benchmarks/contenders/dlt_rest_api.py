"""An API's events by dlt: its ``rest_api`` source into its PostgreSQL destination, the event as one ``jsonb`` column.

``python -m …``. By COPY of CSV files, merged by the key.
"""

import os
import tempfile
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

_COLUMNS = {
    "id": {"data_type": "text"},
    "event_type": {"data_type": "text"},
    "timestamp": {"data_type": "timestamp"},
    "data": {"data_type": "json", "nullable": False},
}


def main() -> None:
    """Takes in all there is."""
    # Read at the import. Its own choice, orjson, ends at an integer of more than 64 bits, and these events hold some.
    os.environ |= {"DLT_USE_JSON": "simplejson", "RUNTIME__DLTHUB_TELEMETRY": "false", "RUNTIME__LOG_LEVEL": "ERROR"}
    import dlt
    from dlt.sources.rest_api import rest_api_source

    source = rest_api_source(
        {
            "client": {
                "base_url": os.environ["API_BASE_URL"],
                "auth": {"type": "api_key", "name": "X-API-Key", "api_key": os.environ["API_KEY"]},
                "paginator": {"type": "cursor", "cursor_path": "nextCursor", "cursor_param": "cursor"},
            },
            "resources": [
                {
                    "name": "ingested_events",
                    "primary_key": "id",
                    "write_disposition": "merge",
                    "columns": _COLUMNS,
                    "endpoint": {"path": "events", "params": {"limit": 1000}, "data_selector": "data"},
                    "processing_steps": [{"map": _row}],
                }
            ],
        }
    )
    host = quote(os.environ["PGHOST"], safe="")
    postgres = dlt.destinations.postgres(f"postgresql://postgres:none@localhost/{os.environ['PGDATABASE']}?host={host}")
    with tempfile.TemporaryDirectory() as folder:
        pipeline = dlt.pipeline("ingestion", pipelines_dir=folder, destination=postgres, dataset_name="public")
        pipeline.run(source, loader_file_format="csv").raise_on_failed_jobs()


def _row(event: dict[str, Any]) -> dict[str, Any]:
    time = event["timestamp"]
    instant = datetime.fromtimestamp(time / 1000, UTC) if isinstance(time, int) else datetime.fromisoformat(time)
    return {"id": event["id"], "event_type": event["type"], "timestamp": instant, "data": event}


if __name__ == "__main__":
    main()
