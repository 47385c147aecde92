import pytest

from event_archive.defs.markdown import is_literal, without_links
from event_archive.defs.preview import markdown


def test_the_first_five_rows_become_a_table():
    lines = markdown(b"id,note\n" + b"".join(b'%d,"x, y"\n' % n for n in range(9))).splitlines()
    assert lines[:3] == ["| id | note |", "| --- | --- |", "| 0 | x, y |"]
    assert len(lines) == 2 + 5


def test_long_values_are_cut():
    assert markdown(b"a\n" + b"x" * 1000 + b"\n").splitlines()[2] == f"| {'x' * 59}… |"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ('"<b>|\n&"', "&lt;b&#62;\\| &amp;"),
        # The browser of whoever looks would fetch it.
        ("![x](http://host/beacon)", "!&#91;x&#93;(http://host/beacon)"),
        ("5*3*2", "5&#42;3&#42;2"),
        ("__init__", "&#95;&#95;init&#95;&#95;"),
        ("event_id", "event_id"),
        ("a\\|b", "a&#92;\\|b"),
        ("`x` ~y~", "&#96;x&#96; &#126;y&#126;"),
        ("2024-03-01 09:00:00.5+00", "2024-03-01 09:00:00.5+00"),
    ],
)
def test_markup_in_a_value_stays_text(value: str, shown: str):
    assert markdown(f"a\n{value}\n".encode()).splitlines()[2] == f"| {shown} |"


def test_a_record_cut_in_the_middle_is_left_out():
    assert markdown(b"a,b\n1,2\n3").splitlines()[2:] == ["| 1 | 2 |"]


def test_a_letter_cut_in_the_middle_does_no_harm():
    assert markdown("a\nü".encode()[:-1]).splitlines()[0] == "| a |"


def test_no_file_has_no_markdown():
    assert markdown(b"") == ""


def test_a_table_of_former_versions_is_told_from_one_of_cells_to_the_letter():
    spiteful = "[x](y) *b* <c> __init__ a\\|b `d` ~e~ event_id"
    assert is_literal(markdown(f"event_id\n{spiteful}\n".encode()))
    for former in ("![](/graphql)", "__init__", "_a_", "5*3*2", r"a\\|b", "`x`", "~y~"):
        assert not is_literal(f"| event_id |\n| --- |\n| {former} |")


def test_a_description_fetches_nothing():
    words = "the file's header is ![](/graphql) <img src=x> [a]\n[a]: http://x, [SQLSTATE 42501]"
    shown = "the file's header is ![]&#40;/graphql) &lt;img src=x> [a]\n[a]&#58; http://x, [SQLSTATE 42501]"
    assert without_links(words) == shown
