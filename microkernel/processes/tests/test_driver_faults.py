"""What may go wrong in the program that owns the kernel: no process, memory or file outlives it."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from microkernel import Kernel, KernelClosed, KernelSettings

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(sys.platform != "linux", reason="worker processes need Linux"),
]

SOON = 20.0

BEGIN = """
import os, signal, sys, threading, time
from microkernel import Kernel, KernelSettings, current_kernel

spill = sys.argv[1]
kernel = Kernel(KernelSettings(
    placement="process", processes=2, object_memory=16 << 20, spill_folder=spill))

def wide(n):
    mine = current_kernel()
    return sum(mine.get([mine.submit(pow, i, 2) for i in range(n)]))

def at_work():
    kept = [kernel.put(bytes(3 << 20)) for _ in range(8)]        # more than there is memory for
    endless = kernel.submit(time.sleep, 1000)
    nested = [kernel.submit(wide, 100) for _ in range(20)]
    return kept, endless, nested

def ready():
    print("ready", flush=True)
"""


class Program:
    """A program with a kernel, in a session of its own."""

    def __init__(self, folder: Path, text: str) -> None:
        self.spill = folder / "spill"
        self.temporary = folder / "tmp"
        self.spill.mkdir()
        self.temporary.mkdir()
        file = folder / "program.py"
        file.write_text(BEGIN + textwrap.dedent(text))
        self.process = subprocess.Popen(
            [sys.executable, str(file), str(self.spill)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=os.environ | {"TMPDIR": str(self.temporary), "PYTHONPATH": os.getcwd()},
        )

    def await_ready(self) -> None:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line == "ready\n", line + self.finish()

    def finish(self) -> str:
        """Wait for the end; what it wrote on standard error."""
        _, errors = self.process.communicate(timeout=SOON)
        return errors


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Callable[[str], Program]]:
    started: list[Program] = []

    def start(text: str) -> Program:
        started.append(Program(tmp_path, text))
        return started[0]

    yield start
    for one in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(one.process.pid, signal.SIGKILL)
        one.process.communicate()


def descendants(pid: int, children: Callable[[int], list[int]]) -> list[int]:
    found = children(pid)
    for child in list(found):
        found += descendants(child, children)
    return found


def shared_memory_of(pid: int) -> list[str]:
    """Processes that map what the kernel of that process shared."""
    holders = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            if f":{pid} " in (folder / "maps").read_text() + " ":
                holders.append(folder.name)
        except OSError:
            continue
    return holders


def nothing_is_left(program: Program, before: set[str]) -> None:
    assert shared_memory_of(program.process.pid) == []
    assert list(program.temporary.iterdir()) == []
    assert set(os.listdir("/dev/shm")) <= before


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_driver_leaves_nothing_behind(
    number: signal.Signals,
    program: Callable[[str], Program],
    children: Callable[[int], list[int]],
    await_end: Callable[[int, float], bool],
) -> None:
    before = set(os.listdir("/dev/shm"))
    running = program(
        """
        refs = at_work()
        kernel.get(refs[2], timeout=20)
        ready()
        kernel.get(refs[1])
        """
    )
    running.await_ready()
    family = descendants(running.process.pid, children)
    assert len(family) >= 3  # the fork server and two workers, one of them in a long task
    os.kill(running.process.pid, number)
    running.finish()
    for pid in family:
        assert await_end(pid, SOON), f"process {pid} outlives its program"
    nothing_is_left(running, before)
    assert list(running.spill.iterdir()) == []


def test_a_driver_killed_while_it_starts_workers_leaves_nothing_behind(
    program: Callable[[str], Program],
    children: Callable[[int], list[int]],
    await_end: Callable[[int, float], bool],
) -> None:
    before = set(os.listdir("/dev/shm"))
    running = program(
        """
        ready()
        refs = [kernel.submit(time.sleep, 0.01) for _ in range(10_000)]
        kernel.get(refs)
        """
    )
    running.await_ready()
    family = descendants(running.process.pid, children)
    os.kill(running.process.pid, signal.SIGKILL)
    running.finish()
    # The fork server may have been in the middle of a fork: it ends those it has made.
    late = [child for pid in family for child in children(pid)]
    for pid in family + late:
        assert await_end(pid, SOON)
    nothing_is_left(running, before)


def test_ctrl_c_ends_a_waiting_program_cleanly(
    program: Callable[[str], Program],
    children: Callable[[int], list[int]],
    await_end: Callable[[int, float], bool],
) -> None:
    running = program(
        """
        try:
            with kernel:
                refs = at_work()
                kernel.get(refs[2], timeout=20)
                ready()
                kernel.get(refs[1])
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            sys.exit(3)
        """
    )
    running.await_ready()
    family = descendants(running.process.pid, children)
    os.killpg(running.process.pid, signal.SIGINT)  # as a terminal does
    errors = running.finish()
    assert running.process.returncode == 3, errors
    assert errors == "interrupted\n"
    for pid in family:
        assert await_end(pid, SOON)


def test_a_program_that_never_closes_its_kernel_ends_all_the_same(
    program: Callable[[str], Program],
    children: Callable[[int], list[int]],
    await_end: Callable[[int, float], bool],
) -> None:
    running = program(
        """
        kernel.get([kernel.submit(pow, 2, 3) for _ in range(10)], timeout=20)
        ready()
        sys.stdin.readline()
        """
    )
    running.await_ready()
    family = descendants(running.process.pid, children)
    assert family
    errors = running.finish()
    assert running.process.returncode == 0, errors
    assert errors == ""
    for pid in family:
        assert await_end(pid, SOON)


def test_a_fork_with_live_threads_harms_neither_side() -> None:
    """The child has the driver's memory, but none of its threads, and is not the driver."""
    with Kernel(KernelSettings(placement="process", processes=2)) as kernel:
        stop = threading.Event()
        served = []

        def serve() -> None:
            while not stop.is_set():
                served.append(kernel.get(kernel.submit(pow, 2, 10), timeout=SOON))

        threads = [threading.Thread(target=serve) for _ in range(3)]
        for thread in threads:
            thread.start()
        held = kernel.get(kernel.submit(bytearray, 1 << 20), timeout=SOON)
        for _ in range(5):
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    kernel.submit(pow, 2, 3)
                except KernelClosed:
                    with contextlib.suppress(KernelClosed):
                        kernel.close()
                    del kernel, held
                    status = 0
                finally:
                    os._exit(status)
            _, status = os.waitpid(child, 0)
            assert os.waitstatus_to_exitcode(status) == 0
            assert kernel.get(kernel.submit(pow, 2, 5), timeout=SOON) == 32
        stop.set()
        for thread in threads:
            thread.join(SOON)
            assert not thread.is_alive()
        assert set(served) == {1024}
        assert held == bytes(1 << 20)


