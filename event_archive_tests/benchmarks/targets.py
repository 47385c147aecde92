"""What the figures should be, held against what they are. Every ratio is of medians of one call."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from event_archive.lake.azure.container import BLOCK_BYTES
from event_archive_tests.benchmarks.catalogue import BARE, NODE, OURS, PSQL, PYTHON
from event_archive_tests.benchmarks.data import CSV_BYTES
from event_archive_tests.benchmarks.log_files import decoded_bytes
from event_archive_tests.benchmarks.results import Results
from event_archive_tests.benchmarks.stage import SLOW_SECONDS

_MIB = 2**20
_SCALE_FROM_ROWS = 100_000


@dataclass(frozen=True, slots=True)
class Target:
    """A figure and its limit.

    Attributes:
        what: is measured.
        limit: that it must not exceed, or fall short of where ``least`` is set.
        figure: that was measured.
        unit: of both.
        least: whether more is better.
    """

    what: str
    limit: float
    figure: float
    unit: str
    least: bool = False

    @property
    def met(self) -> bool:
        """Whether the figure is within its limit."""
        return self.figure >= self.limit if self.least else self.figure <= self.limit


def targets(results: Results) -> list[Target]:
    """Those whose figures were measured."""
    found: list[Target] = []
    for make in _ALL:
        with suppress(LookupError):
            found.extend(make(results))
    return found


def _export(results: Results) -> Iterator[Target]:
    floor = results.of("contenders", PSQL, "export", "file").cost.wall_seconds
    ours = results.of("contenders", OURS, "export", "sink").cost.wall_seconds
    yield Target("export to a sink, wall beside `psql \\copy` to a file", 1.25, ours / floor, "x")
    empty = results.of("start", OURS, "export", "sink").cost.wall_seconds
    yield Target("the same without the process's start", 1.25, (ours - empty) / floor, "x")


def _slow(results: Results) -> Iterator[Target]:
    slow = results.of("contenders", OURS, "export", "slow sink")
    ours = results.of("contenders", OURS, "export", "sink")
    waits = slow.case.data.rows * CSV_BYTES / BLOCK_BYTES * SLOW_SECONDS
    more = slow.cost.wall_seconds - ours.cost.wall_seconds
    yield Target(
        f"export to a lake that answers after {SLOW_SECONDS * 1000:.0f} ms, beyond the sink's wall; the waits for its "
        f"blocks add up to {waits:.2f} s",
        round(waits / 2, 2),
        more,
        "s",
    )


def _export_cpu(results: Results) -> Iterator[Target]:
    ours = results.of("contenders", OURS, "export", "sink")
    millions = ours.case.data.rows / 1e6
    yield Target("export, client CPU per million rows", 1.3, ours.cost.cpu_seconds / millions, "s")
    empty = results.of("start", OURS, "export", "sink").cost.cpu_seconds
    without = (ours.cost.cpu_seconds - empty) / millions
    yield Target("the same without the process's start", 1.3, without, "s")


def _both(results: Results) -> Iterator[Target]:
    floor = results.of("contenders", PSQL, "both", "file").cost.wall_seconds
    ours = results.of("contenders", OURS, "both", "keeping sink").cost.wall_seconds
    yield Target("archive and purge with a sink, wall beside unverified `\\copy` and DELETE", 3.5, ours / floor, "x")
    empty = results.of("start", OURS, "both", "keeping sink").cost.wall_seconds
    yield Target("the same without the process's start", 3.5, (ours - empty) / floor, "x")


def _beside_python(results: Results) -> Iterator[Target]:
    yield from _with_azurite(results, PYTHON, 0.5)


def _beside_node(results: Results) -> Iterator[Target]:
    yield from _with_azurite(results, NODE, 0.4)


def _with_azurite(results: Results, name: str, cpu_limit: float) -> Iterator[Target]:
    ours = results.of("contenders", OURS, "both", "Azurite").cost
    theirs = results.of("contenders", name, "both", "Azurite").cost
    wall = ours.wall_seconds / theirs.wall_seconds
    yield Target(f"archive and purge with Azurite, wall beside {name}", 1, wall, "x")
    yield Target(f"client CPU beside {name}", cpu_limit, ours.cpu_seconds / theirs.cpu_seconds, "x")


def _beside_node_with_a_sink(results: Results) -> Iterator[Target]:
    """Without the cost of Azurite itself, which is slower than any client."""
    ours = results.of("contenders", OURS, "both", "keeping sink").cost.wall_seconds
    theirs = results.of("contenders", NODE, "both", "keeping sink").cost.wall_seconds
    yield Target(f"archive and purge with a sink, wall beside {NODE}, which verifies nothing", 1, ours / theirs, "x")


def _purge(results: Results) -> Iterator[Target]:
    ours = results.of("contenders", OURS, "purge", "keeping sink")
    yield Target("read-back and purge", 100_000, ours.rows_per_second, "rows/s", least=True)
    empty = results.of("start", OURS, "purge", "keeping sink").cost.wall_seconds
    without = ours.case.data.rows / (ours.cost.wall_seconds - empty)
    yield Target("the same without the process's start", 100_000, without, "rows/s", least=True)


def _restore(results: Results) -> Iterator[Target]:
    floor = results.of("contenders", PSQL, "restore", "file").cost.wall_seconds
    ours = results.of("contenders", OURS, "restore", "keeping sink").cost.wall_seconds
    yield Target("restore, wall beside `\\copy FROM` into the same table", 2, ours / floor, "x")
    empty = results.of("start", OURS, "restore", "keeping sink").cost.wall_seconds
    yield Target("the same without the process's start", 2, (ours - empty) / floor, "x")


def _memory_with_azurite(results: Results) -> Iterator[Target]:
    peak = results.of("contenders", OURS, "both", "Azurite").cost.peak_rss_bytes
    yield Target("peak RSS of `event-archive run` with Azurite", 145, peak / _MIB, "MiB")


def _memory_with_a_folder(results: Results) -> Iterator[Target]:
    peak = results.of("contenders", OURS, "both", "folder").cost.peak_rss_bytes
    yield Target("peak RSS of `event-archive run` with a folder as the lake", 80, peak / _MIB, "MiB")


def _memory(results: Results) -> Iterator[Target]:
    runs = [r for r in results.found if r.case.contender == OURS and r.case.job == "both"]
    if not runs:
        raise LookupError
    most = max(cost.peak_rss_bytes for run in runs for cost in run.costs)
    yield Target("peak RSS of `event-archive run`, of all runs here", 200, most / _MIB, "MiB")
    peaks = {
        run.case.data.rows: run.cost.peak_rss_bytes
        for run in results.section("scale")
        if run.case.contender == OURS and run.case.data.rows >= _SCALE_FROM_ROWS
    }
    if len(peaks) > 1:
        apart = (max(peaks.values()) - min(peaks.values())) / _MIB
        yield Target(f"peak RSS apart, from {min(peaks):,} to {max(peaks):,} rows", 8, apart, "MiB")


def _days(results: Results) -> Iterator[Target]:
    most = max((result.case.data.days for result in results.section("days")), default=1)

    def a_day(cost_of: Callable[[int], float]) -> float:
        return (cost_of(most) - cost_of(1)) / (most - 1) * 1000

    if most == 1:
        raise LookupError
    ours = a_day(lambda days: results.of("days", OURS, "both", "keeping sink", days=days).cost.cpu_seconds)
    bare = a_day(lambda days: results.of("days", BARE, "both", "keeping sink", days=days).cost.cpu_seconds)
    yield Target(
        f"CPU a small day beyond bare SQL and requests ({bare:.0f} ms); {ours:.0f} ms in all",
        30,
        ours - bare,
        "ms",
    )


def _start(results: Results) -> Iterator[Target]:
    yield Target("`event-archive --help`, CPU", 0.5, results.of("start", OURS, "nothing", "file").cost.cpu_seconds, "s")
    listing = results.of("start", OURS, "nothing", "keeping sink").cost.cpu_seconds
    yield Target("`event-archive days`, CPU", 1.5, listing, "s")


def _schedule(results: Results) -> Iterator[Target]:
    for result in results.section("schedule"):
        data = result.case.data
        what = f"days to do among {data.rows:,} rows of {data.days:,} days, {result.case.label}"
        yield Target(what, 60, result.cost.wall_seconds, "s")


def _ingest_api(results: Results) -> Iterator[Target]:
    most = max((result.case.data.rows for result in results.section("ingest-api")), default=0)
    ours = results.of("ingest-api", OURS, "ingest", "API", rows=most)
    yield Target("`event-archive ingest api`", 20_000, ours.rows_per_second, "events/s", least=True)
    cpu = ours.cost.cpu_seconds / most * 100_000
    yield Target("`event-archive ingest api`, client CPU per 100,000 events", 0.8, cpu, "s")
    yield Target("peak RSS of `event-archive ingest api`", 120, ours.cost.peak_rss_bytes / _MIB, "MiB")


def _ingest_logs(results: Results) -> Iterator[Target]:
    loaded = [of for of in results.section("ingest-logs") if of.case.contender == OURS and of.case.data.rows > 1]
    empty = results.of("ingest-logs", OURS, "ingest", "S3", rows=1).cost.cpu_seconds
    for result in loaded:
        data, cost = result.case.data, result.cost
        if data.kind != "files":
            hundreds, what = decoded_bytes(data) / 1e8, f"client CPU per 100 MB of a gzipped log file, {data.kind}"
            yield Target(what, 2.5, cost.cpu_seconds / hundreds, "s")
            yield Target("the same without the process's start", 2.5, (cost.cpu_seconds - empty) / hundreds, "s")
        what = f"{data.rows:,} files" if data.kind == "files" else data.kind
        yield Target(f"peak RSS of `event-archive ingest logs`, {what}", 150, cost.peak_rss_bytes / _MIB, "MiB")


_ALL = (
    _export,
    _slow,
    _export_cpu,
    _both,
    _beside_python,
    _beside_node,
    _beside_node_with_a_sink,
    _purge,
    _restore,
    _memory_with_azurite,
    _memory_with_a_folder,
    _memory,
    _days,
    _start,
    _schedule,
    _ingest_api,
    _ingest_logs,
)
