r"""Numbers and bytes that JSON cannot hold, as producers in Node write them: read back into numbers and into text.

``{"__bigint": "9007199254740993"}`` becomes the number, ``{"__buffer_b64": "3q0="}`` and
``{"type": "Buffer", "data": [222, 173]}`` the text ``\xdead``, which PostgreSQL casts to ``bytea``. An object that has
other keys beside these is left as it is. Not here: what a record means.
"""

import base64
import json
import re
from typing import Any

_BIGINT, _BUFFER = "__bigint", "__buffer_b64"
_ESCAPED_ASCII = re.compile(rb"\\u00[0-7]")
"""By such an escape the name of a sentinel may be disguised."""
_WELL_FORMED = re.compile(
    rb'\{\s*"(?:'
    rb'__bigint"\s*:\s*"(?P<number>-?(?:0|[1-9]\d{0,99}))"|'
    rb'__buffer_b64"\s*:\s*"(?P<base64>[A-Za-z0-9+/]*={0,2})"|'
    rb'type"\s*:\s*"Buffer"\s*,\s*"data"\s*:\s*\[(?P<bytes>[\d,\s]*)\]'
    rb")\s*\}"
)
_INTEGER = re.compile(r"-?(?:0|[1-9]\d*)", re.ASCII)
_MOST_DIGITS = 131_072
"""Of PostgreSQL's numeric."""


class MalformedError(ValueError):
    """A sentinel does not hold what its key promises. The message does not repeat it."""


class _Json(str):
    """JSON text, as against a string that JSON holds."""

    __slots__ = ()


def may_have_sentinels(document: bytes) -> bool:
    """Whether there may be a sentinel in a document; False is certain."""
    return b'"__b' in document or b'"Buffer"' in document or is_disguised(document)


def is_disguised(document: bytes) -> bool:
    """Whether letters are written as escapes in a document, NUL among them."""
    return b"\\u00" in document and _ESCAPED_ASCII.search(document) is not None


def revived(document: bytes) -> bytes:
    """A document with what its sentinels stand for. All other numbers stay to the letter.

    Args:
        document: JSON in UTF-8, as somebody has found it to be.

    Raises:
        MalformedError: a sentinel is malformed.
        ValueError: it holds half a surrogate pair.
        RecursionError: it is nested too deeply.
    """
    try:
        quickly = _WELL_FORMED.sub(_replacement, document)
    except ValueError:
        quickly = document
    # No string of JSON can end within such a match, but other sentinels may remain.
    return _slowly(document) if may_have_sentinels(quickly) else quickly


def _replacement(found: re.Match[bytes]) -> bytes:
    if (number := found["number"]) is not None:
        return number
    if (text := found["base64"]) is not None:
        data = base64.b64decode(text, validate=True)
    else:
        data = bytes(map(int, found["bytes"].split(b","))) if found["bytes"].strip() else b""
    return b'"\\\\x%b"' % data.hex().encode()


def _slowly(document: bytes) -> bytes:
    value = json.loads(document.decode(), parse_int=_Json, parse_float=_Json, object_pairs_hook=_object)
    return _written(value).encode()


def _object(pairs: list[tuple[str, Any]]) -> str:
    """An object's text; or the value that it stands for. What is in it was read before."""
    if len(pairs) == 1 and pairs[0][0] == _BIGINT:
        return _number(pairs[0][1])
    if len(pairs) == 1 and pairs[0][0] == _BUFFER:
        return _hex(_base64(pairs[0][1]))
    if len(pairs) == 2 and {"type", "data"} == (found := dict(pairs)).keys() and found["type"] == "Buffer":
        return _hex(_bytes(found["data"]))
    return _Json("{" + ",".join(f"{_written(name)}:{_written(value)}" for name, value in pairs) + "}")


def _written(value: Any) -> str:
    if type(value) is _Json:
        return value
    if isinstance(value, list):
        return "[" + ",".join(map(_written, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def _number(text: Any) -> _Json:
    if type(text) is not str or not _INTEGER.fullmatch(text) or len(text) > _MOST_DIGITS:
        raise MalformedError(f"a {_BIGINT} in it holds no whole number")
    return _Json(text)


def _base64(text: Any) -> bytes:
    try:
        if type(text) is str:
            return base64.b64decode(text, validate=True)
    except ValueError:
        pass
    raise MalformedError(f"a {_BUFFER} in it holds no base64")


def _bytes(data: Any) -> bytes:
    try:
        if type(data) is list and all(type(of) is _Json for of in data):
            return bytes(map(int, data))
    except ValueError:
        pass
    raise MalformedError("a Buffer in it holds no list of bytes")


def _hex(data: bytes) -> str:
    return "\\x" + data.hex()
