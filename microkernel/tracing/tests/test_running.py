"""Running kernels are found from another process, and gone with their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from microkernel import Kernel, KernelError, KernelSettings
from microkernel.tracing import running_kernels
from microkernel.tracing.trace import STATISTICS_BYTES, read_statistics

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="found through /proc"),
]


@contextmanager
def program(text: str) -> Iterator[subprocess.Popen[str]]:
    """A program that has printed a line and waits for its standard input to end."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(text) + "\nimport sys; sys.stdin.read()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


BUSY = """
    import threading
    from microkernel import Kernel, KernelSettings
    kernel = Kernel(KernelSettings(placement="thread", threads=2))
    kernel.get([kernel.submit(int) for _ in range(100)])
    begun = threading.Event()
    def wait_for_ever():
        begun.set()
        threading.Event().wait()
    refs = [kernel.submit(wait_for_ever)]
    begun.wait()
    inline = Kernel()
    closed = Kernel()
    closed.close()
    print("ready", flush=True)
"""


def test_another_process_sees_the_open_kernels_of_a_program() -> None:
    with program(BUSY) as process:
        busy, idle = running_kernels(process.pid)
        assert (busy.counters.placement, idle.counters.placement) == ("thread", "inline")
        assert (busy.counters.submitted, busy.counters.ended) == (101, 100)
        assert busy.counters.running == 1
        assert [one.running for one in busy.workers if one.running] == ["__main__:wait_for_ever"]
        assert busy.memory[process.pid] > 1 << 20
        assert idle.counters.submitted == 0
        assert process.pid in {one.counters.process for one in running_kernels()}


def test_a_killed_program_leaves_nothing_to_be_found() -> None:
    with program(BUSY) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert process.pid not in {one.counters.process for one in running_kernels()}
    with pytest.raises(KernelError, match="there is no process"):
        running_kernels(process.pid)


def test_the_kernels_of_this_process_are_seen_until_they_are_closed() -> None:
    def ours() -> set[bytes]:
        return {one.counters.run_id for one in running_kernels(os.getpid())}

    with Kernel(KernelSettings(placement="thread"), run_id=os.urandom(16)) as kernel:
        run_id = kernel.counters().run_id
        assert run_id in ours()
    assert run_id not in ours()


@pytest.mark.parametrize(
    "page",
    [
        b"",
        bytes(STATISTICS_BYTES),
        b"srdstat1",
        b"srdstat1" + b"\xff" * (STATISTICS_BYTES - 8),
        b"srdstat2" + bytes(STATISTICS_BYTES - 8),
    ],
)
def test_memory_that_is_no_kernels_is_left_alone(page: bytes) -> None:
    assert read_statistics(page) is None
