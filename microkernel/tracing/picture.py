"""The timeline as a picture: a lane for each thread and worker, time from left to right.

For people who would rather look than load a file into a viewer. Where tasks are narrower than the
picture's finest column, what is drawn is how much of the column they fill.
"""

from __future__ import annotations

from collections import Counter
from typing import IO, TYPE_CHECKING
from xml.sax.saxutils import escape
from zlib import crc32

from microkernel.tracing.entries import read_entries
from microkernel.tracing.timeline import lane_names, lane_of

if TYPE_CHECKING:
    from microkernel.tracing.trace import TraceRing

__all__ = ["draw"]

COLUMNS = 1200
LANE_HEIGHT = 24
LEFT = 180
LEGEND = 12  # functions that are named, those with the most time


def draw(ring: TraceRing, out: IO[str]) -> None:
    """Write an SVG of all that has run."""
    first, last = _span(ring)
    width_ns = max(1, (last - first + COLUMNS - 1) // COLUMNS)
    lanes: dict[int, list[Counter[str]]] = {}
    total: Counter[str] = Counter()
    for one in read_entries(ring):
        if one.started_ns is None or one.ended_ns > last or one.started_ns < first:
            continue
        total[one.name] += one.ended_ns - one.started_ns
        columns = lanes.get(lane_of(one.station, one.lane))
        if columns is None:
            columns = lanes[lane_of(one.station, one.lane)] = [Counter() for _ in range(COLUMNS)]
        begin, end = one.started_ns - first, one.ended_ns - first
        for column in range(begin // width_ns, min(COLUMNS - 1, end // width_ns) + 1):
            inside = min(end, (column + 1) * width_ns) - max(begin, column * width_ns)
            columns[column][one.name] += inside
    names = lane_names(ring.statistics())
    shown = [name for name, _ in total.most_common(LEGEND)]
    height = LANE_HEIGHT * (len(lanes) + 2) + 16 * (len(shown) + 1)
    out.write(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + COLUMNS + 20}" height="{height}" '
        'font-family="sans-serif" font-size="12">\n<rect width="100%" height="100%" fill="#fff"/>\n'
    )
    for row, lane in enumerate(sorted(lanes)):
        top = LANE_HEIGHT * (row + 1)
        name = escape(names.get(lane, f"lane {lane}")[:26])
        out.write(f'<text x="8" y="{top + 16}">{name}</text>\n')
        out.write(
            f'<rect x="{LEFT}" y="{top + 2}" width="{COLUMNS}" height="{LANE_HEIGHT - 4}" '
            'fill="#f2f2f2"/>\n'
        )
        for left, right, function, share in _runs(lanes[lane], width_ns):
            tall = max(2, round((LANE_HEIGHT - 4) * share))
            out.write(
                f'<rect x="{LEFT + left}" y="{top + LANE_HEIGHT - 2 - tall}" '
                f'width="{right - left}" height="{tall}" fill="{_color(function)}">'
                f"<title>{escape(function)}</title></rect>\n"
            )
    bottom = LANE_HEIGHT * (len(lanes) + 1) + 16
    out.write(f'<text x="{LEFT}" y="{bottom}">0</text>\n')
    out.write(
        f'<text x="{LEFT + COLUMNS}" y="{bottom}" text-anchor="end">'
        f"{(last - first) / 1e9:.6g} s</text>\n"
    )
    for row, name in enumerate(shown):
        y = bottom + 16 * (row + 1)
        out.write(
            f'<rect x="{LEFT}" y="{y - 9}" width="10" height="10" fill="{_color(name)}"/>'
            f'<text x="{LEFT + 16}" y="{y}">{escape(name)}: {total[name] / 1e9:.6g} s</text>\n'
        )
    out.write("</svg>\n")


def _span(ring: TraceRing) -> tuple[int, int]:
    first, last = 1 << 63, 0
    for one in read_entries(ring):
        if one.started_ns is not None:
            first = min(first, one.started_ns)
            last = max(last, one.ended_ns)
    return min(first, last), last


def _runs(columns: list[Counter[str]], width_ns: int) -> list[tuple[int, int, str, float]]:
    """Columns side by side that look the same: (left, right, function, share of the time)."""
    runs: list[tuple[int, int, str, float]] = []
    for x, column in enumerate(columns):
        if not column:
            continue
        function = max(column, key=column.__getitem__)
        share = min(1.0, round(8 * sum(column.values()) / width_ns) / 8)
        if runs and runs[-1][1] == x and runs[-1][2:] == (function, share):
            runs[-1] = (runs[-1][0], x + 1, function, share)
        else:
            runs.append((x, x + 1, function, share))
    return runs


def _color(name: str) -> str:
    return f"hsl({crc32(name.encode()) % 360},60%,55%)"
