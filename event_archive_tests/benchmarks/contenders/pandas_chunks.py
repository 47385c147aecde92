"""The same by pandas: chunks of a query to a CSV file, one upload, one DELETE. ``python -m … export|both DAY``."""

import os
import sys
import tempfile
from datetime import date, timedelta
from pathlib import Path

import pandas as pd
import sqlalchemy
from azure.storage.blob import BlobServiceClient

# As text: pandas would write Python's representation of a dict.
_SELECT = """
SELECT id, event_id, event_type, created_at, processed_at, payload::text FROM "Event"
WHERE created_at >= :first AND created_at < :last ORDER BY created_at, id
"""
_DELETE = 'DELETE FROM "Event" WHERE created_at >= :first AND created_at < :last'


def main(job: str, day: str) -> None:
    """Does a day."""
    first = date.fromisoformat(day)
    window = {"first": first, "last": first + timedelta(days=1)}
    service = BlobServiceClient.from_connection_string(os.environ["AZURE_STORAGE_CONNECTION_STRING"])
    blob = service.get_blob_client(os.environ["AZURE_STORAGE_CONTAINER"], f"titan-pulse-event-archive/events_{day}.csv")
    engine = sqlalchemy.create_engine(
        f"postgresql+psycopg://postgres@/{os.environ['PGDATABASE']}?host={os.environ['PGHOST']}"
    )
    with tempfile.TemporaryDirectory() as folder, engine.connect() as connection:
        file = Path(folder) / "day.csv"
        connection.execution_options(stream_results=True)
        chunks = pd.read_sql(sqlalchemy.text(_SELECT), connection, params=window, chunksize=50_000)
        for number, chunk in enumerate(chunks):
            chunk.to_csv(file, mode="a", header=number == 0, index=False)
        with file.open("rb") as content:
            blob.upload_blob(content, overwrite=True)
    if job == "both":
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text(_DELETE), window)


if __name__ == "__main__":
    main(*sys.argv[1:])
