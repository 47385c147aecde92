"""``make bench``: measures, prints one table a section with the targets, and writes all runs down as JSON."""

import argparse
import json
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path

from event_archive_tests import azurite
from event_archive_tests.benchmarks import plot, report, stage
from event_archive_tests.benchmarks.catalogue import NODE_FOLDER, OURS, PSQL
from event_archive_tests.benchmarks.results import Result, Results, machine
from event_archive_tests.benchmarks.stage import Case
from event_archive_tests.benchmarks.suites import SECTIONS, Sizes
from event_archive_tests.benchmarks.targets import targets

_REPOSITORY = Path(__file__).parents[2]
_PAGE = _REPOSITORY / "docs" / "performance.md"
_PICTURE = _REPOSITORY / "docs" / "images" / "scale.svg"
_MOST_RUNS_OF_OTHERS = 2
"""The slow contenders, whose figures nobody needs to the last digit."""
_MOST_RUNS = {"scale": 2, "days": 1, "schedule": 1}
"""Of sections that are long, or averages in themselves."""


def main(arguments: list[str] | None = None) -> None:
    """Runs the sections that are asked for."""
    options = _parser().parse_args(arguments)
    # As an exception, so that the server and the sinks end with this process.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    sizes = Sizes(
        options.rows,
        options.wide_rows,
        tuple(options.scale),
        options.days,
        options.schedule_rows,
        options.events,
        options.compared_events,
        options.positions,
        options.compared_positions,
        options.seconds,
        options.entries,
        options.files,
    )
    azurite.install(NODE_FOLDER)
    results, started = Results(machine()), time.monotonic()
    with stage.opened() as opened:
        for section in options.only:
            measure(opened, section, SECTIONS[section](sizes), options.runs, results)
    print(f"\n{report.markdown(results)}\n{time.monotonic() - started:.0f} seconds in all.")
    judged = [asdict(target) | {"met": target.met} for target in targets(results)]
    options.json.write_text(json.dumps(results.to_json() | {"targets": judged}, indent=1) + "\n")
    if options.write_docs:
        report.write_into(_PAGE, report.markdown(results))
        if results.section("scale"):
            _PICTURE.parent.mkdir(exist_ok=True)
            _PICTURE.write_text(plot.svg(results))


def measure(opened: stage.Stage, section: str, cases: list[Case], runs: int, results: Results) -> None:
    """Measures cases in turn, round after round, so that a slow minute of the machine meets all of them."""
    found = [Result(section, case, []) for case in cases]
    results.found += found
    for number in range(min(runs, _MOST_RUNS.get(section, runs))):
        for result in found:
            if result.case.contender in (OURS, PSQL) or number < _MOST_RUNS_OF_OTHERS:
                result.costs.append(opened.measure(result.case))
                print(f"run {number + 1}, {report.progress(result)}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    sizes = Sizes()
    parser = argparse.ArgumentParser(prog="python -m event_archive_tests.benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="sections to measure")
    parser.add_argument("--runs", type=int, default=1, help="of each case; the median counts")
    parser.add_argument("--rows", type=int, default=sizes.rows, help="that the contenders move")
    parser.add_argument("--wide-rows", type=int, default=sizes.wide_rows, help="rows of 10 KB")
    parser.add_argument("--scale", type=int, nargs="+", default=sizes.scale, help="rows of a day, from few to many")
    parser.add_argument("--days", type=int, default=sizes.days, help="small days in one run")
    parser.add_argument("--schedule-rows", type=int, default=sizes.schedule_rows, help="in the schedule's table")
    parser.add_argument("--events", type=int, default=sizes.events, help="of an API, that this project takes in")
    parser.add_argument(
        "--compared-events", type=int, default=sizes.compared_events, help="of an API, that every contender takes in"
    )
    parser.add_argument(
        "--positions", type=int, default=sizes.positions, help="of a stream, that this project takes in"
    )
    parser.add_argument(
        "--compared-positions",
        type=int,
        default=sizes.compared_positions,
        help="of a stream, that every contender takes in",
    )
    parser.add_argument("--seconds", type=int, default=sizes.seconds, help="of a stream of a position a millisecond")
    parser.add_argument("--entries", type=int, default=sizes.entries, help="of a log file")
    parser.add_argument("--files", type=int, default=sizes.files, help="small log files that are listed")
    parser.add_argument("--json", type=Path, default=Path("benchmarks.json"), help="where all runs are written")
    parser.add_argument("--write-docs", action="store_true", help="write the tables into docs/performance.md")
    return parser


if __name__ == "__main__":
    main()
