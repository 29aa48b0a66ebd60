"""``kill -9``: how soon the right answer is there all the same, and that none is lost."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from benchmarks.kernel.programs import WORKERS, process_kernel, script
from benchmarks.load import dies_once, spin
from benchmarks.measure import Bench, Effort, Figure, Goal, compare
from benchmarks.peers import RAY
from benchmarks.process_tree import children, parent
from benchmarks.scratch import scratch_folder

if TYPE_CHECKING:
    from microkernel import Kernel

__all__ = ["benches"]

CRASHES = 4
RAY_CRASHES = 6
KILLS = 10_000
QUICK_KILLS = 300
IN_FLIGHT = 64
TASK_ITERATIONS = 5_000
MOST_SECONDS_BETWEEN_KILLS = 0.02
TIMEOUT_SECONDS = 600.0
PATIENCE_SECONDS = 30.0
CRASH_RETRIES = 255  # more are not counted: without limit
SEED = 7


def benches() -> list[Bench]:
    """The benches of this module."""
    return [Bench("kernel.crash", _crash), Bench("kernel.crash_lost", _lost)]


def _crash(effort: Effort) -> Iterable[Figure]:
    """The median milliseconds from the death of a worker to the answer of what it was at."""
    with scratch_folder() as folder, process_kernel() as kernel:
        number = 0

        def ours() -> float:
            nonlocal number
            number += 1
            died = kernel.get(kernel.submit(dies_once, str(folder / str(number))))
            return (time.monotonic() - died) * 1e3

        ours()
        scripts = script("ray", RAY, "ray_faults.py", "crash", str(effort.of(RAY_CRASHES)))
        return compare(
            "kernel.crash",
            ours=ours,
            peers=scripts,
            unit="ms",
            better="lower",
            effort=Effort(effort.rounds * CRASHES, effort.scale, effort.turns),
            seldom=scripts,
            goal=Goal(20.0, {"ray": 50}),
        )


def _lost(effort: Effort) -> Iterable[Figure]:
    """Results that never came, and results that came twice, while workers are killed at random."""
    from microkernel import Instrument

    class Ends(Instrument):
        """Counts how often the kernel says that a task has ended."""

        def __init__(self) -> None:
            self.times: Counter[bytes] = Counter()

        def finished(self, ref: Any) -> None:
            self.times[ref.task_id] += 1

    ends = Ends()
    taken: Counter[int] = Counter()
    submitted = 0
    with process_kernel(ends) as kernel:
        killer = _Killer(_workers_parent(kernel), KILLS if effort.scale == 1 else QUICK_KILLS)
        surviving = kernel.options(crash_retries=CRASH_RETRIES)
        left: Any = []
        killer.start()
        while killer.is_alive() or left:
            if killer.is_alive():
                born = range(submitted, submitted + IN_FLIGHT - len(left))
                left = [*left, *[surviving.submit(_square, number) for number in born]]
                submitted = born.stop
            done, left = kernel.wait(left, count=1, timeout=PATIENCE_SECONDS)
            if not done:
                break
            for number, square in kernel.get(done):
                if square == number * number:
                    taken[number] += 1
        killer.join()
    killer.check()
    lost = submitted - len(taken)
    doubled = sum(times > 1 for times in (*taken.values(), *ends.times.values()))
    yield Figure("kernel.crash_lost", float(lost), "", "lower", goal=0.0)
    yield Figure("kernel.crash_duplicated", float(doubled), "", "lower", goal=0.0)


class _Killer(threading.Thread):
    """Kills one of the workers at a time, at random moments."""

    def __init__(self, workers_parent: int, kills: int) -> None:
        super().__init__(daemon=True)
        self.workers_parent = workers_parent
        self.kills = kills
        self.killed = 0
        self.random = random.Random(SEED)

    def run(self) -> None:
        """Until all kills are done, or the time is up."""
        end = time.monotonic() + TIMEOUT_SECONDS
        while self.killed < self.kills and time.monotonic() < end:
            time.sleep(self.random.uniform(0, MOST_SECONDS_BETWEEN_KILLS))
            workers = sorted(children(self.workers_parent))
            if workers:
                with suppress(ProcessLookupError):
                    os.kill(self.random.choice(workers), signal.SIGKILL)
                    self.killed += 1

    def check(self) -> None:
        """Raise ``RuntimeError`` when it did not come to all kills."""
        if self.killed < self.kills:
            raise RuntimeError(f"{self.killed} of {self.kills} kills in {TIMEOUT_SECONDS:.0f} s")


def _workers_parent(kernel: Kernel) -> int:
    """The fork-server: all its children are workers."""
    workers: set[int] = set()
    while len(workers) < WORKERS:
        workers.update(kernel.get([kernel.submit(os.getpid) for _ in range(1000)]))
    parents = {parent(worker) for worker in workers}
    if len(parents) != 1 or parents == {os.getpid()}:
        raise RuntimeError(f"the workers' parents are {parents}, not one fork-server")
    return parents.pop()


def _square(number: int) -> tuple[int, int]:
    spin(TASK_ITERATIONS)
    return number, number * number
