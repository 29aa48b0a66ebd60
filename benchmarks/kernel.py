"""``kernel``: how many tasks that do nothing are submitted and awaited in a second.

In batches of 1,000: all are submitted, then all results are fetched, as a program does that fans
out. The thread pools, ours and the peer's, have one worker for each CPU.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import Literal

from benchmarks.measure import Bench, Effort, Figure, Trial, compare

__all__ = ["benches"]

BATCH = 1000
BATCHES = 50
WORKERS = os.cpu_count() or 1


def benches() -> list[Bench]:
    """The benches of this module."""
    return [
        Bench("kernel.inline_noop", partial(_noop, "inline", ("threadpool", "asyncio"))),
        Bench("kernel.thread_noop", partial(_noop, "thread", ("threadpool",))),
    ]


def _nothing() -> None:
    pass


async def _nothing_async() -> None:
    pass


def _noop(
    placement: Literal["inline", "thread"], peers: tuple[str, ...], effort: Effort
) -> Iterable[Figure]:
    from microkernel import Kernel, KernelSettings

    batches = effort.of(BATCHES)
    with ExitStack() as opened:
        kernel = opened.enter_context(Kernel(KernelSettings(placement=placement, threads=WORKERS)))
        pool = opened.enter_context(ThreadPoolExecutor(WORKERS))
        loop = opened.enter_context(asyncio.Runner())

        def on_kernel() -> None:
            kernel.get([kernel.submit(_nothing) for _ in range(BATCH)])

        def on_pool() -> None:
            for future in [pool.submit(_nothing) for _ in range(BATCH)]:
                future.result()

        async def on_loop() -> None:
            for _ in range(batches):
                await asyncio.gather(*[asyncio.create_task(_nothing_async()) for _ in range(BATCH)])

        rates: dict[str, Trial] = {
            "threadpool": lambda: _per_second(on_pool, batches),
            "asyncio": lambda: _per_second(lambda: loop.run(on_loop()), 1, batches * BATCH),
        }
        on_kernel()
        on_pool()
        return compare(
            f"kernel.{placement}_noop",
            ours=lambda: _per_second(on_kernel, batches),
            peers={peer: rates[peer] for peer in peers},
            unit="/s",
            better="higher",
            effort=effort,
        )


def _per_second(run: Callable[[], object], times: int, tasks: int = BATCH) -> float:
    begin = time.perf_counter()
    for _ in range(times):
        run()
    return times * tasks / (time.perf_counter() - begin)
