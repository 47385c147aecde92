"""Numbers of any size, bytes and other sentinels in a stream's records, at any depth."""

import base64
import json

import pytest

from event_archive.sources.redis_stream.plain import PlainReader
from event_archive_tests.fixtures.entries import NOON, ZONE, decoded, entry, only_row, reason


def attributes_of(text: str) -> str:
    """The attributes of a record that are written so, as the COPY takes them; the same in all forms of a record."""
    device = '"imei":"a","ts":1709294400'
    found = {
        parsed_text(decoded(of).batch.lines[0])
        for of in (
            entry(payload=f'{{{device},"attributes":{text}}}'),
            entry(imei="a", ts="1709294400", attributes=text),
            entry(payload=f'{{"body":{{{device},"attributes":{text}}}}}'),
        )
    }
    (only,) = found
    return only


def parsed_text(text: bytes) -> str:
    return text.split(b"\x01")[-2].strip(b"\x02").decode()


BIG = "123456789012345678901234567890"


@pytest.mark.parametrize(
    ("text", "expected"),
    {
        f'{{"n":{BIG},"e":1e400,"f":1.50}}': f'{{"n":{BIG},"e":1e400,"f":1.50}}',
        f'{{"n":{{"__bigint":"{BIG}"}}}}': f'{{"n":{BIG}}}',
        '{"n":{"__bigint":"-0"}}': '{"n":-0}',
        '{"b":{"__buffer_b64":"3q2+7w=="}}': r'{"b":"\\xdeadbeef"}',
        '{"b":{"__buffer_b64":""}}': r'{"b":"\\x"}',
        '{"b":{"type":"Buffer","data":[222,173, 0]}}': r'{"b":"\\xdead00"}',
        '{"b":{"data":[],"type":"Buffer"}}': r'{"b":"\\x"}',
        '{"a":[{"b":[{"__bigint":"5"},{ "__buffer_b64" : "AA==" }]}],"f":1.50}': r'{"a":[{"b":[5,"\\x00"]}],"f":1.50}',
        '{"n":{"__bigint":"5","unit":"m"}}': '{"n":{"__bigint":"5","unit":"m"}}',
        '{"n":{"unit":"m","__buffer_b64":5}}': '{"n":{"unit":"m","__buffer_b64":5}}',
        '{"n":{"type":"Buffer","data":[1],"x":2}}': '{"n":{"type":"Buffer","data":[1],"x":2}}',
        '{"n":{"__bigint":{"__bigint":"5"},"x":[{"__bigint":"6"}]}}': '{"n":{"__bigint":5,"x":[6]}}',
        r'{"n":{"\u005f_bigint":"5"}}': '{"n":5}',
        r'{"n":"{\"__bigint\":\"5\"}"}': r'{"n":"{\"__bigint\":\"5\"}"}',
    }.items(),
)
def test_numbers_of_any_size_and_bytes_are_read_at_any_depth(text: str, expected: str):
    # Case 20.
    assert attributes_of(text) == expected


def test_sentinels_are_read_in_all_fields():
    record = '{"imei":{"__bigint":"356307042441013"},"ts":{"__bigint":"1709294400000"},"x":{"__buffer_b64":"3q0="}}'
    of = only_row(entry(payload=record))
    assert (of["device_id"], of["ts"], of["attributes"]) == ("356307042441013", NOON, {"x": "\\xdead"})


def test_a_buffer_of_a_mebibyte_is_read():
    # Case 20.
    data = bytes(range(256)) * 4096
    for written in ({"__buffer_b64": base64.b64encode(data).decode()}, {"type": "Buffer", "data": [*data]}):
        assert bytes.fromhex(json.loads(attributes_of(json.dumps({"b": written})))["b"][2:]) == data


@pytest.mark.parametrize(
    "sentinel",
    [
        *('{"__bigint":"5.0"}', '{"__bigint":"0x5"}', '{"__bigint":""}', '{"__bigint":5}', '{"__bigint":null}'),
        *('{"__bigint":"007"}', '{"__bigint":"+5"}', '{"__bigint":"５"}', '{"__bigint":{"__bigint":"5"}}'),
        '{"__bigint":"' + "9" * 131_073 + '"}',
        *(
            '{"__buffer_b64":"3q2+7w="}',
            '{"__buffer_b64":"3q2+ 7w=="}',
            '{"__buffer_b64":"_w=="}',
            '{"__buffer_b64":[]}',
        ),
        *('{"type":"Buffer","data":[256]}', '{"type":"Buffer","data":[-1]}', '{"type":"Buffer","data":[1.0]}'),
        *('{"type":"Buffer","data":["1"]}', '{"type":"Buffer","data":"AA=="}', '{"data":[[1]],"type":"Buffer"}'),
    ],
)
def test_a_malformed_sentinel_rejects_its_record(sentinel: str):
    # Case 20.
    why = reason(entry(payload=f'{{"imei":"a","ts":1709294400,"attributes":{{"deep":[{sentinel}]}}}}'))
    assert why.startswith(("a __bigint in it holds", "a __buffer_b64 in it holds", "a Buffer in it holds"))
    flat = reason(entry(imei="a", ts="1709294400", attributes=f'{{"deep":[{sentinel}]}}'))
    assert flat == f"its attributes: {why}"


def test_a_malformed_sentinel_rejects_its_record_though_its_name_stands_there_again():
    form = {b"payload": b'{"imei":"a","ts":1709294400,"x":1}'}
    twice = {b"payload": b'{"imei":"b","ts":1709294401,"x":{"type":"Buffer","data":[273]},"x":5}'}
    plain = PlainReader(form, ZONE)
    assert plain.row(b"1-0", form) is not None
    assert plain.row(b"1-1", twice) is None
