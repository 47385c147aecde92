"""``event-archive doctor``: what is wrong, and what to do about it. Here: how findings are shown.

Not here: what is looked at (``doctor``, ``defs.doctor``).
"""

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import click

from event_archive.cli.arguments import dataset_option
from event_archive.config.variables import output_is_json
from event_archive.domain.wording import counted
from event_archive.errors import ConfigurationError, printable

if TYPE_CHECKING:
    from rich.console import Console

    from event_archive.config.environment import Settings
    from event_archive.defs.doctor import Definitions
    from event_archive.doctor.findings import Finding, Topic

_OF_SETTINGS = ("settings", "sources", "dagster_definitions")
"""Checks of settings. Their messages have a line for each problem."""
_MARKS = {"good": ("✓", "green"), "warning": ("!", "yellow"), "bad": ("✗", "red")}


@click.command(short_help="Is everything there that a night needs? What to do, if not.")
@click.option("--json", "as_json", is_flag=True, help="Write one JSON document instead of lines.")
@dataset_option
def doctor(datasets: tuple[str, ...], *, as_json: bool) -> None:
    """Checks configuration, connections, permissions, the table, the lake, clocks and Dagster, and says what to do.

    Changes nothing in the database; a probe file in the lake is removed again, but a container or folder that was
    missing is made. Exit code 0: nothing is bad, though there may be warnings; 1: something is; 2: a setting is.
    """
    _log_warnings()
    examinations = _examinations(datasets)
    told: Iterable[Told]
    if as_json:
        told = (finding for examination in examinations for finding in examination.findings())
    else:
        told = _written(examinations) if output_is_json() else _shown(examinations)
    found = list(told)
    bad = [finding.name for _, finding in found if finding.status == "bad"]
    if as_json:
        checks = [({"dataset": name} if name else {}) | asdict(finding) for name, finding in found]
        click.echo(json.dumps({"good": not bad, "checks": checks}))
    if bad:
        sys.exit(2 if {*_OF_SETTINGS} & {*bad} else 1)


Told = tuple[str, "Finding"]
"""The name of the dataset, which may be empty, and what was found."""


@dataclass(frozen=True, slots=True)
class _Examination:
    """What is looked at of one dataset."""

    name: str
    topics: "tuple[Topic, ...]"
    load: "Callable[[], Settings]"

    @property
    def checks(self) -> list[str]:
        """The names of all checks, in their order."""
        return [name for topic in self.topics for name in topic.checks]

    def findings(self) -> Iterator[Told]:
        """Looks."""
        from event_archive.doctor.findings import go_through

        return ((self.name, finding) for finding in go_through(self.topics, self.load))


def _examinations(names: tuple[str, ...]) -> list[_Examination]:
    """One for each dataset; of several, what they share is looked at after them, whatever is wrong with one."""
    from event_archive.config.datasets import chosen, load_for_command
    from event_archive.config.environment import Settings
    from event_archive.defs.doctor import topics
    from event_archive.doctor import OF_ALL, TOPICS

    of_all = (*OF_ALL, *topics(_definitions))
    try:
        datasets = load_for_command()
    except ConfigurationError as error:
        wrong = error

        def refuse() -> Settings:
            raise wrong

        return [_Examination("", (*TOPICS, *of_all), refuse)]
    pipelines = chosen(datasets, names)
    if len(pipelines) == 1:
        return [_Examination(pipelines[0].dataset.name, (*TOPICS, *of_all), pipelines[0].with_secrets)]
    of_each = [_Examination(of.dataset.name, TOPICS, of.with_secrets) for of in pipelines]
    return [*of_each, _Examination("", of_all, pipelines[0].with_secrets)]


def _definitions() -> "Definitions":
    from event_archive import definitions

    # Importing definitions configured logging for Dagster: set it back.
    _log_warnings()
    return definitions.defs


def _log_warnings() -> None:
    """Standard output is for findings."""
    from event_archive.observability import logs

    logs.configure(as_json=False, verbose=False, stream=sys.stderr)


def _written(examinations: Iterable[_Examination]) -> Iterator[Told]:
    """Writes a JSON line a finding, and one of how many there are of each kind."""
    from event_archive.observability.json_lines import write_line

    counts = Counter[str]()
    for examination in examinations:
        for name, finding in examination.findings():
            counts[finding.status] += 1
            error = finding.message if finding.status == "bad" else None
            known = {"check": finding.name, "message": finding.message, "remedy": finding.remedy}
            write_line(finding.status, dataset=name, error=error, **known)
            yield name, finding
    error = f"{counted(counts['bad'], 'check', 'checks')} found something bad" if counts["bad"] else None
    write_line(
        "failed" if error else "done",
        error=error,
        checks=counts.total(),
        bad=counts["bad"],
        warnings=counts["warning"],
        skipped=counts["skipped"],
    )


def _shown(examinations: Iterable[_Examination]) -> Iterator[Told]:
    """Shows each finding when it is there, in the end what was not looked at; on a terminal, what is waited for."""
    from event_archive.observability.console import plain_console

    console = plain_console()
    counts = Counter[str]()
    for examination in examinations:
        if examination.name:
            console.print(examination.name, style="bold")
        to_come = examination.checks
        width = max(map(len, to_come))
        skipped: dict[str, list[str]] = {}
        with console.status(to_come[0]) as status:
            for name, finding in examination.findings():
                if finding.status == "skipped":
                    skipped.setdefault(finding.message, []).append(finding.name)
                else:
                    _print(console, finding, width)
                counts[finding.status] += 1
                to_come.remove(finding.name)
                status.update(to_come[0] if to_come else "")
                yield name, finding
        for why, names in skipped.items():
            console.print(f"- {', '.join(names)}: {why}", style="dim")
    console.print(f"{counts['bad']} bad, {counted(counts['warning'], 'warning', 'warnings')}", style="bold")


def _print(console: "Console", finding: "Finding", width: int) -> None:
    mark, style = _MARKS[finding.status]
    indent = " " * (width + 4)
    # Names of triggers, roles and the like are others' words; problems of the settings are a line each.
    message = printable(finding.message, lines=finding.name in _OF_SETTINGS).replace("\n", f"\n{indent}")
    console.print(f"{mark} {finding.name:<{width}}  {message}", style=style)
    if finding.remedy:
        console.print(f"{indent}→ {printable(finding.remedy, lines=True)}")
