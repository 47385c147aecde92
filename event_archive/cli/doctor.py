"""``event-archive doctor``: what is wrong, and what to do about it."""

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from event_archive.domain.wording import counted

if TYPE_CHECKING:
    import dagster as dg
    from rich.console import Console

    from event_archive.doctor.findings import Finding, Topic

_MARKS = {"good": ("✓", "green"), "warning": ("!", "yellow"), "bad": ("✗", "red")}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Write one JSON document instead of lines.")
def doctor(*, as_json: bool) -> None:
    """Checks configuration, connections, permissions, the table, the lake, clocks and Dagster, and says what to do.

    Changes nothing in the database; a probe file in the lake is removed again. Exit code 0: nothing is bad, though
    there may be warnings; 1: something is; 2: the settings are.
    """
    from event_archive.doctor.findings import go_through
    from event_archive.observability import logs

    # Standard output is for findings, whatever LOG_FORMAT says.
    logs.configure(as_json=False)
    topics = _topics()
    found = list(go_through(topics)) if as_json else list(_shown(go_through(topics), topics))
    bad = [finding.name for finding in found if finding.status == "bad"]
    if as_json:
        click.echo(json.dumps({"good": not bad, "checks": [asdict(finding) for finding in found]}))
    if bad:
        sys.exit(2 if "settings" in bad else 1)


def _topics() -> "tuple[Topic, ...]":
    from event_archive.defs.doctor import topics
    from event_archive.doctor import TOPICS

    return (*TOPICS, *topics(_definitions))


def _definitions() -> "dg.Definitions":
    from event_archive import definitions
    from event_archive.observability import logs

    logs.configure(as_json=False)
    return definitions.defs


def _shown(findings: "Iterable[Finding]", topics: "Iterable[Topic]") -> "Iterator[Finding]":
    """Shows each finding when it is there, in the end what was not looked at; on a terminal, what is waited for."""
    from event_archive.observability.console import plain_console

    console = plain_console()
    to_come = [name for topic in topics for name in topic.checks]
    width = max(map(len, to_come))
    counts = Counter[str]()
    skipped: dict[str, list[str]] = {}
    with console.status(to_come[0]) as status:
        for finding in findings:
            if finding.status == "skipped":
                skipped.setdefault(finding.message, []).append(finding.name)
            else:
                _print(console, finding, width)
            counts[finding.status] += 1
            to_come.remove(finding.name)
            status.update(to_come[0] if to_come else "")
            yield finding
    for why, names in skipped.items():
        console.print(f"- {', '.join(names)}: {why}", style="dim")
    console.print(f"{counts['bad']} bad, {counted(counts['warning'], 'warning', 'warnings')}", style="bold")


def _print(console: "Console", finding: "Finding", width: int) -> None:
    mark, style = _MARKS[finding.status]
    indent = " " * (width + 4)
    message = finding.message.replace("\n", f"\n{indent}")
    console.print(f"{mark} {finding.name:<{width}}  {message}", style=style)
    if finding.remedy:
        console.print(f"{indent}→ {finding.remedy}")
