"""Work of a known length, and strangers that keep the processors busy.

A task that only watches the clock would call the time useful in which it did not run. These are
told a number of iterations; how many of them a second of processor time holds is measured by as
many processes at once as will run them, because processors that share a core slow each other down.

``python -m benchmarks.load SECONDS`` prints what one process does.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["dies_once", "hogs", "iterations_per_second", "rollout", "spin", "spin_until"]

PROJECT = Path(__file__).parents[1]
STRETCH = 20_000
# Ends when the process has died that it was started by.
HOG = """
import os, sys
while os.getppid() == int(sys.argv[1]):
    for _ in range(1_000_000):
        pass
"""


def spin(iterations: int) -> None:
    """Keep the processor busy for this many iterations."""
    for _ in range(iterations):
        pass


def rollout(iterations: int) -> float:
    """Keep busy; returns the processor time that this took, whoever else wanted the processor."""
    begin = time.thread_time()
    spin(iterations)
    return time.thread_time() - begin


def spin_until(moment: float) -> None:
    """Keep the processor busy until ``time.perf_counter`` says ``moment``."""
    while time.perf_counter() < moment:
        pass


def dies_once(path: str) -> float:
    """A task that its own ``kill -9`` interrupts the first time; then says when that was.

    ``path`` names the file by which it knows that it has died before. The time is of
    ``time.monotonic``, which all processes share.
    """
    mark = Path(path)
    if not mark.exists():
        mark.write_text(str(time.monotonic()), "utf-8")
        os.kill(os.getpid(), signal.SIGKILL)
    return float(mark.read_text("utf-8"))


def iterations_per_second(workers: int, seconds: float = 0.4) -> float:
    """The iterations of ``spin`` in a second of processor time, ``workers`` processes at once."""
    command = [sys.executable, "-m", "benchmarks.load", str(seconds)]
    running = [
        subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True)
        for _ in range(workers)
    ]
    return statistics.mean(float(process.communicate()[0]) for process in running)


@contextmanager
def hogs(count: int | None = None) -> Iterator[None]:
    """Strangers that never rest, one for each processor by default, during the ``with`` block."""
    number = len(os.sched_getaffinity(0)) if count is None else count
    command = [sys.executable, "-S", "-c", HOG, str(os.getpid())]
    running = [subprocess.Popen(command) for _ in range(number)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def _measured(seconds: float) -> float:
    rates = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        begin = time.thread_time()
        spin(STRETCH)
        rates.append(STRETCH / (time.thread_time() - begin))
    return statistics.median(rates)


if __name__ == "__main__":
    print(_measured(float(sys.argv[1])))
