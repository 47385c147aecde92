"""Odd records for the switch ``bad_events``: strange ids, times and texts. Not here: what becomes of them."""

UNREADABLE = {
    "a NUL in a text": b'{"id":"nul","timestamp":1709251200000,"name":"a\\u0000b"}',
    "a NUL in an id": b'{"id":"n\\u0000l","timestamp":1709251200000}',
    "a NUL in a name": b'{"id":"nul-in-a-name","timestamp":1709251200000,"a\\u0000b":1}',
    "a high surrogate alone": b'{"id":"high","timestamp":1709251200000,"name":"\\ud83d"}',
    "a low surrogate alone": b'{"id":"low","timestamp":1709251200000,"name":"\\udc00\\ud800"}',
    "NaN": b'{"id":"nan","timestamp":1709251200000,"value":NaN}',
    "Infinity": b'{"id":"infinity","timestamp":1709251200000,"value":-Infinity}',
    "no UTF-8": b'{"id":"latin-1","timestamp":1709251200000,"name":"Z\xfcrich"}',
    "a surrogate in UTF-8": b'{"id":"cesu","timestamp":1709251200000,"name":"\xed\xa0\x80"}',
    "an overlong NUL": b'{"id":"overlong","timestamp":1709251200000,"name":"\xc0\x80"}',
}
"""Records that are no JSON that PostgreSQL can hold."""

NO_RECORDS = {
    "no id": b'{"timestamp":1709251200000}',
    "null as id": b'{"id":null,"timestamp":1709251200000}',
    "an empty id": b'{"id":"","timestamp":1709251200000}',
    "an object as id": b'{"id":{"$oid":"1"},"timestamp":1709251200000}',
    "no time": b'{"id":"timeless"}',
    "null": b"null",
    "a number": b"1",
    "a list": b"[]",
    "an empty object": b"{}",
}
"""JSON that lacks what a row needs."""

IDS = {
    b"7": "7",
    b"9007199254740993": "9007199254740993",
    b"123456789012345678901234567890": "123456789012345678901234567890",
    b'"9007199254740993"': "9007199254740993",
    b'"\\u00e9\\ud83d\\ude00"': "é😀",
    b'" a "': " a ",
    b'"a\\"b\\\\c"': 'a"b\\c',
}
"""An id as it stands in the JSON, and the text that it is."""

TIMES = {
    b"1709251200": "2024-03-01T00:00:00+00:00",
    b"1709251200123": "2024-03-01T00:00:00.123+00:00",
    b"1709251200123456": "2024-03-01T00:00:00.123456+00:00",
    b"1709251200123456000": "2024-03-01T00:00:00.123456+00:00",
    b"1709251200.123456": "2024-03-01T00:00:00.123456+00:00",
    b"1.7092512e9": "2024-03-01T00:00:00+00:00",
    b'"1709251200123"': "2024-03-01T00:00:00.123+00:00",
    b"-86400": "1969-12-31T00:00:00+00:00",
    b'"2024-03-01T00:00:00Z"': "2024-03-01T00:00:00+00:00",
    b'"2024-03-01t00:00:00z"': "2024-03-01T00:00:00+00:00",
    b'"2024-03-01 00:00:00+00:00"': "2024-03-01T00:00:00+00:00",
    b'"2024-03-01T05:30:00.1+05:30"': "2024-03-01T00:00:00.1+00:00",
    b'"2024-03-01T00:00:00.123456000Z"': "2024-03-01T00:00:00.123456+00:00",
    b'"20240301T000000Z"': "2024-03-01T00:00:00+00:00",
    b'"2024-02-29T24:00:00Z"': "2024-03-01T00:00:00+00:00",
    b'"2024-03-01T01:00:00+01"': "2024-03-01T00:00:00+00:00",
}
"""A time as it stands in the JSON, and the instant that it is."""

NO_TIMES = (
    *(b'"now"', b'"infinity"', b'"-infinity"', b'"epoch"', b'"today"', b'"01/02/2024"', b'"yesterday"', b'"12:00"'),
    *(b'""', b"null", b"true", b"{}", b'"2024-13-01T00:00:00Z"', b'"2024-02-30T00:00:00Z"', b"1e400", b"9e30"),
)
"""What PostgreSQL would take for a time, or nobody, and no event has."""


def record(identifier: bytes = b'"odd"', time: bytes = b"1709251200000") -> bytes:
    """An event with that id and that time, each as it is to stand in the JSON."""
    return b'{"id":%b,"timestamp":%b,"type":"odd"}' % (identifier, time)
