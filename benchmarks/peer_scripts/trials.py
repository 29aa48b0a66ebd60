"""The command line of a peer's script: ``script.py TRIAL COUNT`` prints one number, at the end."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping

__all__ = ["BATCH", "WORKERS", "median_of", "nothing", "per_second", "run"]

WORKERS = 2
BATCH = 1000


def nothing() -> None:
    """The task that costs nothing itself."""


def run(trials: Mapping[str, Callable[[int], float]]) -> None:
    """Measure the trial that the command line names."""
    print(trials[sys.argv[1]](int(sys.argv[2])))


def per_second(batch: Callable[[], object], times: int, tasks: int = BATCH) -> float:
    """The median rate of ``times`` batches of so many tasks, after one that does not count."""
    batch()
    return median_of(lambda: tasks / _seconds(batch), times)


def median_of(measure: Callable[[], float], times: int) -> float:
    """The median of ``times`` measurements."""
    return statistics.median(measure() for _ in range(times))


def _seconds(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin
