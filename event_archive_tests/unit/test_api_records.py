"""Events as rows: every form of a body, an id and a time; and PostgreSQL's own ``jsonb`` as the judge of JSON."""

import json
import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from event_archive.sources.copy_format import clean_line, clean_lines, line
from event_archive.sources.http_api.pages import Fields, PageError, read_page
from event_archive.sources.http_api.records import Reader
from event_archive.sources.instants import NoInstantError, check_plausible, parse_epoch, parse_iso
from event_archive.sources.json_text import list_at, refusal_of
from event_archive.sources.landing import Batch
from event_archive_tests.api_server.odd import IDS, NO_RECORDS, NO_TIMES, TIMES, UNREADABLE, record

NOW = datetime(2026, 1, 1, tzinfo=UTC)
READER = Reader(id_field="id", type_field="type", time_field="timestamp", zone=ZoneInfo("UTC"))
GOOD = b'{"id":"good","timestamp":"2024-03-01T00:00:00Z","type":"t"}'


def read(*events: bytes, reader: Reader = READER) -> Batch:
    """A page with these events, as a batch."""
    batch = Batch()
    page = read_page(b'{"data":[' + b",".join(events) + b'],"hasMore":false}', Fields())
    reader.read(page.events, batch, text=page.text, now=NOW, too_old=lambda _instant: False)
    return batch


def fields(row: bytes) -> list[bytes]:
    return [value.strip(b"\x02") for value in row.removesuffix(b"\n").split(b"\x01")]


@pytest.mark.parametrize("spaced", [False, True], ids=["plain", "with a line end"])
@pytest.mark.parametrize(
    ("names", "row"),
    [
        (("id", "id", "at"), (b"one", b"one")),
        (("at", "type", "at"), (b"2024-03-01T00:00:00Z", b"t")),
        (("at", "at", "at"), (b"2024-03-01T00:00:00Z", b"2024-03-01T00:00:00Z")),
    ],
    ids=str,
)
def test_one_field_may_be_read_twice(names: tuple[str, str, str], row: tuple[bytes, ...], spaced: bool):
    id_field, type_field, time_field = names
    reader = Reader(id_field=id_field, type_field=type_field, time_field=time_field, zone=ZoneInfo("UTC"))
    event = b'{"id":"one","at":"2024-03-01T00:00:00Z","type":"t"%b}' % (b"\n" if spaced else b"")
    *texts, time = fields(read(event, reader=reader).lines[0])[:3]
    assert (*texts, datetime.fromisoformat(time.decode())) == (*row, datetime(2024, 3, 1, tzinfo=UTC))


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_record_that_is_not_quite_json_is_rejected_with_its_bytes_and_its_page_goes_on(name: str):
    batch = read(GOOD, UNREADABLE[name], GOOD)
    assert [fields(row)[0] for row in batch.lines] == [b"good", b"good"]
    [rejected] = batch.rejected
    assert rejected.raw == UNREADABLE[name]
    assert rejected.locator.startswith("sha256:")
    assert batch.origin(1) == (batch.origin(0)[0], GOOD)


def test_a_record_that_is_no_utf8_is_rejected_among_the_plainest_too():
    plain = b'{"id":"%b","type":"t","timestamp":1709251200000,"name":"Z%brich"}'
    batch = read(plain % (b"u", "ü".encode()), plain % (b"l", "ü".encode("latin-1")))
    assert [fields(row)[0] for row in batch.lines] == [b"u"]
    assert [rejected.reason for rejected in batch.rejected] == ["its byte 57 is no UTF-8"]


@pytest.mark.parametrize("name", NO_RECORDS)
def test_json_that_is_no_event_is_rejected(name: str):
    batch = read(GOOD, NO_RECORDS[name])
    assert (len(batch.lines), [of.raw for of in batch.rejected]) == (1, [NO_RECORDS[name]])


@pytest.mark.parametrize("token", IDS)
def test_an_id_is_the_text_of_its_token_to_the_letter(token: bytes):
    [row] = read(record(token)).lines
    assert fields(row)[0].decode() == IDS[token]


@pytest.mark.parametrize("token", TIMES)
def test_a_time_is_read_exactly_whatever_its_form(token: bytes):
    [row] = read(record(time=token)).lines
    assert datetime.fromisoformat(fields(row)[2].decode()) == datetime.fromisoformat(TIMES[token])


