"""A Blob service that costs next to nothing, for this project's client and others'. Here: its requests.

Azurite is slower than any client; beside this one a client shows what it costs itself. It knows block blobs, conditions
and ranges, believes every signature, and keeps nothing on disk. Not here: HTTP and the process, see ``sink_process``.
"""

import itertools
import re
import threading
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from email.utils import formatdate
from xml.sax.saxutils import escape

_METADATA = "x-ms-meta-"


@dataclass
class Blob:
    """Committed content. ``blocks`` are the ids and lengths; ``parts`` their bytes, empty where bodies are dropped."""

    etag: str
    modified: str
    headers: dict[str, str]
    blocks: list[tuple[str, int]]
    parts: list[bytearray]

    @property
    def size(self) -> int:
        """Length of the content."""
        return sum(size for _, size in self.blocks)


@dataclass
class Request:
    """One request, its body read."""

    method: str
    container: str
    name: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytearray
    length: int


@dataclass
class Answer:
    """What is sent back; ``head_only`` tells the length of a body that is not sent."""

    status: str
    headers: dict[str, str] = field(default_factory=dict)
    body: list[memoryview] = field(default_factory=list)
    length: int | None = None


def refusal(status: str, code: str) -> Answer:
    """An error as the Blob service words it."""
    body = f'<?xml version="1.0" encoding="utf-8"?><Error><Code>{code}</Code><Message>{code}</Message></Error>'
    headers = {"x-ms-error-code": code, "Content-Type": "application/xml"}
    return Answer(status, headers, [memoryview(body.encode())])


