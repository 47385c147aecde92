from datetime import UTC, datetime

import pytest

from event_archive.errors import IntegrityError
from event_archive.lake.protocol import StoredFile
from event_archive.operations.csv_format import header, read_head, takes_more_rows, without_end_marker
from event_archive.operations.loading import _place, line_column

FILE = StoredFile("f/events_2024-03-01.csv", 1, '"e"', {}, datetime.now(UTC))


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


def test_a_mark_counts_as_part_of_a_name_only_where_it_stands():
    marked = "\ufeffid"
    assert header(b"id\n", FILE, [marked, "id"]) == ("id",)
    assert header(marked.encode() + b"\n", FILE, [marked, "id"]) == (marked,)


def test_what_has_no_end_of_a_line_is_not_read_to_its_end_for_a_header():
    blocks = iter([b"x" * 2_000_000] * 3)
    assert len(read_head(blocks, FILE)) == 2_000_000
    assert len(list(blocks)) == 2


def test_an_empty_file_is_said_to_be_empty():
    with pytest.raises(IntegrityError, match="it is empty"):
        read_head(iter([]), FILE)


def test_the_numbering_column_is_none_of_the_tables():
    assert line_column(["id"]) == "line_"
    assert line_column(["line_", "line__"]) == "line___"


@pytest.mark.parametrize(
    ("content", "more"),
    [
        (b"id\n1\n", True),
        (b"id\n", True),
        (b"id\n1", False),
        (b"id\r\n1\r\n", False),
        (b"\xef\xbb\xbfid\n1\n", False),
        (b"id", False),
    ],
)
def test_rows_may_follow_only_where_lines_end_as_ours_do(content: bytes, more: bool):
    assert takes_more_rows(content, content[-1:]) == more


@pytest.mark.parametrize(
    "content", [b"id\n1\n\\.\n2\n", b"id\r\n\\.\r\n", b"id\r1\r\\.\r2\r", b'id\n"a\nb"\n\\.\n', b"\\.\n", b"\\.\r"]
)
@pytest.mark.parametrize("block_bytes", [1, 2, 3, 5, 100])
def test_an_end_marker_is_refused(content: bytes, block_bytes: int):
    blocks = (content[n : n + block_bytes] for n in range(0, len(content), block_bytes))
    with pytest.raises(IntegrityError, match="before 18"):
        list(without_end_marker(blocks, FILE))


@pytest.mark.parametrize(
    "content", [b'id\n"a\n\\.\nb"\n', b'id\r"a\r\\.\rb"\r', b"id\n\\.x\n", b"id\nx\\.\n", b'id\n"\\."\n', b"id\n\\."]
)
@pytest.mark.parametrize("block_bytes", [1, 2, 3, 5, 100])
def test_what_looks_like_an_end_marker_passes(content: bytes, block_bytes: int):
    blocks = [content[n : n + block_bytes] for n in range(0, len(content), block_bytes)]
    assert list(without_end_marker(iter(blocks), FILE)) == blocks


@pytest.mark.parametrize(
    ("context", "place"),
    [
        ('COPY event_archive_readback, line 3, column id: "x, column at: 9"', ("3", "id")),
        ("COPY event_archive_readback, Zeile 3, Spalte id: „x“", ("3", "id")),
        ("COPY event_archive_readback, строка 12, столбец id2: «x»", ("12", "id2")),
        ("COPY event_archive_readback, ligne 3, colonne the id : « x »", ("3", "the id")),
        ('COPY event_archive_readback, 第 3 行, 列 id: "x"', ("3", "id")),
        ('event_archive_readbackのCOPY、行 3、列 id: "x"', ("3", "id")),
        ('event_archive_readback 복사, 3번째 줄, id 열: "x, 4"', ("3", "id")),
        ("event_archive_readback_2024_03_01 복사, 12번째 줄", ("12", "")),
        ('COPY event_archive_readback, line 3: "1,column id,x"', ("3", "")),
        ('JSON data, line 1: {x\nCOPY event_archive_readback, line 3, column id: "{x"', ("3", "id")),
        ('COPY event_archive_readback, line 3, column others: "id"', ("3", "")),
        ('PL/pgSQL function f() line 2 at RAISE\nSQL statement "SELECT 1"', ("", "")),
        ("", ("", "")),
    ],
)
def test_where_a_file_is_bad_is_found_in_any_language_and_without_its_values(context: str, place: tuple[str, str]):
    assert _place(context, ["id", "at", "id2", "the id"]) == place
