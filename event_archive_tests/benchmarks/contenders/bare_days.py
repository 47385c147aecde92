"""The requests and statements that archiving and purging days cannot do without, and nothing around them.

``python -m … FIRST DAYS``. A connection, a COPY out, a block, its commit; a stat, the block again, a COPY in, a DELETE.
"""

import os
import sys
import uuid
from datetime import date, timedelta

import psycopg
from azure.storage.blob import BlobBlock, ContainerClient

_OUT = 'COPY (SELECT * FROM "Event" AS src_ WHERE {} ORDER BY created_at, id) TO STDOUT (FORMAT csv, HEADER)'
_IN = 'CREATE TEMP TABLE readback_ ON COMMIT DROP AS SELECT * FROM "Event" WITH NO DATA'
_DELETE = 'DELETE FROM "Event" AS src_ USING readback_ WHERE src_.id = readback_.id AND src_ *= readback_ AND {}'


def main(first: str, days: str) -> None:
    """Does each day."""
    container = ContainerClient.from_connection_string(
        os.environ["AZURE_STORAGE_CONNECTION_STRING"], os.environ["AZURE_STORAGE_CONTAINER"]
    )
    with container:
        for number in range(int(days)):
            _day(container, date.fromisoformat(first) + timedelta(days=number))


def _day(container: ContainerClient, day: date) -> None:
    window = f"src_.created_at >= '{day}' AND src_.created_at < '{day + timedelta(days=1)}'"
    dsn = os.environ["PG_CONNECTION_STRING"]
    blob = container.get_blob_client(f"events_{day}.csv")
    with psycopg.connect(dsn) as connection, connection.cursor() as cursor:
        with cursor.copy(_OUT.format(window).encode()) as rows:
            content = b"".join(map(bytes, rows))
        block = BlobBlock(uuid.uuid4().hex)
        blob.stage_block(block.id, content)
        blob.commit_block_list([block])
    with psycopg.connect(dsn) as connection, connection.cursor() as cursor:
        blob.get_blob_properties()
        cursor.execute(_IN)
        with cursor.copy("COPY readback_ FROM STDIN (FORMAT csv, HEADER)") as archived:
            archived.write(blob.download_blob().readall())
        cursor.execute("ANALYZE readback_")
        cursor.execute(_DELETE.format(window).encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
