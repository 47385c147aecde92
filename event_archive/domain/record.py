"""The archive's record: what was recorded of a day's file when it was archived. A purge's gate compares the two.

Not here: the gate (``operations.purge``), where records are kept.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from event_archive.errors import IntegrityError


@dataclass(frozen=True, slots=True)
class Record:
    """What the latest archive of a day recorded of its file.

    Attributes:
        etag: of the file; None where the day had neither rows nor a file.
        rows: in the file.
        bytes: of the file.
        seconds: that the archive took.
        url: where the file lay; empty where that is not recorded.
        rows_appended: of ``rows``, those that this archive wrote.
    """

    etag: str | None
    rows: int
    bytes: int = 0
    seconds: float = 0.0
    url: str = ""
    rows_appended: int = 0

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any], *, subject: str, archive_again: str) -> "Record":
        """Reads it from a materialization's metadata, as plain values.

        Args:
            metadata: of ``archive_csv``.
            subject: table and day, for the message.
            archive_again: the command that does, likewise.

        Raises:
            IntegrityError: the materialization was not made by this package.
        """
        try:
            etag = metadata["etag"]
            if etag is not None and not isinstance(etag, str):
                raise TypeError("etag")
            rows, size, seconds = int(metadata["dagster/row_count"]), int(metadata["bytes"]), float(metadata["seconds"])
            appended = int(metadata.get("rows_appended", 0))
            return cls(etag, rows, size, seconds, str(metadata.get("url") or ""), appended)
        except (KeyError, TypeError, ValueError) as error:
            raise IntegrityError(
                f"{subject}: the latest materialization of archive_csv lacks its metadata ({error}): it was recorded "
                "by hand.",
                outcome="Nothing was deleted.",
                advice=f"Archive the day again: {archive_again}, or materialize archive_csv.",
            ) from None

    def elsewhere(self, url: str) -> str:
        """Where the file lay, if that is another place than where it is looked for by now; else empty."""
        return "" if self.url == url else self.url