@example("2024-03-01T12:00:00.123456789Z")
@example("2024-03-01T12:00:00,123Z")
@example("2024-W09-5T12:00:00Z")
@example("2024-12-31T23:59:60Z")
@given(st.from_regex(r"20[12]\d-0[1-9]-[0-3]\d[T ][012]\d:?[0-6]\d:?[0-6]\d([.,]\d{1,9})? ?(Z|\+01)", fullmatch=True))
def test_postgresql_is_told_a_time_in_the_form_that_python_reads_alike(time: str):
    for row in read(record(time=json.dumps(time).encode())).lines:
        told = fields(row)[2].decode()
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|\+00:00)", told)
        assert datetime.fromisoformat(told) == parse_iso(time, ZoneInfo("UTC"))


@pytest.mark.parametrize("token", NO_TIMES)
def test_what_postgresql_would_take_for_a_time_and_nobody_else_is_rejected(token: bytes):
    batch = read(record(time=token))
    assert (batch.lines, len(batch.rejected)) == ([], 1)


@given(st.datetimes(min_value=datetime(1970, 1, 2), max_value=datetime(5000, 1, 1)), st.integers(0, 3))  # noqa: DTZ001
def test_an_epoch_of_any_unit_is_the_same_instant(moment: datetime, unit: int):
    instant = moment.replace(tzinfo=UTC)
    micros = (instant - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    token = [
        f"{micros // 10**6}.{micros % 10**6:06}",
        f"{micros // 1000}.{micros % 1000:03}",
        str(micros),
        f"{micros}000",
    ]
    # Below these sizes a number counts a coarser unit.
    if micros >= [0, 10**14, 10**14, 10**14][unit]:
        assert parse_epoch(token[unit]) == instant


@example(1000 * 2**32 - 1)
@example(1000 * 2**32)
@given(st.integers(10**11, 10**14 - 1))
def test_an_epoch_of_whole_milliseconds_is_read_exactly(milliseconds: int):
    assert parse_epoch(str(milliseconds)) == datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)


@given(st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9998, 1, 1)))  # noqa: DTZ001
def test_iso_8601_is_read_as_python_writes_it(moment: datetime):
    instant = moment.replace(tzinfo=UTC)
    for text in (instant.isoformat(), instant.isoformat(" "), moment.isoformat() + "Z", moment.isoformat()):
        assert parse_iso(text, ZoneInfo("UTC")) == instant


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2024-03-01T23:59:59.9999999Z", "2024-03-01T23:59:59.999999+00:00"),
        ("2024-12-31T23:59:60Z", "2025-01-01T00:00:00+00:00"),
        ("2024-07-01T12:00", "2024-07-01T10:00:00+00:00"),
        ("2024-W09-5", "2024-02-29T23:00:00+00:00"),
        ("-0001-01-01T00:00:00Z", None),
        ("2024-02-29T24:00:01Z", None),
        ("2024-03-01T00:00:00 Europe/Berlin", None),
        ("２０２４-03-01", None),
    ],
)
def test_a_time_without_a_zone_is_of_the_configured_one_and_no_time_moves_into_another_day(
    text: str, instant: str | None
):
    zone = ZoneInfo("Europe/Berlin")
    if instant is None:
        with pytest.raises(NoInstantError):
            parse_iso(text, zone)
    else:
        assert parse_iso(text, zone) == datetime.fromisoformat(instant)


@pytest.mark.parametrize("instant", [datetime(1899, 12, 31, tzinfo=UTC), NOW + timedelta(days=367)])
def test_an_implausible_time_is_none(instant: datetime):
    with pytest.raises(NoInstantError, match="before 1900 or more than a year ahead"):
        check_plausible(instant, NOW)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.lists(values, max_size=6), st.sampled_from([("data",), ("data", "data"), ()]), st.booleans())
def test_a_list_is_cut_where_its_elements_end(elements: list[object], path: tuple[str, ...], spaced: bool):
    document: object = elements
    for key in reversed(path):
        document = {"before": "[{\\", key: document, "data2": [1]}
    body = json.dumps(document, ensure_ascii=spaced, indent=1 if spaced else None).encode("utf-8", "surrogatepass")
    found, around = list_at(body, path)
    assert [json.loads(element.decode("utf-8", "surrogatepass")) for element in found] == elements
    assert b"[]" in around


@given(values)
def test_json_that_python_writes_is_refused_only_for_nul_and_half_surrogates(value: object):
    raw = json.dumps(value).encode()
    text = json.dumps(value, ensure_ascii=False)
    odd = "\\u0000" in text or any("\ud800" <= sign <= "\udfff" for sign in text)
    assert (refusal_of(raw) is not None) == odd


