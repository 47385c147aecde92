"""JSON as it came, for a ``jsonb`` column: what PostgreSQL would refuse of it, and lists whose bad elements are kept.

Not here: what a record means.
"""

import json
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

# Limits of PostgreSQL's numeric (its documentation, table 8.2).
_DIGITS_BEFORE_POINT, _DIGITS_BEHIND_POINT = 131_072, 16_383
_SURELY_NUMERIC = 10_000
_NO_NUMERIC = "a number is too large or too fine for PostgreSQL"
# Python makes no int of more than 4,300 digits.
_DECODER = json.JSONDecoder(parse_int=str)
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)
_SPACE = re.compile(r"[ \t\n\r]*")
# An escaped backslash before it makes it four letters of text.
_ESCAPED_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_MAYBE_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def refusal_of(raw: bytes) -> str | None:
    r"""Why PostgreSQL cannot hold these bytes as ``jsonb``; None where it can.

    Numbers of any size and any order of keys are fine; NaN, ``\u0000``, half a surrogate pair and bytes that are no
    UTF-8 are not.
    """
    if b"\\u0000" in raw and _ESCAPED_NUL.search(raw):
        return "it holds \\u0000, which PostgreSQL cannot keep"
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        return f"its byte {error.start + 1} is no UTF-8"
    try:
        value = json.loads(text, parse_constant=_no_constant, parse_int=_numeric, parse_float=_numeric)
    except RecursionError:
        return "it is nested too deeply"
    except ValueError as error:
        return f"it is no JSON: {error}"
    if _MAYBE_SURROGATE.search(raw):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            return "it holds half a surrogate pair"
    return None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _numeric(token: str) -> str:
    """The same token, where PostgreSQL's ``numeric`` holds it."""
    if len(token) > _SURELY_NUMERIC or "e" in token or "E" in token:
        try:
            _, digits, exponent = Decimal(token).as_tuple()
        except ArithmeticError:
            # An exponent that Python's decimals do not hold either.
            raise ValueError(_NO_NUMERIC) from None
        if len(digits) + int(exponent) > _DIGITS_BEFORE_POINT or -int(exponent) > _DIGITS_BEHIND_POINT:
            raise ValueError(_NO_NUMERIC)
    return token


def list_at(body: bytes, path: Sequence[str]) -> tuple[list[bytes], bytes]:
    """The elements of a list in a document, each as it came, and the document with an empty list in its place.

    For documents in which single elements are not quite JSON, and so hide the rest from a strict parser.

    Args:
        body: the document.
        path: the keys that lead to the list; none where the document itself is it.

    Raises:
        ValueError: there is no such list, or the document does not end well.
    """
    text = body.decode("utf-8", "surrogateescape")
    start, end, spans = _list_in(text, _SPACE.match(text, 0).end(), path)  # type: ignore[union-attr]
    elements = [_bytes(text[first:last]) for first, last in spans]
    return elements, _bytes(f"{text[:start]}[]{text[end:]}")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _list_in(text: str, at: int, path: Sequence[str]) -> tuple[int, int, list[tuple[int, int]]]:
    """Start and end of the list, and of each of its elements."""
    if not path:
        spans, end = _elements(text, at)
        return at, end, spans
    at = _expect(text, at, "{")
    while True:
        key, at = _value(text, at)
        at = _expect(text, at, ":")
        if key == path[0]:
            return _list_in(text, at, path[1:])
        _, at = _value(text, at)
        at = _expect(text, at, ",")


def _elements(text: str, at: int) -> tuple[list[tuple[int, int]], int]:
    spans: list[tuple[int, int]] = []
    at = _expect(text, at, "[")
    if text[at : at + 1] == "]":
        return spans, at + 1
    while True:
        first = at
        _, end, at = _value_and_end(text, at)
        spans.append((first, end))
        if text[at : at + 1] == "]":
            return spans, at + 1
        at = _expect(text, at, ",")


def _value(text: str, at: int) -> tuple[Any, int]:
    value, _, at = _value_and_end(text, at)
    return value, at


def _value_and_end(text: str, at: int) -> tuple[Any, int, int]:
    try:
        value, end = _DECODER.raw_decode(text, at)
    except RecursionError:
        value, end = None, _end_of_nested(text, at)
    return value, end, _SPACE.match(text, end).end()  # type: ignore[union-attr]


def _end_of_nested(text: str, at: int) -> int:
    """Where an object or a list ends that is nested too deeply for any parser."""
    depth = 0
    for token in _STRING_OR_BRACKET.finditer(text, at):
        depth += (token[0] in "[{") - (token[0] in "]}")
        if not depth:
            return token.end()
    raise ValueError(f"what begins at character {at + 1} has no end")


def _expect(text: str, at: int, sign: str) -> int:
    if text[at : at + 1] != sign:
        raise ValueError(f"no {sign} at character {at + 1}")
    return _SPACE.match(text, at + 1).end()  # type: ignore[union-attr]
