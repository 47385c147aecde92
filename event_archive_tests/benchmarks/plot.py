"""Time and memory over the number of rows, as an SVG by hand: two small panels need no plotting library."""

import math
from collections.abc import Callable, Iterator, Sequence

from event_archive_tests.benchmarks.catalogue import OURS, PSQL
from event_archive_tests.benchmarks.measure import Cost
from event_archive_tests.benchmarks.results import Results

_WIDTH, _HEIGHT, _LEFT, _TOP, _GAP = 360, 240, 60, 40, 90
_COLOURS = {OURS: "#1f77b4", PSQL: "#8c8c8c"}
_NAMES = {OURS: "event-archive run", PSQL: "psql: copy and DELETE, unverified"}

Line = tuple[str, Sequence[tuple[float, float]]]


def svg(results: Results) -> str:
    """The picture of section ``scale``."""
    found = results.section("scale")
    panels: tuple[tuple[str, Callable[[Cost], float]], ...] = (
        ("seconds", lambda cost: cost.wall_seconds),
        ("peak RSS, MiB", lambda cost: cost.peak_rss_bytes / 2**20),
    )
    width, height = 2 * (_LEFT + _WIDTH) + _GAP, _TOP + _HEIGHT + 70
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">',
        "<style>text { font: 12px sans-serif }</style>",
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for number, (title, value) in enumerate(panels):
        lines = [
            (name, [(r.case.data.rows, value(r.cost)) for r in found if r.case.contender == name]) for name in _COLOURS
        ]
        parts += [
            f'<g transform="translate({_LEFT + number * (_WIDTH + _GAP)} {_TOP})">',
            *_panel(title, lines),
            "</g>",
        ]
    for number, (name, colour) in enumerate(_COLOURS.items()):
        x = _LEFT + number * 180
        parts.append(f'<rect x="{x}" y="{height - 18}" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text x="{x + 18}" y="{height - 8}">{_NAMES[name]}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(title: str, lines: Sequence[Line]) -> Iterator[str]:
    points = [point for _, line in lines for point in line]
    most_rows, most = (_round_up(max(point[axis] for point in points)) for axis in (0, 1))
    yield f'<text x="0" y="-14" font-weight="bold">{title}</text>'
    yield f'<path d="M0 0V{_HEIGHT}H{_WIDTH}" fill="none" stroke="black"/>'
    for part in range(5):
        x, y = _WIDTH * part / 4, _HEIGHT * (1 - part / 4)
        yield f'<text x="{x:.0f}" y="{_HEIGHT + 18}" text-anchor="middle">{_rows(most_rows * part / 4)}</text>'
        yield f'<text x="-8" y="{y + 4:.0f}" text-anchor="end">{most * part / 4:.3g}</text>'
        yield f'<path d="M0 {y:.0f}H{_WIDTH}" stroke="#e0e0e0"/>'
    for name, line in filter(lambda named: named[1], lines):
        at = [(_WIDTH * x / most_rows, _HEIGHT * (1 - y / most)) for x, y in sorted(line)]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in at)
        yield f'<path d="M{path}" fill="none" stroke="{_COLOURS[name]}" stroke-width="2"/>'
        yield from (f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{_COLOURS[name]}"/>' for x, y in at)


def _round_up(value: float) -> float:
    """The next number whose quarters read well; 1 for nothing."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return power * next(step for step in (1, 2, 4, 6, 8, 10) if step * power >= value)


def _rows(count: float) -> str:
    return f"{count / 1e6:g} M" if count >= 1e6 else f"{count / 1e3:g} k" if count else "0"
