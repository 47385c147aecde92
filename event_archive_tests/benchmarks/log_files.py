"""The log files that are measured: entries of pino, in a folder and in a bucket. Not here: who loads them."""

import gzip
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from event_archive_tests.benchmarks.data import Data
from event_archive_tests.fixtures import s3_process
from event_archive_tests.fixtures.log_files import entry

_BLOCK = 1000
_HEADERS = {f"x-header-{number}": "value " * 4 for number in range(10)}


def _lines() -> list[bytes]:
    return [json.dumps(entry(number, headers=_HEADERS)).encode() for number in range(_BLOCK)]


def decoded_bytes(data: Data) -> int:
    """How long a file is, inflated: a byte follows each entry, a bracket stands before an array."""
    whole, rest = divmod(data.rows, _BLOCK)
    sizes = [len(line) + 1 for line in _lines()]
    return whole * sum(sizes) + sum(sizes[:rest]) + (data.kind == "array")


def _pieces(data: Data) -> Iterator[bytes]:
    lines, is_array = _lines(), data.kind == "array"
    between = b"," if is_array else b"\n"
    yield b"[" if is_array else b""
    for start in range(0, data.rows, _BLOCK):
        yield (between if start else b"") + between.join(lines[: data.rows - start])
    yield b"]" if is_array else b"\n"


class LogFiles:
    """Files in a folder, each with a bucket that holds it alone, as an S3 service has them."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        """Takes where files are written, and what ends the services."""
        self._folder, self._stack = folder, stack
        self._endpoints: dict[int, str] = {}

    def place(self, data: Data) -> dict[str, str]:
        """The variables of the bucket, and ``LOGS_FOLDER``."""
        if data.kind == "files":
            return self._variables(s3_process.MANY, data.rows)
        name = f"{data.kind}-{data.rows}"
        path = self._folder / name / "entries.json.gz"
        variables = self._variables(name, 0) | {"LOGS_FOLDER": str(path.parent)}
        if not path.exists():
            path.parent.mkdir()
            with gzip.open(path, "wb", compresslevel=6) as file:
                file.writelines(_pieces(data))
            _upload(path, name, variables)
        return variables

    def _variables(self, bucket: str, files: int) -> dict[str, str]:
        if files not in self._endpoints:
            self._endpoints[files] = self._stack.enter_context(s3_process.running(files))
        return {"LOGS_URL": f"s3://{bucket}", "AWS_ENDPOINT": self._endpoints[files], **s3_process.KEYS}


def _upload(path: Path, bucket: str, variables: dict[str, str]) -> None:
    import boto3

    client = boto3.client(
        "s3",
        endpoint_url=variables["AWS_ENDPOINT"],
        region_name=variables["AWS_REGION"],
        aws_access_key_id=variables["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
    )
    client.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": variables["AWS_REGION"]})
    client.put_object(Bucket=bucket, Key=path.name, Body=path.read_bytes())
    client.close()
