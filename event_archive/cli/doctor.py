"""``event-archive doctor``: what is wrong, and what to do about it. Here: how findings are shown.

Not here: what is looked at (``doctor``, ``defs.doctor``).
"""

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from event_archive.domain.wording import counted

if TYPE_CHECKING:
    from rich.console import Console

    from event_archive.defs.doctor import Definitions
    from event_archive.doctor.findings import Finding, Topic

_MARKS = {"good": ("✓", "green"), "warning": ("!", "yellow"), "bad": ("✗", "red")}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Write one JSON document instead of lines.")
def doctor(*, as_json: bool) -> None:
    """Checks configuration, connections, permissions, the table, the lake, clocks and Dagster, and says what to do.

    Changes nothing in the database; a probe file in the lake is removed again. Exit code 0: nothing is bad, though
    there may be warnings; 1: something is; 2: the settings are.
    """
    from event_archive.config.environment import output_is_json
    from event_archive.doctor.findings import go_through

    _log_warnings()
    topics = _topics()
    findings = go_through(topics)
    if not as_json:
        findings = _written(findings) if output_is_json() else _shown(findings, topics)
    found = list(findings)
    bad = [finding.name for finding in found if finding.status == "bad"]
    if as_json:
        click.echo(json.dumps({"good": not bad, "checks": [asdict(finding) for finding in found]}))
    if bad:
        sys.exit(2 if "settings" in bad else 1)


def _topics() -> "tuple[Topic, ...]":
    from event_archive.defs.doctor import topics
    from event_archive.doctor import TOPICS

    return (*TOPICS, *topics(_definitions))


def _definitions() -> "Definitions":
    from event_archive import definitions

    # Importing definitions configured logging for Dagster: set it back.
    _log_warnings()
    return definitions.defs


def _log_warnings() -> None:
    """Standard output is for findings."""
    from event_archive.observability import logs

    logs.configure(as_json=False, verbose=False, stream=sys.stderr)


def _written(findings: "Iterable[Finding]") -> "Iterator[Finding]":
    """Writes a JSON line a finding, and one of how many there are of each kind."""
    from event_archive.observability.json_lines import write_line

    counts = Counter[str]()
    for finding in findings:
        counts[finding.status] += 1
        error = finding.message if finding.status == "bad" else None
        write_line(finding.status, error=error, check=finding.name, message=finding.message, remedy=finding.remedy)
        yield finding
    error = f"{counted(counts['bad'], 'check', 'checks')} found something bad" if counts["bad"] else None
    write_line(
        "failed" if error else "done",
        error=error,
        checks=counts.total(),
        bad=counts["bad"],
        warnings=counts["warning"],
        skipped=counts["skipped"],
    )


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
