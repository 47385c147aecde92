"""SIGINT and SIGTERM end a command whatever it does at that moment."""

import signal
import subprocess
import sys
import time

import pytest

from event_archive.cli.stop import MESSAGE
from event_archive_tests.fixtures.installation import clean_environment

# Each says on standard output when it is ready to be told to stop.
SWALLOWS = """
while True:
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        pass
"""
LOSES_IT_IN_A_DESTRUCTOR = """
class Slow:
    def __del__(self):
        time.sleep(60)
Slow()
time.sleep(60)
"""
WAITS_IN_A_LIBRARY = """
import ctypes
libc = ctypes.CDLL(None)
while True:
    libc.usleep(1000)
    # The handler runs between two instructions of Python, of which there is none while this waits.
    ctypes.CDLL(None).sleep(60)
"""
FAILS_FOR_IT = """
try:
    time.sleep(60)
except KeyboardInterrupt:
    raise ConnectionError("broken off")
"""
IS_DONE = """
stop.work_is_done()
time.sleep(60)
"""


def script(body: str) -> str:
    lines = "\n".join(f"        {line}" for line in body.splitlines())
    return f"""
import time
from event_archive.cli import stop, commands
stop.GRACE_SECONDS = 0.5

class Work:
    @staticmethod
    def main(standalone_mode):
        print("ready", flush=True)
{lines}

stop.install()
commands.commands = Work
commands.run_command()
"""


AMID_AN_IMPORT = """
import os, signal, sys
from event_archive.cli import main

class Signal:
    asked = []
    def find_spec(self, name, path=None, target=None):
        self.asked.append(name)
        if self.asked.count(name) == 1 and name == "numbers":
            # Which a library's import of `decimal` begins with.
            os.kill(os.getpid(), signal.SIGTERM)

sys.meta_path.insert(0, Signal())
sys.argv[1:] = ["run"]
try:
    main()
finally:
    print(Signal.asked.count("numbers"), Signal.asked.count("psycopg"), flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("body", [SWALLOWS, LOSES_IT_IN_A_DESTRUCTOR, WAITS_IN_A_LIBRARY, FAILS_FOR_IT, IS_DONE])
def test_a_command_that_is_told_to_stop_ends_with_the_signals_code(body: str, number: signal.Signals):
    with subprocess.Popen(
        [sys.executable, "-c", script(body)],
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            process.send_signal(number)
            told = time.monotonic()
            _, said = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == 128 + number, said
    assert time.monotonic() - told < 10
    assert "Traceback" not in said
    assert said.strip() in (("", MESSAGE) if body == IS_DONE else (MESSAGE,))


def test_a_second_signal_does_not_disturb_the_first():
    body = """
try:
    print("working", flush=True)
    time.sleep(60)
finally:
    print("rolling back", flush=True)
    time.sleep(0.3)
    print("rolled back", flush=True)
"""
    with subprocess.Popen(
        [sys.executable, "-c", script(body).replace("0.5", "5")],
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert [process.stdout.readline() for _ in range(2)] == ["ready\n", "working\n"]
            process.send_signal(signal.SIGTERM)
            assert process.stdout.readline() == "rolling back\n"
            process.send_signal(signal.SIGINT)
            shown, said = process.communicate(timeout=20)
        finally:
            process.kill()
    assert (process.returncode, shown, said.strip()) == (
        128 + signal.SIGTERM,
        'rolled back\n{"outcome": "stopped"}\n',
        MESSAGE,
    )


def test_a_command_that_is_told_to_stop_amid_an_import_does_not_begin_it_anew():
    done = subprocess.run(
        [sys.executable, "-c", AMID_AN_IMPORT],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr.strip()) == (
        128 + signal.SIGTERM,
        '{"outcome": "stopped"}\n1 1\n',
        MESSAGE,
    )