def test_what_a_forked_child_drops_stays_with_its_parent() -> None:
    numpy = pytest.importorskip("numpy")
    settings = KernelSettings(placement="process", processes=1, object_memory=16 << 20)
    with Kernel(settings) as kernel:
        view = kernel.get(kernel.submit(numpy.full, 4 << 20, 7, numpy.uint8), timeout=SOON)
        child = os.fork()
        if child == 0:
            del view
            os._exit(0)
        os.waitpid(child, 0)
        others = [
            kernel.get(kernel.submit(numpy.full, 2 << 20, n, numpy.uint8), timeout=SOON)
            for n in range(3)
        ]
        assert (view == 7).all()
        assert [int(other[0]) for other in others] == [0, 1, 2]


def test_many_kernels_open_and_close_without_leaving_anything(
    children: Callable[[int], list[int]],
) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    for warm_up in range(2):
        with Kernel(KernelSettings(placement="process", processes=1)) as kernel:
            assert kernel.get(kernel.submit(pow, 2, warm_up), timeout=SOON) == 2**warm_up
    gc.collect()
    before, threads, processes = descriptors(), threading.active_count(), len(children(os.getpid()))
    for n in range(5):
        with Kernel(KernelSettings(placement="process", processes=1)) as kernel:
            assert kernel.get(kernel.submit(pow, 2, n), timeout=SOON) == 2**n
    gc.collect()
    assert descriptors() <= before
    assert threading.active_count() <= threads
    assert len(children(os.getpid())) <= processes
