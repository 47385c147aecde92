"""Tables, commands and links of the documentation agree with the code."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import fields
from itertools import pairwise, takewhile
from pathlib import Path

import click
import pytest

from event_archive.cli.commands import commands
from event_archive.config.environment import InstanceSettings, PipelineSettings, Settings
from event_archive.config.sources import ApiSettings, LandingSettings, LogsSettings, StreamSettings
from event_archive.domain.manifest import Manifest

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [*(ROOT / page for page in ("README.md", "CHANGELOG.md", "deploy/README.md")), *ROOT.glob("docs/**/*.md")]
)


SOURCES: dict[str, tuple[type[LandingSettings], dict[str, str]]] = {
    "## An HTTP API": (ApiSettings, {"api_base_url": "https://h"}),
    "## Log files": (LogsSettings, {"logs_url": "file:///f"}),
    "## A Redis stream": (StreamSettings, {"redis_url": "redis://h"}),
}
"""Of each section of the configuration's page, the settings that it is about, and those that are required."""


def of_the_source(heading: str) -> list[str]:
    """The variables that no table before tells of."""
    told = {*Settings.model_fields}
    for section, (kind, _) in SOURCES.items():
        if section == heading:
            return [name for name in kind.model_fields if name not in told]
        told |= {*kind.model_fields}
    raise AssertionError(heading)


def table(page: str, first_cell: str, *, heading: str = "") -> dict[str, list[str]]:
    """The rows of the first table below a heading whose header begins so, by their first cell's code."""
    text = (ROOT / page).read_text().split(heading, 1)[1] if heading else (ROOT / page).read_text()
    lines = text.split(f"| {first_cell} |", 1)[1].splitlines()[2:]
    rows = {}
    for line in lines:
        if not line.startswith("|"):
            break
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        rows[cells[0].strip("`")] = cells[1:]
    return rows


def test_every_variable_is_documented():
    assert list(table("docs/configuration.md", "variable")) == [name.upper() for name in _in_order_of_the_page()]


def _in_order_of_the_page() -> list[str]:
    order = [name.lower() for name in table("docs/configuration.md", "variable")]
    return sorted(Settings.model_fields, key=lambda name: order.index(name) if name in order else len(order))


@pytest.mark.parametrize("name", Settings.model_fields)
def test_the_documented_default_is_the_codes(name: str):
    told = table("docs/configuration.md", "variable")[name.upper()][0].strip("`")
    default = Settings.model_fields[name].get_default()
    if name == "event_table":
        told = str(PipelineSettings(event_table=told).dataset.table)
        default = str(PipelineSettings().dataset.table)
    if name == "event_file_prefix":
        default = PipelineSettings().dataset.file_prefix
    if isinstance(default, bool):
        default = str(default).lower()
    if default is None or told == "required":
        assert told in ("none", "required", "as above", "one of these three", "", "by terminal")
    else:
        assert told == str(default)


@pytest.mark.parametrize("heading", SOURCES)
def test_every_variable_of_a_source_is_documented(heading: str):
    told = table("docs/configuration.md", "variable", heading=heading)
    assert sorted(told) == sorted(name.upper() for name in of_the_source(heading))


@pytest.mark.parametrize(("heading", "name"), [(of, name) for of in SOURCES for name in of_the_source(of)])
def test_the_documented_default_of_a_source_is_the_codes(heading: str, name: str):
    told = table("docs/configuration.md", "variable", heading=heading)[name.upper()][0].strip("`")
    kind, required = SOURCES[heading]
    field = kind.model_fields[name]
    if field.is_required() or field.default is None:
        assert told == ("required" if field.is_required() else "none")
    else:
        # As the variable would have it, through the variable's own parser.
        given = required | {"pg_connection_string": "host=h", name: told}
        assert getattr(kind.model_validate(given), name) == field.default


def test_dagsters_own_variables_are_documented():
    page = (ROOT / "docs/configuration.md").read_text().split("## Dagster's own storage")[1]
    told = set(re.findall(r"^\| `(DAGSTER_\w+)`", page, re.MULTILINE))
    assert told == {name.upper() for name in InstanceSettings.model_fields}


def each_command(group: click.Group, before: str = "") -> Iterator[tuple[str, click.Command]]:
    """All commands by their names, those of groups by both words."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from each_command(command, f"{before}{name} ")
        else:
            yield f"{before}{name}", command


def test_every_command_and_option_is_documented():
    told = {}
    for usage in table("README.md", "command"):
        words = usage.removeprefix("event-archive ").split(" ")
        name = " ".join(takewhile(lambda word: word.isalpha() and word.islower(), words))
        told[name] = set(re.findall(r"--[a-z-]+", usage))
    found = {
        name: {option for p in command.params if isinstance(p, click.Option) for option in p.opts}
        for name, command in each_command(commands)
    }
    assert told == found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_command_that_a_page_shows_can_be_given_as_it_stands(page: Path):
    """But for what only names a command or an option of it, and for the table of all of them."""
    text = page.read_text()
    shown = re.findall(r"`event-archive ([^`\n|]+)`", text)
    shown += re.findall(r"^ *(?:[A-Z_]+=\S+ )*event-archive ([^\n|#]+)", text, re.MULTILINE)
    for command_line in shown:
        name, command = max(
            ((name, of) for name, of in each_command(commands) if f"{command_line} ".startswith(f"{name} ")),
            key=lambda found: len(found[0]),
            default=("", commands),
        )
        words = shlex.split(re.sub(r"\bDAY\b", "2024-03-01", command_line[len(name) :]))
        is_name = not words or (len(words) == 1 and (words[0].startswith("--") or words[0] in commands.commands))
        assert name or is_name, command_line
        if not is_name and "[" not in command_line:
            command.make_context("event-archive", words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
            assert anchor in [re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_section_is_empty(page: Path):
    """But for those that hold others."""
    text = re.sub(r"^```.*?^```$", "code", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    lines = [line for line in text.splitlines() if line.strip()]
    for line, following in pairwise([*lines, "# the end"]):
        level, below = (re.match(r"#*", of)[0] for of in (line, following))  # type: ignore[index]
        assert not level or not below or len(below) > len(level), line


def test_every_field_of_a_manifest_is_documented():
    rows = re.findall(r"^\| (`event_archive_.*?) \|", (ROOT / "docs/files.md").read_text(), re.MULTILINE)
    told = re.findall(r"`event_archive_(\w+)`", " ".join(rows))
    assert sorted(told) == sorted(field.name for field in fields(Manifest))


def test_every_field_of_json_lines_has_a_meaning():
    """Which fields lines have is compared with the commands by test_json_lines.py."""
    cells = [cell for row in table("docs/json-lines.md", "line").values() for cell in row[1:]]
    named = set(re.findall(r"`(\w+)`", " ".join(cells)))
    told = [*table("docs/json-lines.md", "field")]
    assert told == sorted(named)


def test_every_page_is_linked_by_the_readme():
    linked = set(re.findall(r"\]\(([^)#\s]+)", (ROOT / "README.md").read_text()))
    pages = [*ROOT.glob("docs/*.md"), *ROOT.glob("docs/howto/*.md")]
    assert {str(page.relative_to(ROOT)) for page in pages} <= linked


def test_every_make_target_that_is_named_exists():
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {target for page in PAGES for target in re.findall(r"`?make ([a-z0-9-]+)", page.read_text())}
    assert named <= targets


def test_every_test_that_the_guarantees_name_exists():
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs/guarantees.md").read_text()))
    defined = {
        name
        for path in (ROOT / "event_archive_tests").glob("*/test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    assert named
    assert named <= defined
