"""The benches of ``kernel``, in the order in which they are shown."""

from __future__ import annotations

from benchmarks.kernel import (
    actors,
    deadlines,
    faults,
    flows,
    latency,
    memory,
    objects,
    rollouts,
    throughput,
)
from benchmarks.measure import Bench

__all__ = ["benches"]

IDEAS = (throughput, latency, rollouts, memory, actors, objects, faults, deadlines, flows)


def benches() -> list[Bench]:
    """The benches of this package."""
    return [bench for idea in IDEAS for bench in idea.benches()]
