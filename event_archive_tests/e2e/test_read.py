"""The page on reading the archive: its examples, run on files that nights wrote, see what PostgreSQL held."""

import subprocess
from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest

from event_archive.domain.days import ONE_DAY
from event_archive_tests.fixtures.installation import REPOSITORY, Commands, Installation
from event_archive_tests.fixtures.pages import blocks, page_of
from event_archive_tests.fixtures.pipeline import DAY

pytestmark = pytest.mark.slow

COLUMNS = ("id", "event_id", "event_type", "created_at", "processed_at", "payload", "note")
LARGE = '{"large": "' + "x" * 3_000_000 + '"}'
NOTES = (None, "", 'a "quoted" one, with\ntwo lines\r\nand a third', "NULL", "NA", "007", " ", '""', "grüße, 東京")
"""Values that readers take for something else."""

Row = dict[str, Any]


def add(installed: Installation, number: int, note: str | None, payload: str = "{}", day: date = DAY) -> None:
    """A row, or a new form of one that is archived."""
    installed.database.execute(
        'INSERT INTO "Event" (id, event_id, event_type, created_at, payload, note) VALUES (%s, %s, %s, %s, %s, %s)',
        *(number, f"event {number}", "", f"{day} 10:00:00.125", payload, note),
    )


def archive(installed: Installation, command: Commands) -> list[Row]:
    """Archives and purges what is in the table; what that was, as text."""
    columns = ", ".join(f"to_jsonb(event) ->> '{name}'" if name == "note" else f"{name}::text" for name in COLUMNS)
    rows = installed.database.execute(f'SELECT {columns} FROM "Event" AS event ORDER BY created_at, event.id')
    assert command("run").code == 0
    assert installed.count() == 0
    return [named(row) for row in rows]


def named(row: Sequence[Any]) -> Row:
    return dict(zip(COLUMNS, row, strict=True))


@pytest.fixture
def forms(local_installation: Installation, command: Commands, tmp_path: Path, clean: pytest.MonkeyPatch) -> list[Row]:
    """Every form of every row in the lake, in the order in which each was archived; and the lake as where we are."""
    local_installation.add(2, day=DAY - ONE_DAY, prefix="old")
    before = archive(local_installation, command)
    local_installation.database.execute('ALTER TABLE "Event" ADD note text')
    for number, note in enumerate(NOTES, start=10):
        add(local_installation, number, note)
    add(local_installation, 20, "large", LARGE)
    add(local_installation, 21, "another day", day=DAY + ONE_DAY)
    night = archive(local_installation, command)
    add(local_installation, 11, "changed")
    late = archive(local_installation, command)
    clean.chdir(tmp_path / "lake")
    # Another prefix's file, which none of the globs may take in.
    Path(local_installation.dataset.folder, f"events_eu_{DAY}.csv").write_text("id,strange\n1,2\n")
    return [*before, *night, *late]


def python(*kinds: str) -> dict[str, Any]:
    """The names that some of the page's blocks define, one after another."""
    names: dict[str, Any] = {}
    for kind in kinds:
        (block,) = [block for block in blocks(page_of("read")) if block.kind == f"python {kind}"]
        exec(block.text, names)
    return names


def by_duckdb() -> tuple[list[Row], list[Row]]:
    (block,) = [block for block in blocks(page_of("read")) if block.kind == "sql duckdb"]
    with duckdb.connect() as connection:
        connection.execute(block.text)
        events, current = (
            connection.execute(f"SELECT {', '.join(COLUMNS)} FROM {view}").fetchall() for view in ("events", "current")
        )
    return [named(row) for row in events], [named(row) for row in current]


def by_polars() -> tuple[list[Row], list[Row]]:
    names = python("polars")
    return names["events"].collect().to_dicts(), names["current"].collect().to_dicts()


def by_pyarrow() -> tuple[list[Row], list[Row]]:
    names = python("pyarrow")
    return names["events"].to_pylist(), names["current"].to_pylist()


def by_pandas() -> tuple[list[Row], list[Row]]:
    names = python("pyarrow", "pandas")

    def rows(frame: Any) -> list[Row]:
        missing = names["pd"].isna
        return [{name: None if missing(of) else of for name, of in row.items()} for row in frame.to_dict("records")]

    return rows(names["events"]), rows(names["current"])


def test_each_example_reads_every_row_as_it_was(forms: list[Row], subtests: pytest.Subtests):
    expected, latest = as_text(forms), as_text(list({row["id"]: row for row in forms}.values()))
    for read in (by_duckdb, by_polars, by_pyarrow, by_pandas):
        with subtests.test(read.__name__):
            events, current = read()
            assert as_text(events) == expected
            assert as_text(current) == latest
            assert {type(row["id"]) for row in current} == {int}


def as_text(rows: list[Row]) -> list[tuple[str | None, ...]]:
    """Rows in one order, values as PostgreSQL writes them."""
    return sorted((tuple(text(row[name]) for name in COLUMNS) for row in rows), key=repr)


def text(value: object) -> str | None:
    if isinstance(value, datetime):
        return value.isoformat(" ", "milliseconds" if value.microsecond else "seconds")
    return None if value is None else str(value)


def test_the_page_on_files_reads_one_and_copies_it_back(
    local_installation: Installation, command: Commands, tmp_path: Path, clean: pytest.MonkeyPatch
):
    clean.chdir(tmp_path)
    local_installation.add(3)
    assert command("run").code == 0
    content = local_installation.content()
    Path("events_2024-03-01.csv").write_bytes(content)
    read, copy = [block.text for block in blocks(REPOSITORY / "docs/files.md")]
    seen: dict[str, Any] = {}
    exec(read, seen)
    assert seen["payload"]["n"] == 2
    psql = local_installation.database.server.bin_dir / "psql"
    subprocess.run([psql, "-v", "ON_ERROR_STOP=1", local_installation.database.dsn, "-c", copy.strip()], check=True)
    assert local_installation.count() == 3
    assert command("run").code == 0
    assert local_installation.content() == content, "they are the very rows"
