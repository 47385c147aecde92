"""A Dockerfile, parsed and replayed in a folder. Here: the instructions ours uses, and no others.

What stands in for an image is a folder: absolute paths of the image are taken below it. What stands in for the base
image is a Python with pip. A step that fails for lack of a file, or asks for what .dockerignore leaves out, fails here.
"""

import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

KNOWN = {"ARG", "CMD", "COPY", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL", "RUN", "USER", "WORKDIR"}


@dataclass(frozen=True)
class Instruction:
    """One instruction, its continued lines joined."""

    name: str
    value: str

    @property
    def pairs(self) -> dict[str, str]:
        """The ``key=value`` pairs of an ARG, ENV or LABEL."""
        return dict(pair.split("=", 1) for pair in shlex.split(self.value))


@dataclass
class Stage:
    """A stage as built: its folder, and what its instructions say of the container."""

    name: str
    root: Path
    environment: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    user: str = ""
    command: list[str] = field(default_factory=list)
    healthcheck: list[str] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)

    def path(self, inside: str) -> Path:
        """Where a path of the image is in the folder."""
        return self.root / (Path(self.workdir) / inside).relative_to("/")


def parse(text: str) -> list[Instruction]:
    """The instructions of a Dockerfile.

    Raises:
        ValueError: an instruction that is not known here.
    """
    code = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    found = []
    for line in filter(str.strip, re.sub(r"\\\n\s*", " ", code).splitlines()):
        name, _, value = line.strip().partition(" ")
        if name not in KNOWN:
            raise ValueError(f"{name} is an instruction that the replay does not know: {line}")
        found.append(Instruction(name, value.strip()))
    return found


def build_context(source: Path, target: Path) -> None:
    """Copies what .dockerignore leaves of a folder: ``*``, then ``!NAME`` of the top level, then ``**/PATTERN``."""
    lines = [line for line in (source / ".dockerignore").read_text().split("\n") if line and not line.startswith("#")]
    kept = [line.removeprefix("!") for line in lines if line.startswith("!")]
    ignored = [line.removeprefix("**/") for line in lines if line.startswith("**/")]
    assert lines == ["*", *(f"!{name}" for name in kept), *(f"**/{pattern}" for pattern in ignored)]
    target.mkdir()
    for name in kept:
        _copy(source / name, target / name, ignored)


def replay(instructions: list[Instruction], context: Path, folder: Path, python: Path) -> Stage:
    """Does what the Dockerfile says; the last stage.

    Args:
        instructions: as parsed.
        context: the build context.
        folder: gets ``root``, the image's file system, and ``stage-NAME`` of each stage before.
        python: the folder of the stand-in's ``python`` and ``pip``.

    Raises:
        AssertionError: an instruction contradicts the files.
        subprocess.CalledProcessError: a command failed.
    """
    root = folder / "root"
    arguments: dict[str, str] = {}
    stage = None
    for instruction in instructions:
        name, value = instruction.name, instruction.value
        if name == "FROM":
            if stage:
                root.rename(folder / f"stage-{stage.name}")
            base, _, alias = value.partition(" AS ")
            assert re.fullmatch(r"python:3\.1[123]-slim", _expanded(base, arguments)), value
            root.mkdir()
            stage = Stage(alias, root)
        elif stage is None:
            assert name == "ARG", f"{name} before the first FROM"
            arguments |= instruction.pairs
        elif name == "ENV":
            stage.environment |= {
                key: _below(root, text.replace("$PATH", f"{python}:{os.environ['PATH']}"))
                for key, text in instruction.pairs.items()
            }
        elif name == "RUN":
            # What an image must not hold may well be kept here: pip's downloads.
            kept = {"PIP_NO_CACHE_DIR": "false"}
            environment = {**os.environ, "PATH": f"{python}:{os.environ['PATH']}", **stage.environment, **kept}
            command = ["sh", "-euc", _below(root, value)]
            subprocess.run(command, cwd=stage.path("."), env=environment, check=True, stdin=subprocess.DEVNULL)
        elif name == "COPY":
            _do_copy(stage, value, context, folder)
        else:
            _note(stage, instruction)
    assert stage is not None
    return stage


def _note(stage: Stage, instruction: Instruction) -> None:
    """What only describes the container."""
    match instruction.name:
        case "WORKDIR":
            stage.workdir = str(Path(stage.workdir) / instruction.value)
            stage.path(".").mkdir(parents=True, exist_ok=True)
        case "USER":
            stage.user = instruction.value
        case "CMD":
            stage.command = json.loads(instruction.value)
        case "HEALTHCHECK":
            stage.healthcheck = json.loads(instruction.value.partition("CMD ")[2])
        case "LABEL":
            stage.labels |= instruction.pairs


def _do_copy(stage: Stage, value: str, context: Path, folder: Path) -> None:
    words = value.split()
    if words[0].startswith("--from="):
        source_root = folder / f"stage-{words.pop(0).removeprefix('--from=')}"
    else:
        source_root = context
    *sources, target = words
    for source in sources:
        there = source_root / source.lstrip("/")
        assert there.exists(), f"COPY {value}: {source} is not there, or .dockerignore leaves it out"
        _copy(there, stage.path(target) / there.name if target.endswith("/") else stage.path(target), [])


def _copy(source: Path, target: Path, ignored: list[str]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True, ignore=_ignoring(ignored))
    else:
        shutil.copy2(source, target)


def _ignoring(patterns: list[str]) -> Callable[[Any, list[str]], set[str]]:
    return lambda _, names: {name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)}


def _expanded(text: str, arguments: Mapping[str, str]) -> str:
    return re.sub(r"\$\{(\w+)\}", lambda match: arguments[match[1]], text)


def _below(root: Path, text: str) -> str:
    """The text with the image's own folders taken below the root."""
    return re.sub(r"(?<![\w./])/(?=(?:opt|src)/)", f"{root}/", text)


def stand_in(instructions: list[Instruction], folder: Path) -> Path:
    """Makes a Python with pip, as the base image has; where its commands are.

    Of the version that the Dockerfile takes by default, where that is on PATH, else of this process's.
    """
    version = instructions[0].pairs["PYTHON_VERSION"]
    for python in (f"python{version}", f"{sys.base_prefix}/bin/python3"):
        made = subprocess.run([python, "-m", "venv", str(folder)], check=False) if shutil.which(python) else None
        if made and made.returncode == 0:
            return folder / "bin"
    raise AssertionError(f"neither python{version} nor the Python of this process can make an environment")


def files(root: Path) -> Iterator[tuple[str, int, int]]:
    """Every file below, with size and time of change in nanoseconds."""
    for path in sorted(root.rglob("*")):
        if path.is_file() and not path.is_symlink():
            status = path.stat()
            yield str(path.relative_to(root)), status.st_size, status.st_mtime_ns
