"""The rules for paths and metadata that every lake can take. Not here: what they mean."""

import re
from collections.abc import Mapping

MAX_METADATA_BYTES = 8 * 1024
"""For all names and values of one file: the least that any lake here takes; today Azure's."""

_METADATA_NAME = re.compile(r"[a-z_][a-z0-9_]*")
_METADATA_VALUE = re.compile(r"[!-~](?:[ -~]*[!-~])?|")


def check_path(path: str) -> None:
    """Refuses a path that would not mean the same file in every lake.

    Raises:
        ValueError: an empty part, one that begins with a dot (hidden in a folder), a backslash or a control character.
    """
    parts = path.split("/")
    if any(not part or part.startswith(".") or not part.isprintable() or "\\" in part for part in parts):
        raise ValueError(
            "must be a path in a lake: parts joined by '/', none empty or beginning with a dot, without a backslash or "
            "unprintable characters"
        )


def check_metadata(metadata: Mapping[str, str]) -> None:
    """Refuses metadata that a lake would change or refuse, since they travel as HTTP headers.

    Raises:
        ValueError: a name that is no lower-case identifier, a value that is not printable ASCII or that begins or ends
            with a space, or more than 8 KiB in all.
    """
    for name, value in metadata.items():
        if not _METADATA_NAME.fullmatch(name):
            raise ValueError(f"metadata name {name!r} is not a lower-case identifier")
        if not _METADATA_VALUE.fullmatch(value):
            raise ValueError(f"the value of metadata {name!r} is not printable ASCII without outer spaces")
    size_bytes = sum(len(name) + len(value) for name, value in metadata.items())
    if size_bytes > MAX_METADATA_BYTES:
        raise ValueError(f"metadata of {size_bytes} bytes; {MAX_METADATA_BYTES} are allowed")
