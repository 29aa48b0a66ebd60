"""What may go wrong in a worker, and what the program then sees: a result, or a clear error.

Nothing here may hang, lose a task, run one twice without saying so, or cost more than the task
concerned. The functions are written inside the tests, so that they travel by value and a new worker
need not import this module.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import random
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from microkernel import (
    Kernel,
    KernelError,
    KernelSettings,
    ObjectStoreFull,
    TaskCancelled,
)
from microkernel.errors import WorkerCrashed

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(sys.platform != "linux", reason="worker processes need Linux"),
]

SOON = 20.0  # seconds: what has not happened by then never will


def settings(processes: int = 2, **others: Any) -> KernelSettings:
    return KernelSettings(placement="process", processes=processes, **others)


def healthy(kernel: Kernel) -> bool:
    return kernel.get([kernel.submit(pow, 2, n) for n in range(50)], timeout=SOON) == [
        2**n for n in range(50)
    ]


def counted(path: Path, cells: int) -> Callable[[int], int]:
    """A function that counts its calls by argument, in a file that outlives every worker."""
    path.write_bytes(bytes(cells))
    name = str(path)

    def run(cell: int) -> int:
        with open(name, "r+b") as file, mmap.mmap(file.fileno(), 0) as runs:
            runs[cell] += 1
        until = time.perf_counter() + random.random() * 2e-4
        while time.perf_counter() < until:
            pass
        return cell * 3

    return run


def drain_and_kill(
    kernel: Kernel, refs: list[Any], every: int, workers: Callable[[], list[int]]
) -> int:
    """Wait for all, killing a worker after every so many results; returns how many were killed."""
    seeded = random.Random(len(refs))
    kills = done = 0
    pending: Any = refs
    while pending:
        ended, pending = kernel.wait(pending, timeout=SOON)
        assert ended, f"nothing ends any more: {len(pending)} of {len(refs)} are left"
        before, done = done, done + len(ended)
        if before // every != done // every and (alive := workers()):
            with contextlib.suppress(ProcessLookupError):  # the one before may be dying
                os.kill(seeded.choice(alive), signal.SIGKILL)
            kills += 1
    return kills


# ---- Workers killed at random ----


def killed_at_random(
    tasks: int, every: int, folder: Path, workers: Callable[[], list[int]], caplog: Any
) -> None:
    run = counted(folder / "runs", tasks)
    with caplog.at_level(logging.WARNING, "microkernel"), Kernel(settings()) as kernel:
        refs = [kernel.submit(run, i) for i in range(tasks)]
        kills = drain_and_kill(kernel, refs, every, workers)
        assert kills >= tasks // every // 2
        assert kernel.get(refs, timeout=SOON) == [3 * i for i in range(tasks)]
    runs = (folder / "runs").read_bytes()
    assert min(runs) >= 1
    again = sum(runs) - tasks
    said = [record for record in caplog.records if "died; attempt" in record.getMessage()]
    assert again <= len(said) <= kills


def test_workers_killed_at_random_lose_no_task(
    tmp_path: Path, workers: Callable[[], list[int]], caplog: pytest.LogCaptureFixture
) -> None:
    killed_at_random(4000, 200, tmp_path, workers, caplog)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_workers_killed_at_random_lose_none_of_100_000_tasks(
    tmp_path: Path, workers: Callable[[], list[int]], caplog: pytest.LogCaptureFixture
) -> None:
    killed_at_random(100_000, 300, tmp_path, workers, caplog)


def test_a_task_that_must_not_run_twice_does_not(
    tmp_path: Path, workers: Callable[[], list[int]]
) -> None:
    run = counted(tmp_path / "runs", 2000)
    with Kernel(settings()) as kernel:
        once = kernel.options(crash_retries=0)
        refs = [once.submit(run, i) for i in range(2000)]
        kills = drain_and_kill(kernel, refs, 100, workers)
        crashed = 0
        for i, ref in enumerate(refs):
            try:
                assert kernel.get(ref) == 3 * i
            except WorkerCrashed:
                crashed += 1
    runs = (tmp_path / "runs").read_bytes()
    assert max(runs) == 1
    assert crashed <= kills
    assert runs.count(0) <= crashed  # claimed, and killed before its first line


def test_a_task_that_kills_its_worker_ends_with_an_error_and_harms_no_other(tmp_path: Path) -> None:
    trace = str(tmp_path / "attempts")

    def poison() -> None:
        with open(trace, "a") as file:
            file.write("x")
        os.kill(os.getpid(), signal.SIGKILL)

    with Kernel(settings()) as kernel:
        poisons = [kernel.submit(poison) for _ in range(4)]  # before anything else has run
        others = [kernel.submit(pow, 3, n) for n in range(200)]
        assert kernel.get(others, timeout=SOON) == [3**n for n in range(200)]
        for ref in poisons:
            with pytest.raises(WorkerCrashed, match="poison") as crash:
                kernel.get(ref, timeout=SOON)
            assert crash.value.remedy
        assert healthy(kernel)
    assert (tmp_path / "attempts").read_text() == "x" * 4 * 4  # once, and three retries each


@pytest.mark.parametrize("end", ["os._exit", "sys.exit", "SystemExit in a thread"])
def test_a_task_that_ends_its_process_does_not_end_the_kernel(end: str) -> None:
    def leave() -> str:
        if end == "os._exit":
            os._exit(0)
        if end == "sys.exit":
            sys.exit("goodbye")
        thread = threading.Thread(target=sys.exit)
        thread.start()
        thread.join()
        return "still here"

    with Kernel(settings(1)) as kernel:
        ref = kernel.options(crash_retries=1).submit(leave)
        if end == "SystemExit in a thread":
            assert kernel.get(ref, timeout=SOON) == "still here"
        else:
            with pytest.raises((WorkerCrashed, SystemExit)):
                kernel.get(ref, timeout=SOON)
        assert healthy(kernel)


def test_nested_tasks_survive_killed_workers(workers: Callable[[], list[int]]) -> None:
    with Kernel(settings(3)) as kernel:

        def fib(n: int) -> int:
            from microkernel import current_kernel

            mine = current_kernel()
            if n < 2:
                return n
            first, second = mine.submit(fib, n - 1), mine.submit(fib, n - 2)
            return mine.get(first) + mine.get(second)

        refs = [kernel.options(crash_retries=50).submit(fib, 8) for _ in range(60)]
        drain_and_kill(kernel, refs, 6, workers)
        assert kernel.get(refs, timeout=SOON) == [21] * 60


def test_the_fork_server_killed(children: Callable[[int], list[int]]) -> None:
    with Kernel(settings(2)) as kernel:
        before = set(children(os.getpid()))
        assert healthy(kernel)
        (server,) = set(children(os.getpid())) - before or before
        os.kill(server, signal.SIGKILL)
        refs = [kernel.submit(pow, 5, n) for n in range(100)]
        with contextlib.suppress(KernelError):
            assert kernel.get(refs, timeout=SOON) == [5**n for n in range(100)]


# ---- Memory ----


def test_a_task_that_asks_for_too_much_memory_gets_memory_error() -> None:
    def greedy() -> int:
        return len(bytearray(1 << 60))

    with Kernel(settings(1)) as kernel:
        worker = kernel.get(kernel.submit(os.getpid), timeout=SOON)
        with pytest.raises(MemoryError):
            kernel.get(kernel.submit(greedy), timeout=SOON)
        assert kernel.get(kernel.submit(os.getpid), timeout=SOON) == worker


def test_a_worker_that_runs_out_of_address_space_says_so_and_lives() -> None:
    def cramped(extra: int) -> int:
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (used + extra, hard))
        try:
            hoard = []
            while True:
                hoard.append(bytearray(1 << 20))
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))

    with Kernel(settings(1)) as kernel:
        worker = kernel.get(kernel.submit(os.getpid), timeout=SOON)
        for _ in range(3):
            with pytest.raises(MemoryError):
                kernel.get(kernel.submit(cramped, 32 << 20), timeout=SOON)
        assert kernel.get(kernel.submit(os.getpid), timeout=SOON) == worker
        assert healthy(kernel)


@pytest.mark.slow  # it waits ten seconds for room
def test_a_full_object_arena_says_so_and_takes_objects_again() -> None:
    with Kernel(settings(1, object_memory=24 << 20)) as kernel:

        def big(n: int) -> Any:
            import numpy

            return numpy.zeros(n, numpy.uint8)

        kept: list[Any] = []  # views of the arena

        def fill() -> None:
            while len(kept) < 20:
                kept.append(kernel.get(kernel.submit(big, 4 << 20), timeout=SOON))

        with pytest.raises(ObjectStoreFull) as full:
            fill()
        assert full.value.remedy
        assert 1 <= len(kept) < 8
        kept.clear()
        assert len(kernel.get(kernel.submit(big, 4 << 20), timeout=SOON)) == 4 << 20
        assert healthy(kernel)


# ---- Tasks that do not return ----


def stubborn(how: str) -> None:
    if how == "python":
        while True:
            pass
    if how == "sleep":
        while True:
            time.sleep(1000)
    if how == "catches":
        while True:
            with contextlib.suppress(BaseException):
                time.sleep(1000)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGURG, signal.SIGTERM, signal.SIGINT})
    while True:
        time.sleep(1000)


@pytest.mark.parametrize("how", ["python", "sleep", "catches", "blocks signals"])
def test_a_task_that_never_returns_is_cancelled_and_its_worker_works_again(
    how: str, tmp_path: Path
) -> None:
    begun = tmp_path / "begun"
    os.mkfifo(begun)
    name, body = str(begun), stubborn.__code__

    def endless() -> None:
        import types

        with open(name, "w"):
            pass
        types.FunctionType(body, {"contextlib": contextlib, "signal": signal, "time": time})(how)

    with Kernel(settings(1, grace=0.2)) as kernel:
        ref = kernel.submit(endless)
        with open(begun):
            pass  # it runs
        waiting = [kernel.submit(pow, 7, n) for n in range(20)]
        assert kernel.cancel(ref)
        with pytest.raises(TaskCancelled):
            kernel.get(ref, timeout=SOON)
        assert kernel.get(waiting, timeout=SOON) == [7**n for n in range(20)]
        assert healthy(kernel)


def test_a_stopped_worker_holds_up_only_what_it_had_begun(
    tmp_path: Path, workers: Callable[[], list[int]]
) -> None:
    begun = tmp_path / "begun"
    os.mkfifo(begun)
    name = str(begun)

    def report() -> int:
        with open(name, "w") as file:
            file.write(str(os.getpid()))
        time.sleep(0.2)
        return os.getpid()

    with Kernel(settings(2)) as kernel:
        held = kernel.submit(report)
        stopped = int(begun.read_text())
        os.kill(stopped, signal.SIGSTOP)
        try:
            refs = [kernel.submit(pow, 2, n) for n in range(500)]
            assert kernel.get(refs, timeout=SOON) == [2**n for n in range(500)]
            assert not held.done
        finally:
            os.kill(stopped, signal.SIGCONT)
        assert kernel.get(held, timeout=SOON) == stopped


def test_closing_does_not_wait_for_a_stopped_worker(
    workers: Callable[[], list[int]], await_end: Callable[[int, float], bool]
) -> None:
    kernel = Kernel(settings(1))
    worker = kernel.get(kernel.submit(os.getpid), timeout=SOON)
    os.kill(worker, signal.SIGSTOP)
    kernel.close()
    assert await_end(worker, SOON)
