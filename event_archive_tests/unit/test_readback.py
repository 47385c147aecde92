from datetime import UTC, datetime

import pytest

from event_archive.errors import IntegrityError
from event_archive.lake import StoredFile
from event_archive.readback import Hashes, header, line_column

FILE = StoredFile("f/events_2024-03-01.csv", 1, '"e"', {}, datetime.now(UTC), appendable=True)


@pytest.mark.parametrize(
    ("head", "names"),
    [
        (b"id,at\n1,2\n", ("id", "at")),
        (b"id,at", ("id", "at")),
        (b"id,at\r\n1,2\r\n", ("id", "at")),
        (b"\xef\xbb\xbfid\n1\n", ("id",)),
        (b'"a,b","quo""te","new\nline"\n1,2,3\n', ("a,b", 'quo"te', "new\nline")),
        ("événement\n".encode(), ("événement",)),
    ],
)
def test_a_header_is_read(head: bytes, names: tuple[str, ...]):
    assert header(head, FILE) == names


@pytest.mark.parametrize("head", [b"\n", b"a,,b\n", b"\xff\n", b'"a\n', b"a,a\n", b"x" * 64, b'"a"b"\n', b"\0\n"])
def test_what_is_no_header_is_refused(head: bytes):
    with pytest.raises(IntegrityError, match="header"):
        header(head, FILE)


def test_the_numbering_column_is_none_of_the_tables():
    assert line_column(["id"]) == "line_"
    assert line_column(["line_", "line__"]) == "line___"


def test_a_copy_of_hashes_goes_its_own_way():
    hashes = Hashes()
    hashes.update(b"a")
    twin = hashes.copy()
    twin.update(b"b")
    assert (hashes.bytes, twin.bytes) == (1, 2)
    assert hashes.sha256.hexdigest() != twin.sha256.hexdigest()
