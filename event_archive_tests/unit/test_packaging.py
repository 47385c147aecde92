"""What ships and how it is installed: lock files that agree with pyproject.toml, a wheel that holds the package alone,
and nothing that ties the repository to one machine."""

import json
import platform
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from event_archive.config.environment import InstanceSettings, Settings

REPOSITORY = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
RUNTIME = "runtime"
LOCKS: dict[str, list[str]] = {
    "requirements.lock": [RUNTIME],
    "requirements-demo.lock": [RUNTIME, "demo", "build"],
    "requirements-dev.lock": [RUNTIME, "demo", "dev"],
    "requirements-bench.lock": [RUNTIME, "demo", "dev", "bench"],
    "requirements-build.lock": ["build"],
}
"""What each lock file installs. Each of the first four begins with the one above it; the last stands alone."""
PYTHONS = ("3.11", "3.12", "3.13")
THIS_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"

# In pieces, so that this file does not name what it forbids.
REGISTRIES = re.compile(r"py(?:pi\.org|thonhosted)|(?:npm|yarn)(?:js|pkg)\.(?:org|com)|deb\.debian|crates\.io")
MACHINE_PATHS = re.compile(r"""(?:^|[\s"'=:(])/(?:root|work|home|Users)/\w""", re.MULTILINE)


def requirements(*names: str) -> list[Requirement]:
    """The runtime's, and those of extras and dependency groups."""
    return [Requirement(line) for name in names for line in group(name)]


def group(name: str) -> list[str]:
    """The lines of the runtime, of an extra, or of a dependency group and the groups that it includes."""
    if name == RUNTIME:
        return list(PYPROJECT["project"]["dependencies"])
    extras, groups = PYPROJECT["project"]["optional-dependencies"], PYPROJECT["dependency-groups"]
    lines: list[str] = []
    for line in extras[name] if name in extras else groups[name]:
        lines += group(line["include-group"]) if isinstance(line, dict) else [line]
    return lines


def own(lock: str) -> tuple[list[str], list[Requirement]]:
    """The files that a lock file begins with, and its own pins: it holds nothing else, and no pin without hashes."""
    text = (REPOSITORY / lock).read_text()
    below = re.findall(r"^-r (\S+)$", text, re.MULTILINE)
    pins = re.findall(r"^(\w\S*==[^\\\n]+) \\\n    --hash=sha256:", text, re.MULTILINE)
    lines = re.findall(r"^(?! {4}(?:--hash=sha256:[0-9a-f]{64}(?: \\)?|#.*)$).*\S", text, re.MULTILINE)
    assert len(lines) == len(below) + len(pins), f"{lock} holds lines that are neither a pin with hashes nor a comment"
    return below, [Requirement(pin) for pin in pins]


def chain(lock: str) -> list[str]:
    """A lock file after those that it begins with."""
    return [*(name for below in own(lock)[0] for name in chain(below)), lock]


def pins(lock: str, python: str = THIS_PYTHON) -> list[tuple[str, Version]]:
    """What a lock file and those that it begins with pin for one Python on this system."""
    full = platform.python_version() if python == THIS_PYTHON else f"{python}.0"
    environment = {"python_version": python, "python_full_version": full}
    return [
        (canonicalize_name(pin.name), Version(str(pin.specifier).removeprefix("==")))
        for file in chain(lock)
        for pin in own(file)[1]
        if not pin.marker or pin.marker.evaluate(environment)
    ]


