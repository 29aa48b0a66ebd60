"""How many tasks that do nothing run in a second, and what each costs.

In batches of 1,000: all are submitted, then all results are fetched, as a program does that fans
out. The thread pools, ours and the peer's, have one worker for each CPU.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from multiprocessing import get_context
from typing import Any, Literal

from benchmarks.kernel.programs import (
    BATCH,
    WORKERS,
    nothing,
    per_second,
    process_kernel,
    script,
)
from benchmarks.measure import Bench, Effort, Figure, Goal, Trial, compare
from benchmarks.peers import DASK, LOKY, RAY
from benchmarks.process_tree import cpu_seconds, tree

__all__ = ["benches"]

BATCHES = 50
PROCESS_BATCHES = 100
POOL_BATCHES = 5
CPU_BATCHES = 2000
RAY_BATCHES = 5
CHAIN = 20_000
RECORDS = 200_000
THREADS = os.cpu_count() or 1


def benches() -> list[Bench]:
    """The benches of this module."""
    return [
        Bench("kernel.inline_noop", partial(_noop, "inline", ("threadpool", "asyncio"))),
        Bench("kernel.thread_noop", partial(_noop, "thread", ("threadpool",))),
        Bench("kernel.chain", _chain),
        Bench("kernel.process_noop", _process_noop),
        Bench("kernel.cpu_per_task", _cpu_per_task),
        Bench("kernel.record", _record),
    ]


async def _nothing_async() -> None:
    pass


def _noop(
    placement: Literal["inline", "thread"], peers: tuple[str, ...], effort: Effort
) -> Iterable[Figure]:
    from microkernel import Kernel, KernelSettings

    batches = effort.of(BATCHES)
    with ExitStack() as opened:
        kernel = opened.enter_context(Kernel(KernelSettings(placement=placement, threads=THREADS)))
        pool = opened.enter_context(ThreadPoolExecutor(THREADS))
        loop = opened.enter_context(asyncio.Runner())

        def on_kernel() -> None:
            kernel.get([kernel.submit(nothing) for _ in range(BATCH)])

        async def on_loop() -> None:
            for _ in range(batches):
                await asyncio.gather(*[asyncio.create_task(_nothing_async()) for _ in range(BATCH)])

        rates: dict[str, Trial] = {
            "threadpool": lambda: per_second(partial(_on_executor, pool), batches),
            "asyncio": lambda: per_second(lambda: loop.run(on_loop()), 1, batches * BATCH),
        }
        on_kernel()
        _on_executor(pool)
        return compare(
            f"kernel.{placement}_noop",
            ours=lambda: per_second(on_kernel, batches),
            peers={peer: rates[peer] for peer in peers},
            unit="/s",
            better="higher",
            effort=effort,
            goal=Goal(3e6, {"asyncio": 8, "threadpool": 12}) if placement == "inline" else None,
        )


def _chain(effort: Effort) -> Iterable[Figure]:
    """Tasks a second of which each takes the result of the one before it."""
    from microkernel import Kernel

    length = effort.of(CHAIN)
    with ExitStack() as opened:
        kernel = opened.enter_context(Kernel())
        pool = opened.enter_context(ThreadPoolExecutor(THREADS))
        loop = opened.enter_context(asyncio.Runner())

        def on_kernel() -> int:
            last: Any = 0
            for _ in range(length):
                last = kernel.submit(_increment, last)
            return int(kernel.get(last))

        def on_pool() -> int:
            last: Future[int] = pool.submit(int)
            for _ in range(length):
                last = pool.submit(_increment_future, last)
            return last.result()

        async def on_loop() -> int:
            last = asyncio.create_task(_zero())
            for _ in range(length):
                last = asyncio.create_task(_increment_awaited(last))
            return await last

        def rate(run: Callable[[], int]) -> float:
            begin = time.perf_counter()
            if run() != length:
                raise RuntimeError("the chain has lost a task")
            return length / (time.perf_counter() - begin)

        return compare(
            "kernel.chain",
            ours=partial(rate, on_kernel),
            peers={
                "asyncio": lambda: rate(lambda: loop.run(on_loop())),
                "threadpool": partial(rate, on_pool),
            },
            unit="/s",
            better="higher",
            effort=effort,
            goal=Goal(2e6, {"asyncio": 8, "threadpool": 12}),
        )


def _increment(value: int) -> int:
    return value + 1


def _increment_future(value: Future[int]) -> int:
    return value.result() + 1


async def _zero() -> int:
    return 0


async def _increment_awaited(value: asyncio.Task[int]) -> int:
    return await value + 1


def _process_noop(effort: Effort) -> Iterable[Figure]:
    ray_batches = str(effort.of(RAY_BATCHES))
    with ExitStack() as opened:
        # Fork-servers and children of a process without threads: before the kernel has any.
        pool = opened.enter_context(ProcessPoolExecutor(WORKERS, mp_context=get_context("fork")))
        _on_executor(pool)
        fork = opened.enter_context(get_context("fork").Pool(WORKERS))
        kernel = opened.enter_context(process_kernel())

        def on_kernel() -> None:
            kernel.get([kernel.submit(nothing) for _ in range(BATCH)])

        def on_fork() -> None:
            for result in [fork.apply_async(nothing) for _ in range(BATCH)]:
                result.get()

        on_kernel()
        on_fork()
        scripts = (
            script("ray", RAY, "ray_tasks.py", "noop", ray_batches)
            | script("rayactor", RAY, "ray_actors.py", "pool", ray_batches)
            | script("dask", DASK, "dask_tasks.py", "noop", ray_batches)
            | script("loky", LOKY, "loky_tasks.py", "noop", ray_batches)
        )
        batches = effort.of(POOL_BATCHES)
        return compare(
            "kernel.process_noop",
            ours=lambda: per_second(on_kernel, effort.of(PROCESS_BATCHES)),
            peers={
                "processpool": lambda: per_second(partial(_on_executor, pool), batches),
                "multiprocessing": lambda: per_second(on_fork, batches),
                **scripts,
            },
            unit="/s",
            better="higher",
            effort=effort,
            seldom=scripts,
            goal=Goal(1.5e6, {"ray": 500, "rayactor": 150, "processpool": 100, "dask": 1000}),
        )


def _cpu_per_task(effort: Effort) -> Iterable[Figure]:
    batches = effort.of(CPU_BATCHES)
    with process_kernel() as kernel:

        def ours() -> float:
            """Microseconds in all of the kernel's processes, in batches as above."""
            processes = tree()
            begin = cpu_seconds(processes)
            for _ in range(batches):
                kernel.get([kernel.submit(nothing) for _ in range(BATCH)])
            return (cpu_seconds(processes) - begin) / (batches * BATCH) * 1e6

        kernel.get([kernel.submit(nothing) for _ in range(BATCH)])
        scripts = script("ray", RAY, "ray_tasks.py", "cpu", str(effort.of(RAY_BATCHES)))
        return compare(
            "kernel.cpu_per_task",
            ours=ours,
            peers=scripts,
            unit="us",
            better="lower",
            effort=effort,
            seldom=scripts,
            goal=Goal(1.0, {"ray": 300}),
        )


def _record(effort: Effort) -> Iterable[Figure]:
    """Nanoseconds for the id, the lineage and the trace entry of a task."""
    from microkernel.tracing.cost import record_ns

    return compare(
        "kernel.record",
        ours=lambda: record_ns(os.urandom(16), effort.of(RECORDS)),
        peers={},
        unit="ns",
        better="lower",
        effort=effort,
        goal=Goal(25.0),
    )


def _on_executor(executor: Executor) -> None:
    for future in [executor.submit(nothing) for _ in range(BATCH)]:
        future.result()
