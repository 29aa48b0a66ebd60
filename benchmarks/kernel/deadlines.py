"""Urgent tasks among others, at 90 % load: how many come too late, and how late.

Tasks of 5 ms arrive at random (Poisson) for two workers. One in ten is urgent: it is of use within
two task lengths of its arrival. The same arrivals are run twice: with the deadline and the priority
said to the kernel, and without, which is first in, first out.
"""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.kernel.programs import WORKERS, nothing, process_kernel
from benchmarks.load import spin_until
from benchmarks.measure import OURS, Bench, Effort, Figure, Goal, figures_of

if TYPE_CHECKING:
    from microkernel import Kernel
    from microkernel.engine import Submitter

__all__ = ["benches"]

TASK_SECONDS = 5e-3
DEADLINE_LENGTHS = 2.0
# What a task counts as that was given up at its deadline: late, by nobody knows how much.
GIVEN_UP_LENGTHS = 10.0
LOAD = 0.9
URGENT_SHARE = 0.1
STRETCH_SECONDS = 6.0
STRETCHES = 5
URGENT = 63


def benches() -> list[Bench]:
    """The benches of this module."""
    return [Bench("kernel.deadlines", _deadlines)]


@dataclass(frozen=True)
class Arrival:
    """When a task comes, in seconds from the beginning, and whether it is urgent."""

    moment: float
    urgent: bool


def _deadlines(effort: Effort) -> Iterable[Figure]:
    """The percentage of urgent tasks that missed, and the 99th percentile in task lengths."""
    with process_kernel() as kernel:
        kernel.get([kernel.submit(nothing) for _ in range(1000)])
        told = kernel.options(deadline=DEADLINE_LENGTHS * TASK_SECONDS, priority=URGENT)
        lengths: dict[str, list[float]] = {OURS: [], "fifo": []}
        for stretch in range(STRETCHES):
            arrivals = list(_arrivals(stretch, STRETCH_SECONDS * effort.scale))
            lengths[OURS] += _run(kernel, told, arrivals)
            lengths["fifo"] += _run(kernel, kernel.options(), arrivals)
    yield from figures_of(
        "kernel.deadlines",
        {name: _missed(values) for name, values in lengths.items()},
        unit="%",
        better="lower",
        goal=Goal(times={"fifo": 20}),
    )
    yield from figures_of(
        "kernel.deadlines_p99",
        {name: _p99(values) for name, values in lengths.items()},
        unit="",
        better="lower",
        goal=Goal(DEADLINE_LENGTHS),
    )


def _arrivals(seed: int, seconds: float) -> Iterator[Arrival]:
    draw = random.Random(seed)
    rate = LOAD * WORKERS / TASK_SECONDS
    moment = draw.expovariate(rate)
    while moment < seconds:
        yield Arrival(moment, draw.random() < URGENT_SHARE)
        moment += draw.expovariate(rate)


def _run(kernel: Kernel, urgent: Submitter, arrivals: list[Arrival]) -> list[float]:
    """From arrival to end, in task lengths, of each urgent task."""
    from microkernel import DeadlineMissed

    due: dict[Any, float] = {}
    left: Any = []
    begin = time.monotonic()
    for arrival in arrivals:
        moment = begin + arrival.moment
        while (early := moment - time.monotonic()) > 0:
            if left:
                left = kernel.wait(left, count=1, timeout=early)[1]
            else:
                time.sleep(early)
        ref = (urgent if arrival.urgent else kernel).submit(_task)
        left = [*left, ref]
        if arrival.urgent:
            due[ref] = moment
    kernel.wait(left, count=len(left))

    def lengths(ref: Any) -> float:
        try:
            return float(kernel.get(ref) - due[ref]) / TASK_SECONDS
        except DeadlineMissed:
            return math.inf

    return [lengths(ref) for ref in due]


def _missed(lengths: list[float]) -> float:
    """The percentage that came too late. One that did not happen yet may be the next: no share is
    said to be less than half a task's."""
    late = sum(length > DEADLINE_LENGTHS for length in lengths)
    return 100 * max(late, 0.5) / len(lengths)


def _p99(lengths: list[float]) -> float:
    """The 99th percentile. A task that was given up counts as ``GIVEN_UP_LENGTHS``."""
    told = [min(length, GIVEN_UP_LENGTHS) for length in lengths]
    return statistics.quantiles(told, n=100)[98]


def _task() -> float:
    """Takes its time, and says when it ended; all processes share this clock."""
    spin_until(time.perf_counter() + TASK_SECONDS)
    return time.monotonic()
