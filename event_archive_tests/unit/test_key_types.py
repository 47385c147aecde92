"""Which types read the values of another one as the same, and no two of them as one."""

from dataclasses import replace

import pytest

from event_archive.domain.key_types import key_types_of, retyped, types_in
from event_archive.domain.manifest import Manifest
from event_archive.postgres.catalogue.value_types import ValueType

HERE = {"k": "k"}


def written_as(was: ValueType) -> Manifest:
    empty = Manifest("public.t", 0, 0, "", "", keys=(("k",),))
    return replace(empty, key_types=key_types_of(empty.keys, {"k": was}))


def changed(was: str | ValueType, now: str | ValueType, *, here: bool = True) -> str:
    was, now = (ValueType(of) if isinstance(of, str) else of for of in (was, now))
    return retyped(written_as(was), {"k": now}, HERE if here else {})


@pytest.mark.parametrize(
    ("was", "now"),
    [
        ("smallint", "bigint"), ("bigint", "integer"), ("integer", "numeric"), ("integer", "numeric(10,2)"),
        ("numeric(10,0)", "bigint"), ("numeric(10,2)", "numeric"), ("numeric(10,2)", "numeric(8,4)"),
        ("character varying(5)", "text"), ("text", "character varying"), ("character varying(5)",
        "character varying(6)"), ("timestamp(0) without time zone", "timestamp without time zone"),
        ("timestamp(3) with time zone", "timestamp(6) with time zone"), ("integer[]", "bigint[]"), ("real", "real"),
    ],
)  # fmt: skip
def test_of_a_type_with_more_room_values_read_the_same(was: str, now: str):
    assert changed(was, now) == ""


@pytest.mark.parametrize(
    ("was", "now"),
    [
        ("numeric", "bigint"), ("numeric(10,2)", "numeric(10,0)"), ("numeric", "numeric(10,6)"), ("integer",
        "numeric(10,-2)"), ("text", "integer"), ("integer", "text"), ("text", "character varying(5)"),
        ("character varying(6)", "character varying(5)"), ("character(8)", "text"), ("character(8)", "character(9)"),
        ("text", "public.citext"), ("text", "text COLLATE public.any_case"), ("inet", "text"),
        ("real", "double precision"), ("timestamp without time zone", "timestamp(3) without time zone"),
        ("timestamp without time zone", "timestamp with time zone"), ("timestamp without time zone", "date"),
        ("time without time zone", "timestamp without time zone"), ("integer", "integer[]"),
        ("uuid", "text"), ("bit varying(3)", "bit(3)"),
    ],
)  # fmt: skip
def test_of_another_type_they_may_not_and_both_are_named(was: str, now: str):
    assert changed(was, now) == f"k was {was} when its rows were archived, and is {now}"


OPEN = ValueType("public.kind", ("open", "done"))


@pytest.mark.parametrize(
    ("parts", "is_another"),
    [
        (("open", "done", "late"), False), (("new", "done"), True), (("done", "open"), True), (("open",), True),
        (("new", "done", "open"), True), ((), True),
    ],
)  # fmt: skip
def test_a_definition_is_another_one_once_it_says_of_former_values_what_it_did_not(
    parts: tuple[str, ...], is_another: bool
):
    expected = "the definition of public.kind, the type of k, has changed since" if is_another else ""
    assert changed(OPEN, ValueType("public.kind", parts)) == expected


def test_where_the_catalogue_is_another_one_names_are_believed():
    assert changed(OPEN, ValueType("public.kind", ("done", "open")), here=False) == ""
    assert changed("text", "integer", here=False) != ""


def test_of_what_is_not_known_nothing_is_said():
    former = replace(written_as(OPEN), key_types=())
    assert retyped(former, {"k": ValueType("integer")}, HERE) == ""
    assert retyped(written_as(OPEN), {"other": ValueType("integer")}, HERE) == ""
    assert types_in(None) == types_in(replace(former, key_types=key_types_of(former.keys, {}))) == {}


def test_what_is_noted_stays_noted():
    noted = types_in(written_as(OPEN))
    assert key_types_of([("k", "n")], {"k": ValueType("text"), "n": ValueType("date")}, noted) == (
        noted["k"],
        ("date", ""),
    )
