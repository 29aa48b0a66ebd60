"""Ray's actors: calls in batches, and one after the other."""

from __future__ import annotations

import ray

from benchmarks.peer_scripts.ray_session import session
from benchmarks.peer_scripts.trials import BATCH, WORKERS, per_second, run


class Nothing:
    """The actor whose calls cost nothing themselves."""

    def call(self) -> None:
        """What is called."""


ACTOR = ray.remote(Nothing)


def pool(batches: int) -> float:
    """Calls a second of as many actors as there are workers, in turns: tasks without scheduling."""
    with session():
        actors = [ACTOR.remote() for _ in range(WORKERS)]
        return per_second(
            lambda: ray.get([actors[n % WORKERS].call.remote() for n in range(BATCH)]), batches
        )


def asynchronous(batches: int) -> float:
    """Calls a second of one actor, in batches."""
    with session():
        actor = ACTOR.remote()
        return per_second(lambda: ray.get([actor.call.remote() for _ in range(BATCH)]), batches)


def synchronous(batches: int) -> float:
    """Calls a second of one actor, each awaited before the next."""
    with session():
        actor = ACTOR.remote()

        def one_by_one() -> None:
            for _ in range(BATCH):
                ray.get(actor.call.remote())

        return per_second(one_by_one, batches)


if __name__ == "__main__":
    run({"async": asynchronous, "pool": pool, "sync": synchronous})