class Sink:
    """What is stored, and what each request does with it.

    Args:
        keep: whether bodies are kept; else only their lengths are, and nothing can be read back.
    """

    def __init__(self, *, keep: bool) -> None:
        self.keep = keep
        self._lock = threading.Lock()
        self._containers: dict[str, dict[str, Blob]] = {}
        self._staged: dict[tuple[str, str], dict[str, tuple[int, bytearray]]] = {}
        self._versions = itertools.count(1)

    def answer(self, request: Request) -> Answer:
        """Does what is asked."""
        with self._lock:
            if not request.name:
                return self._container(request)
            if request.container not in self._containers:
                return refusal("404 Not Found", "ContainerNotFound")
            operation = (request.method, request.query.get("comp", ""))
            known = {
                ("PUT", "block"): self._put_block,
                ("PUT", "blocklist"): self._put_block_list,
                ("PUT", ""): self._put_blob,
                ("GET", "blocklist"): self._get_block_list,
                ("GET", ""): self._get,
                ("HEAD", ""): self._get,
            }.get(operation)
            return known(request) if known else refusal("501 Not Implemented", "UnsupportedHttpVerb")

    def _container(self, request: Request) -> Answer:
        blobs = self._containers.get(request.container)
        if request.method == "PUT":
            if blobs is not None:
                return refusal("409 Conflict", "ContainerAlreadyExists")
            self._containers[request.container] = {}
            return Answer("201 Created", self._version())
        if blobs is None:
            return refusal("404 Not Found", "ContainerNotFound")
        if request.method == "DELETE":
            del self._containers[request.container]
            self._staged = {at: blocks for at, blocks in self._staged.items() if at[0] != request.container}
            return Answer("202 Accepted")
        if request.query.get("comp") == "list":
            return self._list(blobs, request.query.get("prefix", ""))
        return Answer("200 OK", self._version())

    def _list(self, blobs: dict[str, Blob], prefix: str) -> Answer:
        entries = "".join(
            f"<Blob><Name>{escape(name)}</Name><Properties><Last-Modified>{blob.modified}</Last-Modified>"
            f"<Etag>{blob.etag}</Etag><Content-Length>{blob.size}</Content-Length><BlobType>BlockBlob</BlobType>"
            f"</Properties><Metadata>{_metadata(blob)}</Metadata></Blob>"
            for name, blob in sorted(blobs.items())
            if name.startswith(prefix)
        )
        text = f'<?xml version="1.0"?><EnumerationResults><Blobs>{entries}</Blobs><NextMarker /></EnumerationResults>'
        return Answer("200 OK", {"Content-Type": "application/xml"}, [memoryview(text.encode())])

    def _put_block(self, request: Request) -> Answer:
        staged = self._staged.setdefault((request.container, request.name), {})
        staged[request.query["blockid"]] = (request.length, request.body)
        return Answer("201 Created")

    def _put_block_list(self, request: Request) -> Answer:
        at = (request.container, request.name)
        staged = self._staged.get(at, {})
        old = self._containers[request.container].get(request.name)
        committed = {}
        if old:
            parts = old.parts or [bytearray()] * len(old.blocks)
            committed = {ident: (size, part) for (ident, size), part in zip(old.blocks, parts, strict=True)}
        known = {"Committed": [committed], "Uncommitted": [staged], "Latest": [staged, committed]}
        chosen = []
        for item in ET.fromstring(bytes(request.body)):
            ident = item.text or ""
            found = next((blocks[ident] for blocks in known[item.tag] if ident in blocks), None)
            if found is None:
                return refusal("400 Bad Request", "InvalidBlockList")
            chosen.append((ident, *found))
        return self._store(request, chosen)

    def _put_blob(self, request: Request) -> Answer:
        return self._store(request, [("", request.length, request.body)])

    def _store(self, request: Request, blocks: list[tuple[str, int, bytearray]]) -> Answer:
        blobs = self._containers[request.container]
        if refused := _unmet(request, blobs.get(request.name)):
            return refused
        kept = {name: value for name, value in request.headers.items() if name.startswith(_METADATA)}
        for sent, told in (("x-ms-blob-content-type", "Content-Type"), ("x-ms-blob-content-md5", "Content-MD5")):
            if sent in request.headers:
                kept[told] = request.headers[sent]
        version = self._version()
        sizes = [(ident, size) for ident, size, _ in blocks]
        parts = [part for _, _, part in blocks] if self.keep else []
        blobs[request.name] = Blob(version["ETag"], version["Last-Modified"], kept, sizes, parts)
        self._staged.pop((request.container, request.name), None)
        return Answer("201 Created", version)

    def _get_block_list(self, request: Request) -> Answer:
        blob = self._containers[request.container].get(request.name)
        if blob is None:
            return refusal("404 Not Found", "BlobNotFound")
        blocks = "".join(f"<Block><Name>{name}</Name><Size>{size}</Size></Block>" for name, size in blob.blocks if name)
        text = f'<?xml version="1.0"?><BlockList><CommittedBlocks>{blocks}</CommittedBlocks></BlockList>'
        headers = {"Content-Type": "application/xml", "ETag": blob.etag, "Last-Modified": blob.modified}
        return Answer("200 OK", headers, [memoryview(text.encode())])

    def _get(self, request: Request) -> Answer:
        blob = self._containers[request.container].get(request.name)
        if blob is None:
            return refusal("404 Not Found", "BlobNotFound")
        if refused := _unmet(request, blob):
            return refused
        headers = blob.headers | {"ETag": blob.etag, "Last-Modified": blob.modified, "x-ms-blob-type": "BlockBlob"}
        if request.method == "HEAD":
            return Answer("200 OK", headers, length=blob.size)
        if not self.keep:
            return refusal("501 Not Implemented", "BodiesAreDropped")
        asked = re.fullmatch(
            r"bytes=(\d+)-(\d*)", request.headers.get("x-ms-range") or request.headers.get("range", "")
        )
        if not asked:
            return Answer("200 OK", headers, _cut(blob.parts, 0, blob.size))
        start, end = int(asked[1]), min(int(asked[2] or blob.size - 1), blob.size - 1)
        if start > end:
            return refusal("416 Range Not Satisfiable", "InvalidRange")
        # Of the whole; beside a range its name is another.
        if "Content-MD5" in headers:
            headers["x-ms-blob-content-md5"] = headers.pop("Content-MD5")
        headers["Content-Range"] = f"bytes {start}-{end}/{blob.size}"
        return Answer("206 Partial Content", headers, _cut(blob.parts, start, end + 1))

    def _version(self) -> dict[str, str]:
        return {"ETag": f'"0x{next(self._versions):X}"', "Last-Modified": formatdate(usegmt=True)}


def _unmet(request: Request, blob: Blob | None) -> Answer | None:
    """The refusal where a condition does not hold."""
    wanted, unwanted = request.headers.get("if-match"), request.headers.get("if-none-match")
    if wanted and (blob is None or wanted.strip('"') != blob.etag.strip('"')):
        return refusal("412 Precondition Failed", "ConditionNotMet")
    if unwanted == "*" and blob is not None:
        return refusal("409 Conflict", "BlobAlreadyExists")
    return None


def _metadata(blob: Blob) -> str:
    entries = {name.removeprefix(_METADATA): value for name, value in blob.headers.items() if _METADATA in name}
    return "".join(f"<{name}>{escape(value)}</{name}>" for name, value in entries.items())


def _cut(parts: list[bytearray], start: int, end: int) -> list[memoryview]:
    """Bytes ``start`` to ``end`` of the parts joined, without joining them."""
    found, at = [], 0
    for part in parts:
        first, last = max(start - at, 0), min(end - at, len(part))
        if first < last:
            found.append(memoryview(part)[first:last])
        at += len(part)
    return found
