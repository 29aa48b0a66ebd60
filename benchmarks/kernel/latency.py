"""How soon an answer is there: of one task, of many one by one, of a kernel that starts."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.kernel.programs import nothing, process_kernel, script
from benchmarks.load import hogs
from benchmarks.measure import Bench, Effort, Figure, Goal, compare
from benchmarks.peers import RAY

__all__ = ["benches"]

CALLS = 5000
BUSY_CALLS = 1000
RAY_CALLS = 300
TAKEN = 10_000
START_TIMEOUT_SECONDS = 60.0
PROJECT = Path(__file__).parents[2]

# A program of its own: what it imports, nobody has imported before.
FIRST_TASK = """
import time
begin = time.perf_counter()
from microkernel import Kernel, KernelSettings
with Kernel(KernelSettings(placement="process")) as kernel:
    kernel.get(kernel.submit(int))
    seconds = time.perf_counter() - begin
print(seconds * 1e3)
"""


def benches() -> list[Bench]:
    """The benches of this module."""
    return [
        Bench("kernel.roundtrip", partial(_roundtrip, "roundtrip", 300.0, False)),
        Bench("kernel.roundtrip_busy", partial(_roundtrip, "roundtrip_busy", 100.0, True)),
        Bench("kernel.wait_10k", _wait),
        Bench("kernel.start", _start),
    ]


def _roundtrip(quantity: str, times: float, busy: bool, effort: Effort) -> Iterable[Figure]:
    """The median microseconds of a call and its result, one after the other."""
    calls = effort.of(BUSY_CALLS if busy else CALLS)
    with process_kernel() as kernel:

        def ours() -> float:
            seconds = []
            with ExitStack() as strangers:
                if busy:
                    strangers.enter_context(hogs())
                for _ in range(calls):
                    begin = time.perf_counter()
                    kernel.get(kernel.submit(nothing))
                    seconds.append(time.perf_counter() - begin)
            return statistics.median(seconds) * 1e6

        ours()
        scripts = script("ray", RAY, "ray_tasks.py", quantity, str(effort.of(RAY_CALLS)))
        return compare(
            f"kernel.{quantity}",
            ours=ours,
            peers=scripts,
            unit="us",
            better="lower",
            effort=effort,
            seldom=scripts,
            goal=Goal(times={"ray": times}),
        )


def _wait(effort: Effort) -> Iterable[Figure]:
    """Seconds to take the results of 10,000 tasks one by one, in the order in which they end."""
    count = effort.of(TAKEN)
    with process_kernel() as kernel:

        def ours() -> float:
            pending: Any = [kernel.submit(nothing) for _ in range(count)]
            taken = 0
            begin = time.perf_counter()
            while pending:
                done, pending = kernel.wait(pending, count=1)
                kernel.get(done)
                taken += len(done)
            seconds = time.perf_counter() - begin
            if taken != count:
                raise RuntimeError(f"{taken} results of {count} tasks")
            return seconds

        ours()
        scripts = script("ray", RAY, "ray_tasks.py", "wait", str(count))
        return compare(
            "kernel.wait_10k",
            ours=ours,
            peers=scripts,
            unit="s",
            better="lower",
            effort=effort,
            seldom=scripts,
            turns=1,
            goal=Goal(0.2, {"ray": 30}),
        )


def _start(effort: Effort) -> Iterable[Figure]:
    """Milliseconds from the import to the first task's result, in a fresh process."""

    def ours() -> float:
        finished = subprocess.run(
            [sys.executable, "-c", FIRST_TASK],
            cwd=PROJECT,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            timeout=START_TIMEOUT_SECONDS,
        )
        return float(finished.stdout)

    ours()
    scripts = script("ray", RAY, "ray_start.py")
    return compare(
        "kernel.start",
        ours=ours,
        peers=scripts,
        unit="ms",
        better="lower",
        effort=effort,
        seldom=scripts,
        goal=Goal(150.0, {"ray": 25}),
    )
