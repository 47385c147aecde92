"""An answer on its way through a socket, whole or broken. Not here: what it says."""

import os
import socket
import struct
import threading
import zlib
from collections.abc import Iterator
from http import HTTPStatus

from event_archive_tests.api_server.api import Answer

_CHUNK_BYTES = 64 * 1024
_GZIP = zlib.MAX_WBITS | 16
_RESET = struct.pack("ii", 1, 0)


def deliver(connection: socket.socket, answer: Answer, ended: threading.Event) -> bool:
    """Sends an answer with its fault, if it has one.

    Args:
        connection: to the client.
        answer: to send.
        ended: set when the server is about to end; whatever takes time is given up then.

    Returns:
        Whether the connection can go on to the next request.
    """
    kind = answer.fault.kind if answer.fault else None
    match kind:
        case None | "answer":
            connection.sendall(_whole(answer))
            return True
        case "bomb" | "giant":
            connection.sendall(_whole(_blown_up(answer)))
            return True
        case "cut-whole-chunks":
            kept = answer.body[: _part(answer, len(answer.body))]
            connection.sendall(_whole(Answer(answer.status, kept, answer.headers, chunked=True)))
            return True
        case "silence":
            ended.wait(answer.fault.seconds if answer.fault else 0)
        case "dribble":
            _dribble(connection, answer, ended)
        case "cut":
            message = _whole(answer)
            head = len(message) - len(answer.body)
            connection.sendall(message[: head + _part(answer, len(answer.body))])
        case "reset":
            message = _whole(answer)
            connection.sendall(message[: _part(answer, len(message))])
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            # Closed under the hands of whoever would end it in order.
            os.close(connection.detach())
    return False


def _part(answer: Answer, length: int) -> int:
    return int(length * answer.fault.fraction) if answer.fault else length


def _dribble(connection: socket.socket, answer: Answer, ended: threading.Event) -> None:
    for byte in _whole(answer):
        if ended.wait(answer.fault.seconds if answer.fault else 0):
            return
        connection.sendall(bytes([byte]))


def _blown_up(answer: Answer) -> Answer:
    """The answer after many blanks, which JSON allows; as a bomb they come compressed."""
    fault = answer.fault
    if fault is None or fault.kind == "giant":
        blanks = b" " * (fault.decoded_bytes if fault else 0)
        return Answer(answer.status, blanks + answer.body, answer.headers, answer.chunked)
    return Answer(
        answer.status, _bomb(fault.decoded_bytes), answer.headers | {"Content-Encoding": "gzip"}, answer.chunked
    )


def _bomb(decoded_bytes: int) -> bytes:
    """That many blanks as gzip, never all of them in memory."""
    packer = zlib.compressobj(9, wbits=_GZIP)
    whole, rest = divmod(decoded_bytes, _CHUNK_BYTES)
    pieces = [packer.compress(b" " * size) for size in (*[_CHUNK_BYTES] * whole, rest)]
    return b"".join(pieces) + packer.flush()


def _whole(answer: Answer) -> bytes:
    """The response as it goes over the wire."""
    framing = {"Transfer-Encoding": "chunked"} if answer.chunked else {"Content-Length": str(len(answer.body))}
    head = "".join(f"{name}: {value}\r\n" for name, value in (answer.headers | framing).items())
    line = f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}\r\n"
    body = b"".join(_chunks(answer.body)) if answer.chunked else answer.body
    return f"{line}{head}\r\n".encode("latin-1") + body


def _chunks(body: bytes) -> Iterator[bytes]:
    for at in range(0, len(body), _CHUNK_BYTES):
        piece = body[at : at + _CHUNK_BYTES]
        yield b"%x\r\n%b\r\n" % (len(piece), piece)
    yield b"0\r\n\r\n"
