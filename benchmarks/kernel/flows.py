"""What an item costs on its way through a flow: an operator, and an edge between workers.

A run's time, from the first batch that comes through to the last, is divided by its items. Source
and sink are part of it: what is stated is more than the operator or the edge alone costs. The
operators are functions that return what they are given.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks.kernel.programs import process_kernel
from benchmarks.measure import Bench, Effort, Figure, Goal, compare

if TYPE_CHECKING:
    from microkernel import Kernel

__all__ = ["benches"]

ITEMS = 200_000
OPERATORS = 10
BATCH = 1024


def benches() -> list[Bench]:
    """The benches of this module."""
    return [Bench("kernel.flow", _operators), Bench("kernel.flow_edge", _edge)]


def _operators(effort: Effort) -> Iterable[Figure]:
    """Nanoseconds an item and fused operator, of ten in a row."""
    from microkernel import Kernel

    count = effort.of(ITEMS)
    with Kernel() as kernel:
        return compare(
            "kernel.flow",
            ours=lambda: _seconds_per_item(kernel, count, OPERATORS, None) / OPERATORS * 1e9,
            peers={},
            unit="ns",
            better="lower",
            effort=effort,
            goal=Goal(100.0),
        )


def _edge(effort: Effort) -> Iterable[Figure]:
    """Microseconds an item from one worker process to another, in batches."""
    count = effort.of(ITEMS)
    with process_kernel() as kernel:
        return compare(
            "kernel.flow_edge",
            ours=lambda: _seconds_per_item(kernel, count, 1, "process") * 1e6,
            peers={},
            unit="us",
            better="lower",
            effort=effort,
            goal=Goal(1.0),
        )


def _seconds_per_item(kernel: Kernel, count: int, operators: int, placement: str | None) -> float:
    """Of a flow from a source through so many operators to one that counts.

    The counting operator is not fused with the others where ``placement`` is given.
    """
    from microkernel.flows import Graph

    graph = Graph()
    apart: dict[str, Any] = {} if placement is None else {"batch": BATCH}
    stream = graph.source(items=partial(range, count), placement=placement)
    for _ in range(operators):
        stream = graph.map(stream, _same, placement=placement)
    graph.output(graph.operator(stream, Count, placement=placement, **apart), "count")
    with kernel.flow(graph) as flow:
        counted, timed, seconds = next(flow.results("count"))
    if counted != count:
        raise RuntimeError(f"{counted} of {count} items have come through")
    each: float = seconds / timed
    return each


def _same(item: int) -> int:
    return item


class Count:
    """How many items have come, how many of them after the first batch, and in how many seconds."""

    def __init__(self) -> None:
        self.items = self.first = 0
        self.begin = 0.0

    def process(self, batch: list[int]) -> None:
        """One more batch."""
        self.items += len(batch)
        if not self.first:
            self.first = len(batch)
            self.begin = time.perf_counter()

    def close(self) -> list[tuple[int, int, float]]:
        """What is handed on when all is through."""
        return [(self.items, self.items - self.first, time.perf_counter() - self.begin)]
