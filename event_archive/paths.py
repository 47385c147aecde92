"""What a path names. Before Python 3.14, ``Path`` raises where a folder on the way may not be entered."""

import os
from pathlib import Path


def is_folder(path: Path) -> bool:
    """Whether it is a folder, as far as this user can see."""
    return os.path.isdir(path)  # noqa: PTH112


def is_file(path: Path) -> bool:
    """Whether it is a file, as far as this user can see."""
    return os.path.isfile(path)  # noqa: PTH113
