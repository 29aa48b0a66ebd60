"""``srds top`` shows the kernels that run."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator

import pytest

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="found through /proc"),
]

PROGRAM = """
    import sys, threading
    from microkernel import Kernel, KernelSettings
    sys.argv[0] = "rollouts\\x1b[31m.py"
    kernel = Kernel(KernelSettings(placement="thread", threads=1))
    begun = threading.Event()
    def play():
        begun.set()
        threading.Event().wait()
    refs = [kernel.submit(play), kernel.submit(play)]
    begun.wait()
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def running() -> Iterator[int]:
    """The process of a program that runs one task and has another queued."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PROGRAM)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    yield process.pid
    process.kill()
    process.communicate()


def top(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "srds", "top", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_it_shows_workers_queues_and_memory(running: int) -> None:
    done = top("--once", "--pid", str(running))
    assert done.returncode == 0, done.stderr
    heading, columns, worker = done.stdout.splitlines()
    assert "0 of 2 tasks, 1 running, 1 queued, " in heading
    assert "MiB" in heading
    assert columns.split() == ["worker", "process", "tasks", "busy", "memory", "running", "for"]
    assert worker.split()[:2] == ["srds-worker-0", str(running)]
    assert "__main__:play" in worker


def test_no_program_can_paint_on_the_terminal_of_who_looks(running: int) -> None:
    out = top("--once", "--pid", str(running)).stdout
    assert "\x1b" not in out
    assert r"rollouts\x1b[31m.py" in out


def test_the_same_as_json(running: int) -> None:
    (kernel,) = json.loads(top("--json", "--pid", str(running)).stdout)["kernels"]
    assert kernel["process"] == running
    assert kernel["places"]["thread"]["running"] == 1
    assert kernel["places"]["thread"]["queued"] == 1
    (worker,) = kernel["workers"]
    assert worker["running"] == "__main__:play"
    assert kernel["memory"][str(running)] > 0


def test_all_kernels_are_shown_without_a_process(running: int) -> None:
    kernels = json.loads(top("--json").stdout)["kernels"]
    assert running in {kernel["process"] for kernel in kernels}


def test_a_process_without_kernels_and_one_that_is_none() -> None:
    assert top("--once", "--pid", str(os.getpid())).stdout == "no running kernels\n"
    done = top("--pid", "999999999")
    assert done.returncode == 1
    assert "there is no process 999999999" in done.stderr


def test_a_terminal_is_followed_until_ctrl_c_and_left_as_it_was(running: int) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "srds", "top", "--pid", str(running), "--interval", "0.1"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "24"},
    )
    os.close(theirs)
    written = b""
    try:
        while written.count(b"__main__:play") < 2:
            written += os.read(ours, 4096)
        process.send_signal(signal.SIGINT)
        while chunk := os.read(ours, 4096):
            written += chunk
    except OSError:
        pass  # the other end is closed
    finally:
        os.close(ours)
    assert process.wait(30) == 0
    assert written.endswith(b"\x1b[?1049l")
    assert written.count(b"\x1b[?25l") == written.count(b"\x1b[?25h")
