"""How far ``map`` has come: a bar on a terminal, a line now and then elsewhere.

A terminal is shown a bar that is removed when the last result was taken, the program stops taking
them, or Ctrl-C is pressed. Where standard error goes to a file, it gets a line every ten seconds,
so that long jobs can be followed and short ones say nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from operator import length_hint
from typing import TypeVar

from microkernel.tracing.trace import seconds

__all__ = ["shown_progress", "total_of"]

T = TypeVar("T")

SECONDS_BETWEEN_LINES = 10.0
SECONDS_BETWEEN_FRAMES = 0.1


def shown_progress(
    results: Iterable[T], label: str | bool, total: int | None = None
) -> Iterator[T]:
    """``results``, with the progress of taking them shown under ``label`` (True: "tasks").

    ``total`` is how many there will be; without it only their number and rate are shown.
    """
    text = label if isinstance(label, str) else "tasks"
    if sys.stderr is not None and sys.stderr.isatty():
        return _with_bar(results, text, total)
    return _with_lines(results, text, total)


def total_of(*iterables: object) -> int | None:
    """How many elements the shortest has, as far as they can tell without being consumed."""
    known = [hint for one in iterables if (hint := length_hint(one, -1)) >= 0]
    return min(known) if len(known) == len(iterables) and known else None


def _with_bar(results: Iterable[T], label: str, total: int | None) -> Iterator[T]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    # No thread redraws it: that would take the GIL from tasks for the sake of a clock.
    progress = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        auto_refresh=False,
        get_time=seconds,
    )
    with progress:
        bar = progress.add_task(label, total=total)
        done, drawn = 0, seconds()
        progress.refresh()
        for done, result in enumerate(results, 1):
            now = seconds()
            if now - drawn >= SECONDS_BETWEEN_FRAMES:
                drawn = now
                progress.update(bar, completed=done, refresh=True)
            yield result
        progress.update(bar, completed=done, refresh=True)


def _with_lines(results: Iterable[T], label: str, total: int | None) -> Iterator[T]:
    begun = said = seconds()
    for done, result in enumerate(results, 1):
        now = seconds()
        if now - said >= SECONDS_BETWEEN_LINES:
            said = now
            of = f" of {total}" if total is not None else ""
            print(f"{label}: {done}{of}, {done / (now - begun):.3g} a second", file=sys.stderr)
        yield result