def needed(roots: list[Requirement]) -> set[str]:
    """The packages that requirements name, and all that these need; asked of what is installed here."""
    waiting, seen = list(roots), set()
    while waiting:
        requirement = waiting.pop()
        if (requirement.name, *requirement.extras) in seen:
            continue
        seen.add((requirement.name, *requirement.extras))
        extras = ("", *requirement.extras)
        waiting += [
            further
            for further in map(Requirement, metadata.requires(requirement.name) or [])
            if not further.marker or any(further.marker.evaluate({"extra": extra}) for extra in extras)
        ]
    return {canonicalize_name(name) for name, *_ in seen}


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_file_pins_what_pyproject_asks_for(lock: str, python: str) -> None:
    versions = dict(pins(lock, python))
    wrong = [
        f"{requirement} ({versions.get(canonicalize_name(requirement.name), 'absent')})"
        for requirement in requirements(*LOCKS[lock])
        if canonicalize_name(requirement.name) not in versions
        or not requirement.specifier.contains(versions[canonicalize_name(requirement.name)])
    ]
    assert not wrong, f"{lock} is behind pyproject.toml, run `make lock`: {', '.join(wrong)}"


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("lock", LOCKS)
def test_no_package_is_pinned_twice(lock: str, python: str) -> None:
    names = [name for name, _ in pins(lock, python)]
    assert len(names) > len(requirements(*LOCKS[lock]))
    assert not {name for name in names if names.count(name) > 1}


def test_each_lock_file_begins_with_the_one_below_it_and_that_of_the_build_stands_alone() -> None:
    *layers, build = LOCKS
    assert chain(layers[-1]) == layers
    assert chain(build) == [build]
    assert set(pins(build)) <= set(pins("requirements-demo.lock"))


# What the benchmarks compare with is not installed beside the tests.
@pytest.mark.parametrize("lock", [lock for lock, groups in LOCKS.items() if "bench" not in groups])
def test_a_lock_file_installs_what_is_needed_and_nothing_else(lock: str) -> None:
    assert {name for name, _ in pins(lock)} == needed(requirements(*LOCKS[lock]))


def test_lock_files_hold_no_address() -> None:
    for lock in LOCKS:
        assert "://" not in (REPOSITORY / lock).read_text()
    locks = REPOSITORY.glob("event_archive_tests/**/package-lock.json")
    for path in (lock for lock in locks if "node_modules" not in lock.parts):
        assert not values(json.loads(path.read_text()), "resolved"), path


def values(node: Any, key: str) -> list[Any]:
    """What stands under ``key`` anywhere in a JSON document."""
    if isinstance(node, list):
        return [found for child in node for found in values(child, key)]
    if isinstance(node, dict):
        return [found for name, child in node.items() for found in ([child] if name == key else values(child, key))]
    return []


def test_the_wheel_holds_the_package_alone(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names} == {"event_archive", "event_archive-0.1.0.dist-info"}
    assert "event_archive/py.typed" in names
    sources = {str(path.relative_to(REPOSITORY)) for path in REPOSITORY.glob("event_archive/**/*.py")}
    assert sources <= set(names)


def test_the_example_environment_names_every_variable() -> None:
    known = {name.upper() for settings in (Settings, InstanceSettings) for name in settings.model_fields}
    named = re.findall(r"^(?:# )?([A-Z][A-Z0-9_]+)=", (REPOSITORY / ".env.example").read_text(), re.MULTILINE)
    assert sorted(named) == sorted(known | {"DAGSTER_HOME"})


def test_a_shell_reads_every_line_of_the_example_environment(tmp_path: Path) -> None:
    lines = re.findall(r"^(?:# )?([A-Z][A-Z0-9_]+=.*)$", (REPOSITORY / ".env.example").read_text(), re.MULTILINE)
    (tmp_path / ".env").write_text("\n".join(lines))
    read = subprocess.run(["sh", "-ec", ". ./.env"], cwd=tmp_path, check=False, capture_output=True, text=True)
    assert (read.returncode, read.stderr) == (0, "")


def test_dagsters_files_name_one_module() -> None:
    workspace = yaml.safe_load((REPOSITORY / "workspace.yaml").read_text())
    (location,) = workspace["load_from"]
    assert location["python_module"]["module_name"] == PYPROJECT["tool"]["dagster"]["module_name"]


def test_nothing_names_a_registry_or_a_machines_folder() -> None:
    if not (REPOSITORY / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout
    found = []
    for name in filter(None, listed.split("\0")):
        path = REPOSITORY / name
        text = path.read_bytes().decode(errors="replace") if path.is_file() else ""
        found += [f"{name}: {hit[0].strip()}" for hit in (REGISTRIES.search(text), MACHINE_PATHS.search(text)) if hit]
    assert not found, "\n".join(found)
