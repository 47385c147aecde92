"""What import-linter cannot see: Dagster's private modules, and modules that have grown too long to be one concept."""

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "event_archive"
TESTS = Path(__file__).parents[1]
INTERNALS = PACKAGE / "defs" / "internals.py"


def imported(source: str) -> Iterator[str]:
    """The modules, and the names out of modules, that a source imports; dotted."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def private(source: str) -> list[str]:
    """Those of them that Dagster does not publish."""
    return [
        name
        for name in imported(source)
        if name.startswith("dagster_shared")
        or (name.startswith("dagster") and any(part.startswith("_") for part in name.split(".")))
    ]


def test_no_module_is_longer_than_300_lines():
    modules = [path for room in (PACKAGE, TESTS) for path in room.rglob("*.py") if "node_modules" not in path.parts]
    assert {str(path): length for path in modules if (length := path.read_text().count("\n")) > 300} == {}


def test_what_is_private_is_recognised():
    assert private("from dagster._core.errors import DagsterError") == ["dagster._core.errors.DagsterError"]
    assert private("import dagster._utils as utils") == ["dagster._utils"]
    assert private("from dagster_shared.utils import warnings") == ["dagster_shared.utils.warnings"]
    assert private("import dagster as dg\nfrom dagster_postgres.utils import DagsterPostgresException") == []


def test_dagsters_private_modules_are_imported_in_one_file():
    found = {path for path in PACKAGE.rglob("*.py") if private(path.read_text())}
    assert found == {INTERNALS}


def test_that_file_says_why_and_what_to_watch_for_each():
    lines = INTERNALS.read_text().splitlines()
    for number, line in enumerate(lines):
        if line.startswith("from "):
            comment = lines[number - 1]
            assert comment.startswith("# "), line
            assert "Watch" in comment, line


def test_each_of_those_names_is_used():
    (names,) = [
        ast.literal_eval(node.value)
        for node in ast.parse(INTERNALS.read_text()).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "__all__"
    ]
    used = {
        name.rpartition(".")[2]
        for path in PACKAGE.rglob("*.py")
        for name in imported(path.read_text())
        if name.startswith("event_archive.defs.internals.")
    }
    assert used == set(names)
