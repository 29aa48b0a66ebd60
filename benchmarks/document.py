"""Keeps ``docs/benchmarks.md`` true: its table is the last full run, with the date and machine."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Iterable
from pathlib import Path

from benchmarks.measure import Figure

__all__ = ["PAGE", "machine", "rewritten", "write"]

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
BEGIN = "<!-- figures: written by python -m benchmarks --write-docs -->"
END = "<!-- end of figures -->"


def write(figures: Iterable[Figure], page: Path = PAGE) -> None:
    """Put the figures of a full run in the place of the last one's; nothing else changes.

    Raises ``ValueError`` when the page has lost the marks between which the table stands.
    """
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    text = rewritten(page.read_text("utf-8"), figures, f"{today}, {machine()}")
    unfinished = page.with_suffix(".new")
    unfinished.write_text(text, "utf-8")
    unfinished.replace(page)


def rewritten(page: str, figures: Iterable[Figure], heading: str) -> str:
    """The page with this table; see ``write``."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page needs the lines {BEGIN!r} and {END!r} around its table")
    rows = [_row(figure) for figure in figures]
    table = [
        f"Measured on {heading}.",
        "",
        "| bench | ours | peer | theirs | times better | goal |",
        "| --- | ---: | --- | ---: | ---: | --- |",
        *rows,
    ]
    return f"{before}{BEGIN}\n\n" + "\n".join(table) + f"\n\n{END}{after}"


def machine() -> str:
    """What the figures depend on: processor, cores, memory, system and Python."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (
        f"{_processor()}, {cores} cores, {memory:.0f} GiB, "
        f"{platform.system()} {platform.release().partition('-')[0]}, "
        f"{platform.python_implementation()} {platform.python_version()}"
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.machine())


def _row(figure: Figure) -> str:
    theirs = "" if figure.theirs is None else _amount(figure.theirs, figure.unit)
    ratio = "" if figure.ratio is None else f"{figure.ratio:.3g}"
    ours = _amount(figure.ours, figure.unit)
    cells = [f"`{figure.bench}`", ours, figure.peer or "", theirs, ratio, _goal(figure)]
    return f"| {' | '.join(cells)} |"


def _goal(figure: Figure) -> str:
    bounds = []
    if figure.goal is not None:
        sign = "≥" if figure.better == "higher" else "≤"
        bounds.append(f"{sign} {_amount(figure.goal, figure.unit)}")
    if figure.goal_ratio is not None:
        bounds.append(f"≥ {figure.goal_ratio:.3g} ×")
    if not bounds:
        return ""
    return f"{', '.join(bounds)}: {'met' if figure.met else '**missed**'}"


def _amount(value: float, unit: str) -> str:
    number = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{number} {unit}".rstrip()
