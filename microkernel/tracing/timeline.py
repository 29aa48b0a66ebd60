"""The timeline of a kernel: its trace as a file that Perfetto, or a web browser, shows.

The format is the Trace Event Format of Chrome (the JSON form): a complete event for each task, in
the lane of the thread or process that ran it, with its id, parent, attempt and status. It is
written as it is read, a block at a time, so its size is bounded by the disk only. Nothing is
sampled or left out; what a full disk took is said in ``otherData``.
"""

from __future__ import annotations

import gzip
import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from microkernel.errors import KernelError
from microkernel.tracing.entries import TraceEntry, read_entries

if TYPE_CHECKING:
    from microkernel.tracing.trace import TraceRing

__all__ = ["write_timeline"]

LANES_PER_STATION = 1000
MOST_BINS = 4096


def write_timeline(
    ring: TraceRing, path: str | os.PathLike[str] | None = None, *, arrows: bool = False
) -> str | None:
    """Write the timeline to ``path`` (``.json``, ``.json.gz`` or ``.svg``), or return its JSON.

    With ``arrows`` a line leads from each task to the tasks that it submitted; for these, ids are
    kept in memory. The file is complete or not there. Raises ``KernelError`` for another suffix.
    """
    if path is None:
        text = io.StringIO()
        _write_json(ring, text, arrows)
        return text.getvalue()
    target = Path(path)
    if target.name.endswith((".json", ".json.gz")):
        with _complete(target) as out:
            _write_json(ring, out, arrows)
    elif target.suffix == ".svg":
        from microkernel.tracing.picture import draw

        with _complete(target) as out:
            draw(ring, out)
    else:
        raise KernelError(
            f"a timeline cannot be written as {target.name}",
            what=str(target),
            expected="a path that ends in .json, .json.gz or .svg",
            remedy="give it one of these suffixes",
        )
    return None


@contextmanager
def _complete(target: Path) -> Iterator[IO[str]]:
    """A file that takes the place of ``target`` once it is whole."""
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        if target.suffix == ".gz":
            with gzip.open(partial, "wt", compresslevel=3, encoding="utf-8") as packed:
                yield packed
        else:
            with partial.open("w", encoding="utf-8") as out:
                yield out
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def lane_names(statistics: dict[str, Any]) -> dict[int, str]:
    """What the lanes are called: threads by their names, processes by their numbers."""
    names = {}
    for row in statistics["workers"]:
        name = row["name"] if not row["station"] else f"worker {row['station']} ({row['process']})"
        names[lane_of(row["station"], row["lane"])] = name
    return names


def lane_of(station: int, lane: int) -> int:
    """The number of a lane in the timeline."""
    return LANES_PER_STATION * station + min(lane, LANES_PER_STATION - 2) + 1


class _Running:
    """How many tasks ran at a time, in bins that grow wider as the trace grows longer."""

    def __init__(self) -> None:
        self.width = 1_000_000
        self.changes: dict[int, int] = {}

    def add(self, started_ns: int, ended_ns: int) -> None:
        changes, width = self.changes, self.width
        begin, end = started_ns // width, ended_ns // width + 1
        changes[begin] = changes.get(begin, 0) + 1
        changes[end] = changes.get(end, 0) - 1
        if len(changes) > MOST_BINS:
            self.width *= 4
            self.changes = {}
            for moment, change in changes.items():
                self.changes[moment // 4] = self.changes.get(moment // 4, 0) + change

    def levels(self) -> Iterator[tuple[int, int]]:
        level = 0
        for moment in sorted(self.changes):
            level += self.changes[moment]
            yield moment * self.width, level


def _write_json(ring: TraceRing, out: IO[str], arrows: bool) -> None:
    statistics = ring.statistics()
    process = statistics["process"]
    run_id: bytes = statistics["run_id"]
    submitted_by = _children(ring, run_id) if arrows else {}
    quoted: dict[str, str] = {}
    running = _Running()
    lanes: set[int] = set()
    opened: int = statistics["opened_ns"]
    out.write('{"displayTimeUnit":"ns","traceEvents":[\n')
    title = json.dumps(f"{statistics['program']} ({statistics['placement']})")
    out.write(
        f'{{"ph":"M","pid":{process},"tid":0,"name":"process_name","args":{{"name":{title}}}}}'
    )
    for one in read_entries(ring):
        name = quoted.get(one.name)
        if name is None:
            name = quoted[one.name] = json.dumps(one.name)
        lane = lane_of(one.station, one.lane)
        end = (one.ended_ns - opened) / 1000
        identity = one.task_id.hex()
        head = f'"name":{name},"cat":"{one.kind}","pid":{process},"tid":{lane}'
        args = (
            f'"args":{{"id":"{identity}","parent":"{one.parent_id.hex()}",'
            f'"attempt":{one.attempt},"status":"{one.status}","place":"{one.place}"}}'
        )
        if one.started_ns is None:
            out.write(f',\n{{"ph":"i","s":"t",{head},"ts":{end:.3f},{args}}}')
            continue
        lanes.add(lane)
        begin = (one.started_ns - opened) / 1000
        running.add(one.started_ns - opened, one.ended_ns - opened)
        if _nests(one):
            out.write(f',\n{{"ph":"X",{head},"ts":{begin:.3f},"dur":{end - begin:.3f},{args}}}')
        else:
            out.write(f',\n{{"ph":"b",{head},"id":"{identity}","ts":{begin:.3f},{args}}}')
            out.write(f',\n{{"ph":"e",{head},"id":"{identity}","ts":{end:.3f}}}')
        if arrows:
            link = f'"name":"submits","cat":"submits","pid":{process},"tid":{lane}'
            for child, moment in submitted_by.get(one.task_id, ()):
                at = min(max((moment - opened) / 1000, begin), end)
                out.write(f',\n{{"ph":"s",{link},"id":"{child}","ts":{at:.3f}}}')
            if one.parent_id != run_id:
                out.write(f',\n{{"ph":"f","bp":"e",{link},"id":"{identity}","ts":{begin:.3f}}}')
    for moment, level in running.levels():
        out.write(
            f',\n{{"ph":"C","pid":{process},"tid":0,"name":"tasks running",'
            f'"ts":{moment / 1000:.3f},"args":{{"tasks":{level}}}}}'
        )
    names = lane_names(ring.statistics())
    for lane in sorted(lanes):
        station = lane // LANES_PER_STATION
        name = json.dumps(names.get(lane, f"worker {station}" if station else f"thread {lane}"))
        out.write(
            f',\n{{"ph":"M","pid":{process},"tid":{lane},"name":"thread_name",'
            f'"args":{{"name":{name}}}}}'
        )
    other = {
        "run": run_id.hex(),
        "opened": statistics["opened"],
        "lost": statistics["trace_lost"],
        "overwritten": statistics["trace_overwritten"],
    }
    out.write(f'\n],"otherData":{json.dumps(other)}}}\n')


def _nests(entry: TraceEntry) -> bool:
    """Whether it lies within or beside the others of its lane.

    Coroutines take turns; what was given up ended before its function did.
    """
    return entry.kind != "coroutine" and entry.status in ("ok", "error")


def _children(ring: TraceRing, run_id: bytes) -> dict[bytes, list[tuple[str, int]]]:
    """The tasks that ran, with their starts, by who submitted them."""
    children: dict[bytes, list[tuple[str, int]]] = {}
    for one in read_entries(ring):
        if one.started_ns is not None and one.parent_id != run_id:
            children.setdefault(one.parent_id, []).append((one.task_id.hex(), one.started_ns))
    return children
