"""Calls of an actor in a process: in batches, and each awaited before the next."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks.kernel.programs import BATCH, per_second, process_kernel, script
from benchmarks.measure import Bench, Effort, Figure, Goal, compare
from benchmarks.peers import RAY

__all__ = ["benches"]

BATCHES = 50
SYNC_BATCHES = 5
RAY_BATCHES = 5
RAY_SYNC_BATCHES = 2


class Nothing:
    """The actor whose calls cost nothing themselves."""

    def call(self) -> None:
        """What is called."""


def benches() -> list[Bench]:
    """The benches of this module."""
    return [Bench("kernel.actor_async", _async), Bench("kernel.actor_sync", _sync)]


def _async(effort: Effort) -> Iterable[Figure]:
    """Calls a second, in batches of 1,000."""
    with process_kernel() as kernel:
        actor = kernel.spawn(Nothing)

        def batch() -> None:
            kernel.get([actor.call() for _ in range(BATCH)])

        batch()
        scripts = script("ray", RAY, "ray_actors.py", "async", str(effort.of(RAY_BATCHES)))
        return compare(
            "kernel.actor_async",
            ours=lambda: per_second(batch, effort.of(BATCHES)),
            peers=scripts,
            unit="/s",
            better="higher",
            effort=effort,
            seldom=scripts,
            goal=Goal(times={"ray": 50}),
        )


def _sync(effort: Effort) -> Iterable[Figure]:
    """Calls a second, one after the other."""
    with process_kernel() as kernel:
        actor = kernel.spawn(Nothing)

        def one_by_one() -> None:
            for _ in range(BATCH):
                kernel.get(actor.call())

        one_by_one()
        scripts = script("ray", RAY, "ray_actors.py", "sync", str(effort.of(RAY_SYNC_BATCHES)))
        return compare(
            "kernel.actor_sync",
            ours=lambda: per_second(one_by_one, effort.of(SYNC_BATCHES)),
            peers=scripts,
            unit="/s",
            better="higher",
            effort=effort,
            seldom=scripts,
            goal=Goal(times={"ray": 50}),
        )
