"""An archiver as it is usually written: rows through SQLAlchemy and the csv module, one upload, one DELETE.

``python -m … export|both DAY``. What it deletes it has not read back.
"""

import csv
import json
import os
import sys
import tempfile
from datetime import date, timedelta

import sqlalchemy
from azure.storage.blob import BlobServiceClient

_SELECT = 'SELECT * FROM "Event" WHERE created_at >= :first AND created_at < :last ORDER BY created_at, id'
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
    with tempfile.NamedTemporaryFile("w+", newline="", encoding="utf-8") as file, engine.connect() as connection:
        result = connection.execute(sqlalchemy.text(_SELECT), window, execution_options={"yield_per": 10_000})
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(result.keys())
        for row in result:
            identity, event_id, event_type, created_at, processed_at, payload = row
            writer.writerow(
                [
                    identity,
                    event_id,
                    event_type,
                    created_at.isoformat(),
                    processed_at.isoformat() if processed_at else "",
                    json.dumps(payload),
                ]
            )
        file.flush()
        with open(file.name, "rb") as content:  # noqa: PTH123 (as it is usually written)
            blob.upload_blob(content, overwrite=True)
        if job == "both":
            connection.execute(sqlalchemy.text(_DELETE), window)
            connection.commit()


if __name__ == "__main__":
    main(*sys.argv[1:])
