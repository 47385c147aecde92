"""The tables that people read, in Markdown. Here: rows and columns. Not here: measuring, judging."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from event_archive_tests.benchmarks.catalogue import OURS, PSQL
from event_archive_tests.benchmarks.data import EMPTY
from event_archive_tests.benchmarks.log_files import decoded_bytes
from event_archive_tests.benchmarks.results import Result, Results
from event_archive_tests.benchmarks.server import SETTINGS
from event_archive_tests.benchmarks.targets import targets

_MIB = 2**20
_BEGIN, _END = "<!-- written by make bench -->\n", "<!-- until here -->\n"
_SECTIONS = {
    "contenders": "One day, each contender",
    "start": "A day of one row: what a process takes to start",
    "tables": "Wide and bloated tables",
    "scale": "From few rows to many",
    "days": "Small days in one process",
    "schedule": "What the schedule asks at each tick",
    "ingest-api": "An HTTP API into PostgreSQL, each contender",
    "ingest-logs": "Log files of a bucket into PostgreSQL, each contender",
}
_JOBS = {"both": "archive and purge"}


def progress(result: Result) -> str:
    """A line about a case that was just measured."""
    cost, case = result.cost, result.case
    rows = case.data.kind if case.data.kind in EMPTY else f"{case.data.kind} rows"
    what = f"{case.contender}, {case.label or case.job}, {case.lake}, {case.data.rows:,} {rows}"
    return (
        f"{result.section}: {what}: "
        f"{cost.wall_seconds:.2f} s, client CPU {cost.cpu_seconds:.2f} s, {cost.peak_rss_bytes / _MIB:.0f} MiB, "
        f"server CPU {cost.server_cpu_seconds:.2f} s"
    )


def markdown(results: Results) -> str:
    """Targets, then a table a section."""
    return "\n".join(_lines(results)) + "\n"


def _lines(results: Results) -> Iterator[str]:
    about = results.machine
    settings = ", ".join(f"`{name} = {value}`" for name, value in SETTINGS.items())
    yield f"{about['processor']}, {about['cores']} cores, {about['memory']}, {about['system']}; load at the start"
    yield f"{about['load']}. Python {about['python']}, PostgreSQL {about['postgresql']} ({settings}); {about['day']}."
    judged = targets(results)
    if judged:
        missed = sum(not target.met for target in judged)
        yield from ("", "### Targets", "", f"{len(judged) - missed} met, {missed} missed.", "")
        rows = [
            (
                target.what,
                f"{'≥' if target.least else '≤'} {target.limit:,g} {target.unit}",
                f"{_short(target.figure)} {target.unit}",
                "met" if target.met else "**missed**",
            )
            for target in judged
        ]
        yield from _table(("target", "limit", "measured", ""), rows)
    for section, title in _SECTIONS.items():
        found = results.section(section)
        if found:
            yield from ("", f"### {title}", "")
        if section == "ingest-api":
            yield from _ingested(found)
        elif section == "ingest-logs":
            yield from _loaded(found)
        elif found:
            yield from _table(
                ("job", "contender", "lake", "rows", "wall s", "beside psql", "client CPU s", "peak RSS MiB",
                 "server CPU s", "rows/s", "runs"),
                [_row(result, found) for result in found],
            )  # fmt: skip


def _ingested(found: list[Result]) -> Iterator[str]:
    if found:
        yield from _table(
            ("contender", "events", "wall s", "events/s", "client CPU s per 100,000", "peak RSS MiB",
             "server CPU s per 100,000", "runs"),
            [_ingested_row(result) for result in found],
        )  # fmt: skip


def _ingested_row(result: Result) -> tuple[str, ...]:
    case, cost = result.case, result.cost
    hundred_thousands = case.data.rows / 100_000
    return (
        case.contender,
        f"{case.data.rows:,}",
        f"{cost.wall_seconds:.2f}",
        f"{result.rows_per_second:,.0f}",
        f"{cost.cpu_seconds / hundred_thousands:.2f}",
        f"{cost.peak_rss_bytes / _MIB:.0f}",
        f"{cost.server_cpu_seconds / hundred_thousands:.2f}",
        str(len(result.costs)),
    )


def _loaded(found: list[Result]) -> Iterator[str]:
    if found:
        yield from _table(
            ("file", "contender", "entries", "MB decoded", "wall s", "client CPU s", "client CPU s per 100 MB",
             "peak RSS MiB", "server CPU s", "wall beside event-archive", "client CPU beside it", "runs"),
            [_loaded_row(result, found) for result in found],
        )  # fmt: skip


def _loaded_row(result: Result, section: list[Result]) -> tuple[str, ...]:
    case, cost = result.case, result.cost
    files = case.data.kind == "files"
    size = 0 if files else decoded_bytes(case.data) / 1e6
    ours = next(of.cost for of in section if of.case.contender == OURS and of.case.data == case.data)
    return (
        {"array": "gzipped array", "lines": "gzipped lines"}.get(case.data.kind, "many, listed; 20 loaded"),
        case.contender,
        f"{case.data.rows:,}" + " files" * files,
        f"{size:,.0f}" if size >= 1 else "",
        f"{cost.wall_seconds:.2f}",
        f"{cost.cpu_seconds:.2f}",
        f"{cost.cpu_seconds / size * 100:.2f}" if size >= 1 else "",
        f"{cost.peak_rss_bytes / _MIB:.0f}",
        f"{cost.server_cpu_seconds:.2f}",
        f"{cost.wall_seconds / ours.wall_seconds:.2f}",
        f"{cost.cpu_seconds / ours.cpu_seconds:.2f}",
        str(len(result.costs)),
    )


def _row(result: Result, section: list[Result]) -> tuple[str, ...]:
    case, cost = result.case, result.cost
    floor = [
        other.cost.wall_seconds
        for other in section
        if other.case.contender == PSQL and other.case.job == case.job and other.case.data == case.data
    ]
    kind = "" if case.data.kind == "narrow" else f" {case.data.kind}"
    days = f" in {case.data.days:,} days" if case.data.days > 1 else ""
    return (
        case.label or _JOBS.get(case.job, case.job),
        case.contender,
        case.lake,
        f"{case.data.rows:,}{kind}{days}",
        f"{cost.wall_seconds:.2f}",
        f"{cost.wall_seconds / floor[0]:.2f}" if floor else "",
        f"{cost.cpu_seconds:.2f}",
        f"{cost.peak_rss_bytes / _MIB:.0f}",
        f"{cost.server_cpu_seconds:.2f}",
        f"{result.rows_per_second:,.0f}" if case.job != "nothing" else "",
        str(len(result.costs)),
    )


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    for row in (head, ("---",) * len(head), *rows):
        yield f"| {' | '.join(row)} |"


def _short(figure: float) -> str:
    return f"{figure:,.0f}" if abs(figure) >= 100 else f"{figure:.2f}"


def write_into(page: Path, text: str) -> None:
    """Puts the tables between the page's two marks.

    Raises:
        ValueError: the page has no marks.
    """
    before, begin, rest = page.read_text().partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"{page.name} lacks the lines {_BEGIN.strip()} and {_END.strip()}")
    page.write_text(f"{before}{_BEGIN}\n{text}\n{_END}{after}")
