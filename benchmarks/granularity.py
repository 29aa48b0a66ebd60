"""METG(50 %): the shortest task with which a system still does useful work half of the time.

Task Bench's measure (Slaughter et al., SC 2020): the *minimum effective task granularity*. Its
stencil pattern runs in steps; the task of one column and step takes the results of the column and
its two neighbours of the step before. Each system runs the same graph through its own ``submit``.
As in Task Bench, useful is the time that the tasks' iterations take when the workers do nothing
else. The columns are a ring of ``WIDTH``, so that a worker has more than one task to choose from.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from benchmarks.load import iterations_per_second, spin

__all__ = ["FULL_SPAN", "WIDTH", "cell", "metg", "smallest_length", "stencil"]

WIDTH = 16
LEAST_STEPS = 20
MOST_TASKS = 60_000
FULL_SPAN = 0.2
ENOUGH = 0.5

Reference = TypeVar("Reference")


def cell(iterations: int, left: int, own: int, right: int) -> int:
    """A task of the stencil: busy for ``iterations``; returns the number of its step."""
    spin(iterations)
    return max(left, own, right) + 1


def stencil(
    submit: Callable[..., Reference], iterations: int, steps: int, width: int = WIDTH
) -> list[Reference]:
    """Submit the graph; the last step's tasks. ``submit`` is given the arguments of a ``cell``."""
    row: list[Any] = [0] * width
    for _ in range(steps):
        row = [
            submit(iterations, row[column - 1], row[column], row[(column + 1) % width])
            for column in range(width)
        ]
    return row


def metg(
    submit: Callable[..., Reference],
    get: Callable[[list[Reference]], Sequence[int]],
    *,
    workers: int,
    first: float,
    span: float = FULL_SPAN,
) -> float:
    """The METG(50 %) in seconds of a system with ``workers`` workers.

    The search begins at tasks of ``first`` seconds; each graph holds ``span`` seconds of useful
    work for each worker, within bounds on its number of tasks. Raises ``RuntimeError`` when the
    tasks did not get their neighbours' results.
    """
    rate = iterations_per_second(workers)

    def efficiency(length: float) -> float:
        iterations = max(1, round(length * rate))
        tasks = min(MOST_TASKS, workers * span / length)
        steps = max(LEAST_STEPS, round(tasks / WIDTH))
        begin = time.perf_counter()
        results = get(stencil(submit, iterations, steps))
        wall = time.perf_counter() - begin
        if list(results) != [steps] * WIDTH:
            raise RuntimeError(f"the stencil of {steps} steps ended with {results}")
        return WIDTH * steps * iterations / rate / (wall * workers)

    efficiency(first)
    return smallest_length(efficiency, first)


def smallest_length(
    efficiency: Callable[[float], float],
    first: float,
    *,
    shortest: float = 1e-7,
    longest: float = 0.2,
    precision: float = 1.15,
) -> float:
    """The least task length, in seconds, whose ``efficiency`` is a half or more.

    Found by doubling or halving ``first`` until a half lies in between, and bisection of the
    logarithm from there to a factor of ``precision``; at last the crossing between both ends.
    Raises ``RuntimeError`` when even tasks of ``longest`` seconds are not enough.
    """
    length, share = first, efficiency(first)
    too_short = enough = (length, share)
    if share >= ENOUGH:
        while share >= ENOUGH:
            enough = (length, share)
            length /= 2
            if length < shortest:
                return enough[0]
            share = efficiency(length)
        too_short = (length, share)
    else:
        while share < ENOUGH:
            too_short = (length, share)
            length *= 2
            if length > longest:
                raise RuntimeError(f"tasks of {too_short[0]:.3g} s: {share:.1%} of the time useful")
            share = efficiency(length)
        enough = (length, share)
    while enough[0] / too_short[0] > precision:
        length = math.sqrt(enough[0] * too_short[0])
        share = efficiency(length)
        if share >= ENOUGH:
            enough = (length, share)
        else:
            too_short = (length, share)
    part = (ENOUGH - too_short[1]) / (enough[1] - too_short[1])
    return float(too_short[0] * (enough[0] / too_short[0]) ** part)
