"""``srds top``: the kernels that run on this machine."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from srds.commands.options import JsonOption
from srds.rendering import console, print_json, put, safe, say, table

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from microkernel.tracing import RunningKernel

__all__ = ["top"]


def top(
    process: Annotated[
        int | None,
        typer.Option("--pid", min=1, help="Only this process [default: all].", show_default=False),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Show one moment, and end.")] = False,
    interval: Annotated[
        float, typer.Option("--interval", min=0.1, max=3600.0, help="Seconds between updates.")
    ] = 1.0,
    as_json: JsonOption = False,
) -> None:
    """Show the running kernels: their workers, queues and memory. Ctrl-C ends it."""
    from microkernel.tracing import running_kernels

    if as_json:
        print_json({"kernels": [_document(one) for one in running_kernels(process)]})
        return
    out = console()
    if once or not out.is_terminal:
        found = running_kernels(process)
        if not found:
            say(out, "no running kernels")
        for kernel in found:
            put(out, _heading(kernel, None))
            put(out, _workers(kernel))
        return
    _follow(process, interval)


def _follow(process: int | None, interval: float) -> None:
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    from microkernel.tracing import running_kernels

    before: dict[bytes, tuple[float, int]] = {}
    with (
        contextlib.suppress(KeyboardInterrupt),
        Live(console=console(), auto_refresh=False, screen=True, transient=True) as live,
    ):
        while True:
            now = time.monotonic()
            parts: list[RenderableType] = []
            seen: dict[bytes, tuple[float, int]] = {}
            for kernel in running_kernels(process):
                counters = kernel.counters
                seen[counters.run_id] = (now, counters.ended)
                then, ended = before.get(counters.run_id, (now, 0))
                rate = (counters.ended - ended) / (now - then) if now > then else None
                parts += [_heading(kernel, rate), _workers(kernel), Text()]
            before = seen
            live.update(Group(*(parts or [Text("no running kernels")])), refresh=True)
            time.sleep(interval)


def _heading(kernel: RunningKernel, rate: float | None) -> Text:
    from rich.text import Text

    counters = kernel.counters
    parts = [
        f"{counters.ended:,} of {counters.submitted:,} tasks",
        f"{counters.running:,} running",
        f"{counters.queued:,} queued",
    ]
    failed = sum(one.failed + one.missed for one in counters.places.values())
    if failed:
        parts.append(f"{failed:,} failed")
    if rate is not None:
        parts.append(f"{rate:,.0f}/s")
    parts.append(size(sum(kernel.memory.values())))
    if kernel.objects:
        parts.append(f"{size(kernel.objects)} of objects")
    return Text.assemble(
        (safe(counters.program), "bold"),
        f" {counters.process}, {age(counters.age_seconds)}, {counters.placement}: ",
        ", ".join(parts),
    )


def _workers(kernel: RunningKernel) -> RenderableType:
    rows = [
        (
            f"  {safe(one.name)}",
            str(one.process),
            f"{one.tasks:,}",
            f"{100 * one.busy_seconds / max(kernel.counters.age_seconds, 1e-9):.0f} %",
            size(kernel.memory[one.process]) if one.station else "",
            safe(one.running) if one.running else "",
            age(one.running_seconds) if one.running else "",
        )
        for one in kernel.workers
    ]
    headings = ("  worker", "process", "tasks", "busy", "memory", "running", "for")
    return table(headings, rows, right=("process", "tasks", "busy", "memory", "for"))


def size(count: float) -> str:
    """Bytes in the unit that suits them.

    >>> size(3 << 20)
    '3.0 MiB'
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def age(seconds: float) -> str:
    """A span of time, roughly.

    >>> age(0.25), age(75), age(3 * 3600 + 60)
    ('0.2 s', '1:15 min', '3:01 h')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02} h"


def _document(kernel: RunningKernel) -> dict[str, Any]:
    counters = kernel.counters
    return {
        "process": counters.process,
        "program": counters.program,
        "run": counters.run_id.hex(),
        "placement": counters.placement,
        "opened": counters.opened,
        "age_seconds": counters.age_seconds,
        "places": {
            place: {
                "submitted": one.submitted,
                "finished": one.finished,
                "failed": one.failed,
                "cancelled": one.cancelled,
                "missed": one.missed,
                "retried": one.retried,
                "running": one.running,
                "queued": one.queued,
            }
            for place, one in counters.places.items()
        },
        "workers": [
            {
                "name": one.name,
                "process": one.process,
                "station": one.station,
                "tasks": one.tasks,
                "busy_seconds": one.busy_seconds,
                "running": one.running,
                "running_seconds": one.running_seconds,
            }
            for one in kernel.workers
        ],
        "memory": {str(process): count for process, count in kernel.memory.items()},
        "objects": kernel.objects,
        "trace_lost": counters.trace_lost,
        "trace_overwritten": counters.trace_overwritten,
    }
