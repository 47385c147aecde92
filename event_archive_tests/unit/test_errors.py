"""What others wrote, in messages: a terminal does not obey it."""

import logging

from event_archive.domain.source import Source
from event_archive.errors import RefusedError, printable
from event_archive.observability.logs import _PlainFormatter

SPITEFUL = "a\x1b[2K\x1b[1A\r\x9b2Jb\x07"
ESCAPED = r"a\x1b[2K\x1b[1A\r\x9b2Jb\x07"


def test_control_characters_are_shown_as_escapes():
    assert printable(f"{SPITEFUL}\nx") == rf"{ESCAPED}\nx"
    assert printable(f"{SPITEFUL}\nx", lines=True) == f"{ESCAPED}\nx"
    assert printable("Zoë 点 ⚡ C:\\x") == "Zoë 点 ⚡ C:\\x"


def test_what_a_lake_says_of_whose_its_files_are_holds_no_control_character():
    assert (
        str(Source("7301", SPITEFUL, "public.t", "at")) == f"public.t (days by at) of database {ESCAPED}, system 7301"
    )


def test_no_error_and_no_log_line_holds_a_control_character():
    assert str(RefusedError(f"{SPITEFUL}\n  x")) == f"{ESCAPED}\n  x"
    record = logging.makeLogRecord({"msg": "%s", "args": (SPITEFUL,), "levelname": "WARNING"})
    assert _PlainFormatter().format(record) == f"warning: {ESCAPED}"
