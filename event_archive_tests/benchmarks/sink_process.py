"""The sink as a process: HTTP by hand on sockets, so that bodies move at the kernel's speed. Not here: the requests."""

import argparse
import base64
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

from event_archive_tests.benchmarks.sink import Answer, Request, Sink, refusal

ACCOUNT = "sink"
_PIECE_BYTES = 1024 * 1024
_HEAD_BYTES = 64 * 1024


@dataclass(frozen=True)
class RunningSink:
    """A sink that answers, and the process that does."""

    connection_string: str


@contextmanager
def running(*, keep: bool, delay_seconds: float = 0) -> Iterator[RunningSink]:
    """A sink on a free port; ended when the context is left.

    Args:
        keep: whether what is uploaded can be read back.
        delay_seconds: how long each answer takes, at least.
    """
    command = [sys.executable, "-m", __name__, "--delay-seconds", str(delay_seconds), *(["--keep"] if keep else [])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            port = process.stdout.readline().strip()
            if not port:
                raise RuntimeError(f"the sink ended with {process.wait()}")
            key = base64.b64encode(secrets.token_bytes(32)).decode()
            yield RunningSink(
                f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={key};"
                f"BlobEndpoint=http://127.0.0.1:{port}/{ACCOUNT};"
            )
        finally:
            process.kill()


class _Connection(threading.Thread):
    """A client's connection: one request after another."""

    def __init__(self, client: socket.socket, sink: Sink, delay_seconds: float) -> None:
        super().__init__(daemon=True)
        self._socket = client
        self._sink = sink
        self._delay_seconds = delay_seconds
        self._read = bytearray()

    def run(self) -> None:
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._socket:
            try:
                while head := self._head():
                    self._serve(head)
            except ConnectionError:
                return

    def _head(self) -> str:
        """The next request's line and headers; empty where the client has closed."""
        while (end := self._read.find(b"\r\n\r\n")) < 0:
            piece = self._socket.recv(_HEAD_BYTES)
            if not piece:
                return ""
            self._read += piece
        head = self._read[:end].decode("latin-1")
        del self._read[: end + 4]
        return head

    def _serve(self, head: str) -> None:
        line, *rest = head.split("\r\n")
        method, target, _ = line.split(" ", 2)
        headers = {name.lower(): value.strip() for name, _, value in (entry.partition(":") for entry in rest)}
        parts = urlsplit(target)
        _, container, name = (unquote(parts.path).lstrip("/") + "//").split("/", 2)
        query = dict(parse_qsl(parts.query))
        length = int(headers.get("content-length", 0))
        if "transfer-encoding" in headers:
            self._send(method, refusal("411 Length Required", "MissingContentLengthHeader"))
            raise ConnectionAbortedError
        if headers.get("expect", "").lower() == "100-continue":
            self._socket.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = self._body(length, keep=self._sink.keep or query.get("comp") == "blocklist")
        request = Request(method, container, name.rstrip("/"), query, headers, body, length)
        if self._delay_seconds:
            time.sleep(self._delay_seconds)
        self._send(method, self._sink.answer(request))

    def _body(self, length: int, *, keep: bool) -> bytearray:
        first = self._read[:length]
        del self._read[:length]
        at = len(first)
        body = bytearray(length if keep else 0)
        if keep:
            body[:at] = first
        view = memoryview(body if keep else bytearray(_PIECE_BYTES))
        # MSG_TRUNC: the kernel throws the bytes away instead of copying them.
        flags = 0 if keep else socket.MSG_TRUNC
        while at < length:
            room = view[at:] if keep else view
            received = self._socket.recv_into(room, min(len(room), length - at), flags)
            if not received:
                raise ConnectionResetError
            at += received
        return body

    def _send(self, method: str, answer: Answer) -> None:
        length = answer.length if answer.length is not None else sum(len(piece) for piece in answer.body)
        headers = {"Content-Length": str(length), "x-ms-version": "2025-01-05", "x-ms-request-id": "0"} | answer.headers
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._socket.sendall(f"HTTP/1.1 {answer.status}\r\n{head}\r\n".encode("latin-1"))
        if method != "HEAD":
            for piece in answer.body:
                self._socket.sendall(piece)


def main() -> None:
    """Prints its port and serves until its standard input ends, which it does when the parent ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--delay-seconds", type=float, default=0)
    options = parser.parse_args()
    sink = Sink(keep=options.keep)
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    threading.Thread(target=_accept, args=(listener, sink, options.delay_seconds), daemon=True).start()
    sys.stdin.read()


def _accept(listener: socket.socket, sink: Sink, delay_seconds: float) -> None:
    while True:
        client, _ = listener.accept()
        _Connection(client, sink, delay_seconds).start()


if __name__ == "__main__":
    main()
