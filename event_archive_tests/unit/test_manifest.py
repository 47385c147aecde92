import json
from dataclasses import asdict, replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from event_archive.domain.keys import keys_with, names_now, numbers_in
from event_archive.domain.manifest import Manifest, names_hash, stored_rows
from event_archive.domain.record import Record
from event_archive.errors import IntegrityError, RefusedError
from event_archive.lake.protocol import StoredFile

MANIFEST = Manifest(
    'public."Event"',
    rows=3,
    bytes=100,
    sha256="ab" * 32,
    columns=names_hash(["id", "at"]),
    types=names_hash(["bigint"]),
    system="7301",
    keys=(("id",), ("id", 'größe, "m²"')),
    key_places="16385.1.0",
)


def file(metadata: dict[str, str], size_bytes: int = 100) -> StoredFile:
    return StoredFile("folder/events_2024-03-01.csv", size_bytes, '"etag"', metadata, datetime.now(UTC))


def test_a_manifest_goes_through_a_files_metadata():
    assert Manifest.from_file(file(MANIFEST.to_metadata())) == MANIFEST
    assert stored_rows(file(MANIFEST.to_metadata())) == 3


def test_types_that_are_not_known_are_left_out_and_contradict_nothing():
    unknown = replace(MANIFEST, types="")
    assert "event_archive_types" not in unknown.to_metadata()
    assert Manifest.from_file(file(unknown.to_metadata())) == unknown
    MANIFEST.require(file(MANIFEST.to_metadata()), unknown)
    unknown.require(file(unknown.to_metadata()), MANIFEST)


def test_keys_that_are_not_known_are_left_out_and_stay_unknown():
    unknown = replace(MANIFEST, keys=())
    assert "event_archive_keys" not in unknown.to_metadata()
    assert Manifest.from_file(file(unknown.to_metadata())) == unknown
    assert keys_with(unknown, ("id",)) == ()
    MANIFEST.require(file({}), unknown)


def test_a_key_is_added_once_in_whatever_order_its_columns_stand():
    first = replace(MANIFEST, keys=keys_with(None, ("id", "at")))
    assert first.keys == keys_with(first, ("at", "id")) == (("id", "at"),)
    assert keys_with(first, ("at", "v", "id")) == (("id", "at"), ("at", "v", "id"))


@pytest.mark.parametrize("key", [("id",), ("uid",), ("id", "uid")])
def test_a_key_that_is_not_a_former_one_and_more_is_not_added(key: tuple[str, ...]):
    assert keys_with(replace(MANIFEST, keys=(("id", "at"),)), key) == (("id", "at"),)


@pytest.mark.parametrize(("system", "oid", "known"), [("7301", 16385, {"id": 1}), ("7302", 16385, {}), ("7301", 9, {})])
def test_where_columns_are_is_known_of_the_same_table_of_the_same_server_alone(
    system: str, oid: int, known: dict[str, int]
):
    assert numbers_in(MANIFEST, replace(MANIFEST.source, system=system), oid) == known
    assert numbers_in(replace(MANIFEST, key_places=""), MANIFEST.source, oid) == {}


def test_a_column_is_called_what_its_number_bears_now_and_nothing_where_it_is_gone():
    source, oid = MANIFEST.source, 16385
    both = replace(MANIFEST, key_places="16385.1.2")
    assert names_now(both, source, oid, {"old": 1, "id": 3}) == {"id": "old", 'größe, "m²"': ""}
    assert names_now(both, source, 9, {"old": 1}) == {}


@given(st.text(min_size=1, max_size=63))
def test_any_tables_name_becomes_ascii(name: str):
    manifest = replace(MANIFEST, table=name.encode(errors="replace").decode())
    metadata = manifest.to_metadata()
    assert all(value.isascii() and value.isprintable() for value in metadata.values())
    assert all(key.isidentifier() for key in metadata)
    assert Manifest.from_file(file(metadata)) == manifest


def test_a_manifest_fits_into_azures_metadata():
    longest = tuple(f"{number}" + "ü" * 30 for number in range(60))
    with pytest.raises(RefusedError, match="names every key that the table has had, would be too long .*8192 are"):
        replace(MANIFEST, keys=(longest, ("id",))).to_metadata()


def test_a_file_of_another_tool_has_none():
    assert Manifest.from_file(file({"author": "somebody"})) is None
    assert stored_rows(file({})) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"event_archive_rows": "many"}, "unreadable"),
        ({"event_archive_keys": "id"}, "unreadable"),
        ({"event_archive_keys": '["id"]'}, "unreadable .*keys are no lists of names"),
        ({"event_archive_keys": "[[]]"}, "unreadable .*keys are no lists of names"),
        ({"event_archive_keys": "[" * 100_000}, "unreadable"),
        ({"event_archive_key_places": "16385.x"}, "unreadable .*key_places are no numbers"),
        ({"event_archive_version": "2"}, "version 2, this program knows version 1"),
        ({"event_archive_bytes": "99"}, "has 100 bytes, its manifest says 99"),
    ],
)
def test_a_manifest_that_contradicts_is_refused(change: dict[str, str], words: str):
    with pytest.raises(IntegrityError, match=words):
        Manifest.from_file(file(MANIFEST.to_metadata() | change))


def test_nobody_is_told_to_accept_an_empty_file_which_cannot_be():
    with pytest.raises(
        IntegrityError, match=r"it has 0 bytes, its manifest says 100\. .*Put the right file back, or move"
    ):
        Manifest.from_file(replace(file(MANIFEST.to_metadata()), size_bytes=0))


def test_an_incomplete_manifest_is_refused():
    metadata = MANIFEST.to_metadata()
    del metadata["event_archive_sha256"]
    with pytest.raises(IntegrityError, match=r"unreadable .*sha256"):
        Manifest.from_file(file(metadata))


@pytest.mark.parametrize("change", [{"rows": 4}, {"bytes": 1}, {"sha256": "cd" * 32}, {"columns": "x"}])
def test_what_was_read_is_held_against_the_manifest(change: dict[str, int | str]):
    MANIFEST.require(file({}), MANIFEST)
    with pytest.raises(IntegrityError, match=f"says {next(iter(change))} .*; it holds {next(iter(change))} "):
        MANIFEST.require(file({}), replace(MANIFEST, **change))  # type: ignore[arg-type]


def test_the_order_of_columns_matters():
    assert names_hash(["a", "b"]) != names_hash(["b", "a"])
    assert names_hash(["a,b"]) != names_hash(["a", "b"])


def read(metadata: dict[str, object]) -> Record:
    return Record.from_metadata(metadata, subject="public.t, 2024-03-01", archive_again="event-archive run 2024-03-01")


def test_a_record_is_read_from_a_materialization():
    metadata = {
        "etag": '"e"',
        "dagster/row_count": 3,
        "bytes": 100,
        "seconds": 0.5,
        "manifest": json.dumps(asdict(MANIFEST)),
    }
    assert read(metadata) == Record('"e"', 3, 100, 0.5)
    assert read(metadata | {"etag": None}).etag is None


@pytest.mark.parametrize("missing", ["etag", "dagster/row_count", "bytes", "seconds"])
def test_a_materialization_made_by_hand_opens_no_gate(missing: str):
    metadata = {"etag": '"e"', "dagster/row_count": 3, "bytes": 100, "seconds": 0.5}
    del metadata[missing]
    again = "public.t, 2024-03-01: .* Archive the day again: event-archive run 2024-03-01, or materialize archive_csv"
    with pytest.raises(IntegrityError, match=again):
        read(metadata)
