"""Log entries out of bytes: the same however the bytes arrive, in flat memory."""

import gzip
import json
import random
import re
from collections.abc import Callable, Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from event_archive.sources.log_files import decoding
from event_archive.sources.log_files.decoding import entries
from event_archive.sources.log_files.inflating import CorruptError, inflated

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.just('"},{"') | st.just("[{"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.lists(st.dictionaries(st.text(max_size=4), VALUES, max_size=4), max_size=12)


def pieces(content: bytes, size: int) -> Iterator[bytes]:
    return (content[start : start + size] for start in range(0, len(content), size))


def read(content: bytes, size: int = 1 << 20) -> list[bytes]:
    return [bytes(of) for some in entries(inflated(pieces(content, size))) for of in some]


def lines(objects: Sequence[object]) -> bytes:
    return b"".join(json.dumps(of, ensure_ascii=False).encode() + b"\n" for of in objects)


def array(objects: Sequence[object]) -> bytes:
    return json.dumps(objects, ensure_ascii=False).encode()


def laid_out(objects: Sequence[object]) -> bytes:
    return b"\r\n".join(json.dumps(of, indent=2).encode() for of in objects)


@settings(max_examples=150, deadline=None)
@given(
    objects=OBJECTS,
    write=st.sampled_from([lines, array, laid_out]),
    size=st.integers(1, 40),
    block=st.sampled_from([8, 64, 1024]),
    zipped=st.integers(0, 2),
)
def test_any_entries_come_back_however_they_are_written_and_arrive(
    objects: list[object], write: Callable[[Sequence[object]], bytes], size: int, block: int, zipped: int
):
    content = write(objects)
    for _ in range(zipped):
        content = gzip.compress(content) + b"\0" * (size % 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "_BLOCK_BYTES", block)
        assert [json.loads(of) for of in read(content, size)] == objects


@settings(max_examples=100, deadline=None)
@given(
    content=st.binary(max_size=200) | st.text('[]{}",: \n1aN\\u', max_size=60).map(str.encode), size=st.integers(1, 9)
)
def test_any_bytes_at_all_end_the_same_way_however_they_arrive(content: bytes, size: int):
    def outcome(size: int) -> object:
        try:
            return read(content, size)
        except CorruptError as error:
            return re.sub(r": .*", "", str(error))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "_BLOCK_BYTES", 16)
        patch.setattr(decoding, "MOST_ENTRY_BYTES", 64)
        assert outcome(size) == outcome(1000)


def test_a_broken_line_among_others_is_an_entry_and_the_rest_stays_whole():
    content = lines([{"n": 1}]) + b'{"n":\n' + lines([{"n": 2}]) + b"text {\n" + lines([{"n": 3}])
    assert read(content) == [b'{"n": 1}', b'{"n":', b'{"n": 2}', b"text {", b'{"n": 3}']


def test_objects_one_behind_the_other_on_a_line_are_entries():
    assert read(b'{"a":1}{"b":2}\n{"c":3') == [b'{"a":1}', b'{"b":2}', b'{"c":3']


def test_an_element_that_is_not_quite_json_hides_no_other(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(decoding, "_BLOCK_BYTES", 64)
    elements = [b'{"n":%d}' % number for number in range(100)]
    elements[50] = b'{"n":NaN}'
    elements[70] = b'{"n":"\\ud800"}'
    elements[90] = b'{"n":"\xff"}'
    assert read(b"[" + b" ,\n".join(elements) + b"]\n") == elements


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'[{"a":1},{"b":2', "cut short at byte 15"),
        (b'[{"a":1},', "cut short at byte 9"),
        (b'[{"a":1} {"b":2}]', "no JSON at byte 9"),
        (b'[{"a":1},{b:2},{"c":3}]', "no JSON at byte 10"),
        (b"[", "cut short at byte 1"),
    ],
)
def test_an_array_that_is_none_is_corrupt_from_a_byte_on(content: bytes, words: str):
    with pytest.raises(CorruptError, match=words):
        read(content)


def test_an_entry_of_any_size_ends_the_file(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(decoding, "MOST_ENTRY_BYTES", 4 * 1024 * 1024)
    long = b'{"a":"' + b"x" * 9_000_000 + b'"}'
    for content in (b"[" + long + b"]", long + b"\n" + long):
        with pytest.raises(CorruptError, match="at byte . is longer than 4194304 bytes"):
            read(content)


def test_an_entry_as_long_as_many_blocks_is_whole():
    long = json.dumps({"list": [{"n": n} for n in range(200_000)]}).encode()
    assert read(b"[" + long + b"," + long + b"]") == [long, long]
    assert read(long + b"\n" + long) == [long, long]


def test_a_bomb_is_inflated_a_piece_at_a_time():
    bomb = gzip.compress(gzip.compress(b" " * 200_000_000))
    assert max(map(len, inflated(iter([bomb])))) <= 512 * 1024


def test_gzip_in_gzip_has_an_end():
    content = b"{}"
    for _ in range(4):
        content = gzip.compress(content)
    with pytest.raises(CorruptError, match="gzipped more than 3 times"):
        read(content)


def test_a_large_array_takes_as_long_as_its_bytes():
    generator = random.Random(1)
    elements = [{"n": n, "text": "x" * generator.randrange(300)} for n in range(50_000)]
    assert len(read(array(elements))) == 50_000
