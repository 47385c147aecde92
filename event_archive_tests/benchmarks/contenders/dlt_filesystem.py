"""Log files by dlt: its ``filesystem`` source into its PostgreSQL destination, the entry as one ``json`` column.

``python -m …``. From a folder: what it reads S3 with, s3fs, needs another botocore than boto3 has here. By COPY of CSV
files, merged by the key.
"""

import gzip
import json
import os
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

_COLUMNS = {
    "id": {"data_type": "text"},
    "timestamp": {"data_type": "timestamp"},
    "level": {"data_type": "bigint"},
    "message": {"data_type": "text"},
    "raw_data": {"data_type": "json", "nullable": False},
}


def main() -> None:
    """Loads all there is."""
    # Read at the import.
    os.environ |= {"RUNTIME__DLTHUB_TELEMETRY": "false", "RUNTIME__LOG_LEVEL": "ERROR"}
    import dlt
    from dlt.sources.filesystem import filesystem

    logs = dlt.transformer(name="logs", primary_key="id", write_disposition="merge", columns=_COLUMNS)(_entries)
    host = quote(os.environ["PGHOST"], safe="")
    postgres = dlt.destinations.postgres(f"postgresql://postgres:none@localhost/{os.environ['PGDATABASE']}?host={host}")
    source = filesystem(bucket_url=f"file://{os.environ['LOGS_FOLDER']}", file_glob="*") | logs
    with tempfile.TemporaryDirectory() as folder:
        pipeline = dlt.pipeline("ingestion", pipelines_dir=folder, destination=postgres, dataset_name="public")
        pipeline.run(source, loader_file_format="csv").raise_on_failed_jobs()


def _entries(files: list[Any]) -> Iterator[list[dict[str, Any]]]:
    for file in files:
        with file.open(compression="disable") as stored, gzip.open(stored) as content:
            yield from _read(file["file_url"], content)


def _read(url: str, content: gzip.GzipFile) -> Iterator[list[dict[str, Any]]]:
    """Rows, some at a time; an array is whole in memory, as dlt has no reader of arrays."""
    is_array = content.peek(1)[:1] == b"["
    rows: list[dict[str, Any]] = []
    for number, entry in enumerate(json.load(content) if is_array else map(json.loads, content)):
        rows.append(_row(f"{url}.{number}", entry))
        if len(rows) == 1000:
            yield rows
            rows = []
    yield rows


def _row(key: str, entry: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": key,
        "timestamp": datetime.fromtimestamp(entry["time"] / 1000, UTC),
        "level": entry["level"],
        "message": entry["msg"],
        "raw_data": entry,
    }


if __name__ == "__main__":
    main()
