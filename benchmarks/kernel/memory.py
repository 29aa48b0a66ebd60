"""What tasks and workers occupy that only wait, and how long a million of them takes."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.kernel.programs import WORKERS, nothing, process_kernel
from benchmarks.measure import OURS, Bench, Effort, Figure, Goal, compare, interleaved
from benchmarks.process_tree import memory_bytes, private_bytes, tree
from benchmarks.scratch import scratch_folder

if TYPE_CHECKING:
    from microkernel import Kernel

__all__ = ["benches"]

QUEUED = 1_000_000
PENDING = 200_000
QUEUE_ROUNDS = 5
MEMORY_ROUNDS = 3
MEGABYTE = 1e6


def benches() -> list[Bench]:
    """The benches of this module."""
    return [
        Bench("kernel.queue_1M", _queue),
        Bench("kernel.queue_bytes", _queue_bytes),
        Bench("kernel.start_memory", _start_memory),
    ]


def _queue(effort: Effort) -> Iterable[Figure]:
    """Seconds to submit a million tasks while the workers are held up, and then to fetch them."""
    with process_kernel() as kernel:

        def ours() -> float:
            with _held(kernel) as release:
                begin = time.perf_counter()
                refs = [kernel.submit(nothing) for _ in range(QUEUED)]
                release()
                kernel.get(refs)
                return time.perf_counter() - begin

        rounds = min(QUEUE_ROUNDS, effort.rounds) if effort.scale == 1 else 1
        seconds = interleaved({OURS: ours}, rounds)[OURS]
    yield Figure("kernel.queue_1M", seconds, "s", "lower", goal=3.0)


def _queue_bytes(effort: Effort) -> Iterable[Figure]:
    """Bytes a task that waits for a worker, in all processes, its reference included."""
    count = effort.of(PENDING)

    def ours() -> float:
        with process_kernel() as kernel:
            kernel.get([kernel.submit(nothing) for _ in range(1000)])
            refs: list[Any] = [None] * count
            with _held(kernel) as release:
                before = _occupied()
                for index in range(count):
                    refs[index] = kernel.submit(nothing)
                added = _occupied() - before
                release()
                kernel.get(refs)
        return added / count

    size = interleaved({OURS: ours}, MEMORY_ROUNDS)[OURS]
    yield Figure("kernel.queue_bytes", size, "B", "lower", goal=256.0)


def _start_memory(effort: Effort) -> Iterable[Figure]:
    """The private megabytes of the largest worker that has run tasks and rests."""

    def ours() -> float:
        with process_kernel() as kernel:
            workers = {kernel.get(kernel.submit(os.getpid))}
            while len(workers) < WORKERS:
                workers.update(kernel.get([kernel.submit(os.getpid) for _ in range(1000)]))
            return max(map(private_bytes, workers)) / MEGABYTE

    return compare(
        "kernel.start_memory",
        ours=ours,
        peers={},
        unit="MB",
        better="lower",
        effort=Effort(MEMORY_ROUNDS, effort.scale),
        goal=Goal(15.0),
    )


@contextmanager
def _held(kernel: Kernel) -> Iterator[Any]:
    """Every worker is in the middle of a task until what is yielded is called, or at the end."""
    with scratch_folder() as folder:
        gates = [folder / str(number) for number in range(WORKERS)]
        for gate in gates:
            os.mkfifo(gate)
        refs = [kernel.submit(_until_opened, str(gate)) for gate in gates]
        # Opening a pipe for writing takes until a task has opened it for reading.
        pipes = [os.open(gate, os.O_WRONLY) for gate in gates]

        def release() -> None:
            while pipes:
                os.close(pipes.pop())

        try:
            yield release
        finally:
            release()
            kernel.get(refs)


def _until_opened(gate: str) -> None:
    Path(gate).read_bytes()


def _occupied() -> int:
    gc.collect()
    return memory_bytes(tree())
