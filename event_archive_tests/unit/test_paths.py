"""What a path names, to somebody who may not enter a folder on the way."""

import os
from pathlib import Path

import pytest

from event_archive import paths


def test_what_lies_in_a_folder_that_may_not_be_entered_is_neither_a_folder_nor_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    assert (paths.is_folder(tmp_path), paths.is_file(Path(__file__))) == (True, True)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    # Who is root may enter any.
    monkeypatch.setattr(os, "stat", refuse)
    found = (paths.is_folder(tmp_path), paths.is_file(Path(__file__)))
    monkeypatch.undo()
    assert found == (False, False)
