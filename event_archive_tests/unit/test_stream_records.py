"""A stream's entries as rows: every form of a record, of its fields and of its time; what is rejected, and how."""

import json
import re
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from event_archive.sources.redis_stream.fields import NAMES
from event_archive.sources.redis_stream.records import Entry
from event_archive.sources.runs import AgedTimes
from event_archive_tests.api_server.odd import NO_TIMES, TIMES, UNREADABLE
from event_archive_tests.fixtures.entries import NOON, RECORD, ROW, decoded, entry, only_row, reason

FORMS = {
    "payload": entry(payload=RECORD),
    "data": entry(data=RECORD),
    "body": entry(body=RECORD),
    "position": entry(position=RECORD),
    "the only field": entry(anything=RECORD),
    "flat": entry(**RECORD),
    "flat, numbers with spaces": entry(**(RECORD | {"speed": " 57 ", "altitude": "111.0"})),
    "in an envelope of JSON": entry(payload={"position": RECORD}),
    "in two": entry(message={"body": {"data": RECORD}}),
    "gaps filled by the entry": entry(
        deviceId=RECORD["deviceId"],
        ts="1709294400000",
        payload={k: RECORD[k] for k in RECORD if k not in ("deviceId", "timestamp")},
    ),
    "gaps filled by an envelope": entry(
        payload={"imei": RECORD["deviceId"], "position": {k: RECORD[k] for k in RECORD if k != "deviceId"}}
    ),
    "null is a gap": entry(device_id=RECORD["deviceId"], payload=RECORD | {"deviceId": None}),
    "the envelope says the same": entry(device_id=RECORD["deviceId"], payload=RECORD),
    "the envelope says the same time": entry(ts="1709294400000", payload=RECORD | {"timestamp": 1709294400000}),
    "an empty text is a gap": entry(device_id=RECORD["deviceId"], payload=RECORD | {"deviceId": ""}),
    "an empty text is a gap in JSON": entry(payload=RECORD | {"deviceId": "", "imei": RECORD["deviceId"]}),
    "attributes as a text": entry(payload=RECORD | {"attributes": json.dumps(RECORD["attributes"])}),
    "over several lines": entry(payload=json.dumps(RECORD, indent=2)),
    "in ASCII": entry(payload=json.dumps(RECORD)),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_record_is_the_same_row_in_every_form_and_envelope(name: str):
    # Case 21.
    assert only_row(FORMS[name]) == ROW


@pytest.mark.parametrize(
    ("column", "names"),
    {
        "device_id": ["device_id", "deviceId", "deviceID", "DEVICE_ID", "imei", "IMEI"],
        "ts": ["ts", "time", "timestamp", "Timestamp"],
        "latitude": ["latitude", "lat", "Lat"],
        "longitude": ["longitude", "lon", "lng"],
        "altitude": ["altitude", "alt"],
        "angle": ["angle", "course", "heading"],
        "satellites": ["satellites", "sats"],
        "speed": ["speed"],
        "priority": ["priority"],
    }.items(),
)
def test_a_field_goes_by_its_usual_names(column: str, names: list[str]):
    # Case 21.
    canonical = {"device_id": "deviceId", "ts": "timestamp"}.get(column, column)
    others = {name: value for name, value in RECORD.items() if name != canonical}
    for name in names:
        record = others | {name: RECORD[canonical]}
        assert only_row(entry(payload=record)) == only_row(entry(**record)) == ROW


def test_the_names_of_fields_are_documented():
    page = (Path(__file__).parents[2] / "docs/howto/stream.md").read_text()
    documented = {
        column: tuple(name.lower() for name in re.findall("`([^`]+)`", cell))
        for column, cell in re.findall(r"^\| `(\w+)` \| (`[^|]+) \|$", page, re.MULTILINE)
    }
    assert documented == NAMES


def test_fields_that_fill_no_column_are_kept_beside_the_attributes():
    # Case 21.
    record = RECORD | {"ignition": True, "odometer": 12.50, "239": "taken", "imei": "another", "nested": {"a": None}}
    of = entry(payload=record, codec="8E", received="2024-03-01", ts="another")
    assert only_row(of)["attributes"] == ROW["attributes"] | {  # type: ignore[operator]
        "ignition": True,
        "odometer": 12.5,
        "239_": "taken",
        "imei": "another",
        "nested": {"a": None},
        "codec": "8E",
        "received": "2024-03-01",
        "ts": "another",
    }
    assert only_row(entry(**(RECORD | {"codec": "8E"})))["attributes"]["codec"] == "8E"
    taken = only_row(entry(payload=RECORD | {"239": "taken"}))["attributes"]
    assert (taken["239"], taken["239_"]) == (1, "taken")
    twice = only_row(entry(payload=RECORD | {"codec": 8}, codec="8E"))["attributes"]
    assert (twice["codec"], twice["codec_"]) == (8, "8E")


def test_a_device_may_have_any_name():
    for name in ("a\nb", "\x7f\x02", " ", "\u2028", "ü", "\x1f"):
        of = entry(payload=RECORD | {"deviceId": name})
        (position,) = decoded(of).positions
        assert position.device_id == name
        assert only_row(of)["device_id"] == name.strip("\x02")


def test_a_record_without_attributes_has_empty_ones_or_what_fills_no_column():
    record = {"imei": 356307042441013, "ts": 1709294400}
    assert only_row(entry(payload=record)) == {"device_id": "356307042441013", "ts": NOON, "attributes": {}}
    assert only_row(entry(payload=record | {"attributes": None, "x": 1}))["attributes"] == {"x": 1}
    assert only_row(entry(payload=record | {"attributes": {}, "x": 1}))["attributes"] == {"x": 1}
    assert only_row(entry(imei="1", ts="1709294400", attributes="", speed="", alt="null"))["attributes"] == {}


@pytest.mark.parametrize("token", [of for of in TIMES if TIMES[of] > "2000"])
def test_a_time_is_read_exactly_whatever_its_form(token: bytes):
    expected = datetime.fromisoformat(TIMES[token])
    assert only_row(entry(payload=b'{"imei":"a","ts":%b}' % token))["ts"] == expected
    if token.startswith(b'"') or token.isdigit():
        assert only_row(entry(imei="a", ts=token.strip(b'"')))["ts"] == expected


def test_a_time_without_a_zone_is_of_the_zone_that_is_set():
    for time in ("2024-03-01T13:00:00", "2024-03-01T13:00:00.000000"):
        assert (
            only_row(entry(imei="a", ts=time))["ts"] == only_row(entry(payload={"imei": "a", "ts": time}))["ts"] == NOON
        )


@pytest.mark.parametrize("zone", ["Z", "+00:00"])
def test_digits_behind_the_microseconds_move_no_time_into_the_next_day(zone: str):
    time = f"2024-03-01T23:59:59.9999999{zone}"
    assert only_row(entry(imei="a", ts=time))["ts"] == datetime(2024, 3, 1, 23, 59, 59, 999999, UTC)


@pytest.mark.parametrize("token", NO_TIMES)
def test_what_is_no_time_is_rejected(token: bytes):
    assert "its time" in reason(of := entry(payload=b'{"imei":"a","ts":%b}' % token)) or "no time" in reason(of)


@pytest.mark.parametrize(
    "time", ["1970-01-01T00:00:05Z", "1999-12-31T23:59:59Z", "2024-03-03T12:00:00Z", "2089-01-01T00:00:00Z", "86400"]
)
def test_a_clock_in_1970_or_2089_is_rejected_and_makes_no_day(time: str):
    # Case 14.
    found = decoded(entry(imei="a", ts=time), entry(payload=RECORD | {"timestamp": time}), entry(payload=RECORD))
    assert found.days == {date(2024, 3, 1)}
    assert {of.reason for of in found.batch.rejected} <= {
        "its time is before 2000 or more than a day ahead",
        "its time is not ISO 8601",
    }
    assert len(found.batch.rejected) == 2
    for edge in ("2000-01-01T00:00:00Z", "2024-03-03T11:59:59Z"):
        assert only_row(entry(imei="a", ts=edge))["ts"] == datetime.fromisoformat(edge)


def test_records_whose_day_is_archived_are_left_out_and_counted():
    found = decoded(
        entry(payload=RECORD),
        entry(payload=RECORD | {"timestamp": "2024-02-29T23:59:59Z"}),
        aged=AgedTimes(datetime(2024, 2, 29, tzinfo=UTC), datetime(2024, 3, 1, tzinfo=UTC)),
    )
    assert (len(found.batch.lines), found.batch.too_old, found.days) == (1, 1, {date(2024, 3, 1)})


def test_a_record_from_before_the_first_day_that_is_archived_is_not_left_out():
    """It is in no file, and never purged."""
    found = decoded(
        entry(payload=RECORD | {"timestamp": "2024-02-28T23:59:59Z"}),
        aged=AgedTimes(datetime(2024, 2, 29, tzinfo=UTC), datetime(2024, 3, 1, tzinfo=UTC)),
    )
    assert (len(found.batch.lines), found.batch.too_old) == (1, 0)


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_postgresql_cannot_hold_is_rejected_with_its_bytes(name: str):
    document = UNREADABLE[name].replace(b'"id"', b'"imei"')
    of = entry(payload=document)
    assert reason(of)
    (rejected,) = decoded(of).batch.rejected
    assert rejected.raw == document
    (rejected,) = decoded(entry(imei="a", ts="1709294400", attributes=document)).batch.rejected
    assert rejected.reason.startswith(("its attributes: ", "one of its fields is no UTF-8"))


@pytest.mark.parametrize(
    ("of", "expected"),
    [
        (entry(payload="[]"), "it is no object"),
        (entry(payload=""), "it is no JSON: Expecting value: line 1 column 1 (char 0)"),
        (Entry(b"1-1", {}), "it has no fields"),
        (entry(payload={"ts": 1709294400}), "it has no device"),
        (entry(payload={"ts": 1709294400, "imei": ""}), "it has no device"),
        (entry(payload={"ts": 1709294400, "imei": {}}), "its device is neither a text nor a number"),
        (entry(payload={"imei": "a"}), "it has no time"),
        (entry(payload=RECORD | {"latitude": "north"}), "its latitude is no number"),
        (entry(payload=RECORD | {"latitude": True}), "its latitude is no number"),
        (entry(**(RECORD | {"latitude": "nan"})), "its latitude is no number"),
        (entry(**(RECORD | {"latitude": "inf"})), "its latitude is no number"),
        (entry(**(RECORD | {"latitude": "1_0"})), "its latitude is no number"),
        (entry(payload=json.dumps(RECORD).replace("214.5", "1e400")), "its angle is too large a number"),
        (entry(payload=RECORD | {"satellites": 2**31}), "its satellites is no whole number of 32 bits"),
        (entry(payload=RECORD | {"satellites": 1.5}), "its satellites is no whole number of 32 bits"),
        (entry(payload=RECORD | {"attributes": [1]}), "its attributes: it is no object"),
        (entry(payload=RECORD | {"attributes": "{"}), "its attributes: it is no JSON: Expecting property name"),
        (entry(imei="a", ts="1709294400", note=b"\0"), "it holds \\u0000, which PostgreSQL cannot keep"),
        (entry(imei="a", ts="1709294400", payload="{}", note=b"\0"), "it holds \\u0000, which PostgreSQL cannot keep"),
        (entry(imei="a", ts="1709294400", note=b"\xff"), "one of its fields is no UTF-8"),
        (entry(payload=b'{"a":' + b"[" * 20_000 + b"]" * 20_000 + b"}"), "it is nested too deeply"),
    ],
)
def test_an_entry_that_cannot_be_a_row_is_rejected_by_its_id_and_the_others_go_on(of: Entry, expected: str):
    # Case 5.
    assert reason(of).startswith(expected)


def test_the_bytes_of_a_rejected_record_can_be_had_back():
    fields = {b"imei": b"a", bytes(range(128, 256)): bytes(range(256)), "ü".encode(): b"\xed\xa0\x80"}
    (rejected,) = decoded(Entry(b"5-1", fields)).batch.rejected
    kept = json.loads(rejected.raw)
    assert {_back(name): _back(value) for name, value in kept.items()} == fields
    assert json.loads(rejected.raw.decode("ascii")) == kept


def _back(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


def test_each_line_tells_of_which_entry_it_was_made():
    # Case 5.
    good, bad = entry(b"1-1", payload=RECORD), entry(b"1-2", payload="no")
    old, last = entry(b"1-3", payload=RECORD | {"timestamp": "2020-01-01T00:00:00Z"}), entry(b"1-4", **RECORD)
    batch = decoded(
        good, bad, old, last, aged=AgedTimes(datetime(2015, 1, 1, tzinfo=UTC), datetime(2021, 1, 1, tzinfo=UTC))
    ).batch
    assert batch.origin(0) == ("telemetry:t 1-1", good.fields[b"payload"])
    assert batch.origin(1)[0] == "telemetry:t 1-4"
    assert json.loads(batch.origin(1)[1])["deviceId"] == RECORD["deviceId"]
