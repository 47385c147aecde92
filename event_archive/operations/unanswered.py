"""Commits of this process that got no answer, and may still come while the file is the version that they replace.

A row that they append may have gone back to what it was: purged as that, the file would end with the form in between.
So nothing is deleted by such a version. Not here: who gives the file another ETag, by which they fail.
"""

from event_archive.lake.protocol import Lake, StoredFile

_replaced: dict[str, str] = {}
"""By a file's URL, the ETag of the version that such a commit was to replace."""


def note_unanswered(lake: Lake, file: StoredFile) -> None:
    """Notes that a commit which was to replace a file got no answer."""
    _replaced[lake.url(file.path)] = file.etag


def may_be_replaced(lake: Lake, file: StoredFile) -> bool:
    """Whether such a commit can still replace a file."""
    return _replaced.get(lake.url(file.path)) == file.etag
