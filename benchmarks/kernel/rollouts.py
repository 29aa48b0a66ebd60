"""How short tasks may be: the share of the workers' time that is useful work.

Useful is the time of the tasks' own iterations. The driver runs on the same processors as the two
workers, so whatever the kernel spends is missing there.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import partial
from typing import Any

from benchmarks.granularity import FULL_SPAN, cell, metg
from benchmarks.kernel.programs import WORKERS, process_kernel, script
from benchmarks.load import iterations_per_second, rollout
from benchmarks.measure import Bench, Effort, Figure, Goal, compare
from benchmarks.peers import DASK, RAY
from benchmarks.process_tree import tree

__all__ = ["benches"]

ROLLOUT_SECONDS = 1e-3
ROLLOUTS = 2000
RAY_ROLLOUTS = 1000
IN_FLIGHT = 16
FIRST_TASK_SECONDS = 20e-6
METG_ROUNDS = 7
PEER_SPAN_MILLISECONDS = 600
FIBONACCI = 15
RAY_FIBONACCI = 6


def benches() -> list[Bench]:
    """The benches of this module."""
    return [
        Bench("kernel.metg", _metg),
        Bench("kernel.rollouts_1ms", _rollouts),
        Bench("kernel.nested", _nested),
    ]


def _metg(effort: Effort) -> Iterable[Figure]:
    """METG(50 %) of a stencil with dependencies, in microseconds."""
    span = str(effort.of(PEER_SPAN_MILLISECONDS))
    with process_kernel() as kernel:

        def ours() -> float:
            seconds = metg(
                partial(kernel.submit, cell),
                kernel.get,
                workers=WORKERS,
                first=FIRST_TASK_SECONDS,
                span=FULL_SPAN * effort.scale,
            )
            return seconds * 1e6

        scripts = script("ray", RAY, "ray_tasks.py", "metg", span) | script(
            "dask", DASK, "dask_tasks.py", "metg", span
        )
        return compare(
            "kernel.metg",
            ours=ours,
            peers=scripts,
            unit="us",
            better="lower",
            effort=Effort(min(METG_ROUNDS, effort.rounds), effort.scale),
            seldom=scripts,
            goal=Goal(10.0, {"ray": 100, "dask": 100}),
        )


def _rollouts(effort: Effort) -> Iterable[Figure]:
    """The useful share, in percent, of tasks of 1 ms that are taken and renewed one by one."""
    count = effort.of(ROLLOUTS)
    iterations = round(ROLLOUT_SECONDS * iterations_per_second(WORKERS))
    with process_kernel() as kernel:

        def ours() -> float:
            useful, submitted = 0.0, IN_FLIGHT
            begin = time.perf_counter()
            left: Any = [kernel.submit(rollout, iterations) for _ in range(IN_FLIGHT)]
            while left:
                done, left = kernel.wait(left, count=1)
                useful += kernel.get(done[0])
                if submitted < count:
                    left = [*left, kernel.submit(rollout, iterations)]
                    submitted += 1
            return 100 * useful / (WORKERS * (time.perf_counter() - begin))

        ours()
        scripts = script("ray", RAY, "ray_tasks.py", "rollouts", str(effort.of(RAY_ROLLOUTS)))
        return compare(
            "kernel.rollouts_1ms",
            ours=ours,
            peers=scripts,
            unit="%",
            better="higher",
            effort=effort,
            seldom=scripts,
            goal=Goal(98.0),
        )


def _nested(effort: Effort) -> Iterable[Figure]:
    """Microseconds a task of fib(15), whose tasks wait for their children; for Ray, of fib(6).

    And the processes that are there afterwards and were not before.
    """
    with process_kernel() as kernel:

        def ours() -> float:
            begin = time.perf_counter()
            number, tasks = kernel.get(kernel.submit(_fibonacci, FIBONACCI))
            seconds = time.perf_counter() - begin
            if number != 610:
                raise RuntimeError(f"fib({FIBONACCI}) is {number}")
            return seconds / tasks * 1e6

        kernel.get([kernel.submit(_fibonacci, 5) for _ in range(100)])
        before = len(tree())
        scripts = script("ray", RAY, "ray_tasks.py", "nested", str(RAY_FIBONACCI))
        yield from compare(
            "kernel.nested",
            ours=ours,
            peers=scripts,
            unit="us",
            better="lower",
            effort=effort,
            seldom=scripts,
            goal=Goal(times={"ray": 100}),
        )
        extra = len(tree()) - before
        yield Figure("kernel.nested_processes", float(extra), "", "lower", goal=0.0)


def _fibonacci(n: int) -> tuple[int, int]:
    """The number, and how many tasks it took."""
    from microkernel import current_kernel

    if n < 2:
        return n, 1
    kernel = current_kernel()
    one, other = kernel.submit(_fibonacci, n - 1), kernel.submit(_fibonacci, n - 2)
    (left, tasks), (right, more) = kernel.get([one, other])
    return left + right, tasks + more + 1