@pytest.mark.parametrize(
    "raw",
    [
        b"1e400000",
        b"1e-20000",
        b"9" * 131_073,
        b'{"a":1e+131072}',
        b"1e99999999999999999999",
        b"1E-9999999999999999999",
    ],
)
def test_a_number_that_numeric_cannot_hold_is_refused(raw: bytes):
    assert refusal_of(raw) == "it is no JSON: a number is too large or too fine for PostgreSQL"
    assert refusal_of(b"1e400") is None


@given(st.lists(st.none() | st.binary(max_size=20), min_size=1, max_size=5))
def test_a_line_of_plain_values_is_the_same_however_it_is_made(values: list[bytes | None]):
    unclean = any(not value or set(value) & {1, 2, 10, 13} for value in values)
    if not unclean:
        clean = [value for value in values if value]
        assert [line(values)] * 2 == [clean_line(clean), *clean_lines(*([value] for value in clean))]


@pytest.mark.parametrize(
    ("body", "ids", "more", "cursor"),
    [
        (b'{"data":[{"id":1}],"hasMore":true,"nextCursor":"x"}', 1, True, "x"),
        (b'{"data":[{"id":1}],"pagination":{"hasMore":true,"nextCursor":7},"meta":{"total":9}}', 1, True, "7"),
        (b'{"data":{"data":[{"id":1}],"pagination":{"hasMore":false}}}', 1, False, None),
        (b' [{"id":1},{"id":2}] ', 2, None, None),
        (b'{"data":null,"hasMore":true,"nextCursor":"x"}', 0, True, "x"),
        (b'{"items":[],"has_more":false,"next_cursor":""}', 0, False, None),
    ],
)
def test_a_page_is_told_by_its_list(body: bytes, ids: int, more: bool | None, cursor: str | None):
    page = read_page(body, Fields())
    assert (len(page.events), page.has_more, page.cursor) == (ids, more, cursor)


def test_an_api_may_have_names_of_its_own():
    fields = Fields(("result", "rows"), ("result", "more"), ("result", "after"), ("count",))
    page = read_page(b'{"count":3,"data":[],"result":{"rows":[{}],"more":true,"after":"c"}}', fields)
    assert (len(page.events), page.has_more, page.cursor, page.total) == (1, True, "c", 3)


@pytest.mark.parametrize(
    ("token", "more"),
    [("true", True), ('"True"', True), ("1", True), ("false", False), ('"false"', False), ("0", False), ("7", None)],
)
def test_more_is_told_in_several_ways(token: str, more: bool | None):
    assert read_page(b'{"data":[],"hasMore":%b}' % token.encode(), Fields()).has_more is more


@pytest.mark.parametrize(("number", "total"), [("7", 7), ("7.0", 7), ("9" * 400, None), ("1e18", None)])
def test_a_total_or_a_cursors_life_of_any_size_is_a_number_or_none(number: str, total: int | None):
    page = read_page(b'{"data":[],"total":%b,"cursorExpiresIn":%b}' % ((number.encode(),) * 2), Fields())
    assert (page.total, page.expires_seconds) == (total, total)


@pytest.mark.parametrize(
    ("token", "cursor"),
    [
        ("1709251200.50", "1709251200.50"), ("123456789012345678901", "123456789012345678901"), ("0", "0"),
        ('{"id": 7}', '{"id": 7}'), ("[1,2]", "[1,2]"), ('"\\u00e9"', "é"),
        ("null", None), ('""', None), ("true", None), ("false", None), ("{}", None), ("[]", None),
    ],
)  # fmt: skip
def test_a_cursor_of_any_kind_is_given_back_to_the_letter(token: str, cursor: str | None):
    assert read_page(b'{"data":[],"nextCursor":%b}' % token.encode(), Fields()).cursor == cursor


@pytest.mark.parametrize(
    "body", [b'{"data":[{"id":1}', b"", b"<html>", b'{"data":[1,}', b'{"data":[],"nextCursor":"\xff"}']
)
def test_a_body_that_is_cut_short_may_be_whole_at_another_try(body: bytes):
    with pytest.raises(PageError) as caught:
        read_page(body, Fields())
    assert caught.value.cut_short


@pytest.mark.parametrize("body", [b'{"error":{"code":7}}', b'{"data":{"a":1}}', b'{"hasMore":true}', b"{}"])
def test_a_body_without_a_list_is_an_error_and_no_empty_page(body: bytes):
    with pytest.raises(PageError, match="no list of events") as caught:
        read_page(body, Fields())
    assert not caught.value.cut_short
