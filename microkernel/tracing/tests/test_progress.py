"""Progress is shown to whoever watches a terminal, and changes nothing else."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import textwrap

import pytest

from microkernel import Kernel, MemorySink, events
from microkernel.tracing.progress import shown_progress, total_of

pytestmark = pytest.mark.timeout(60)


def test_results_are_the_same_and_a_short_job_says_nothing(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with Kernel() as kernel:
        assert list(kernel.map(abs, range(-5, 0), progress=True)) == [5, 4, 3, 2, 1]
        assert list(kernel.options().map(abs, [-1], progress="one")) == [1]
        assert list(kernel.map(abs, range(-5, 0), progress=False)) == [5, 4, 3, 2, 1]
        assert next(iter(kernel.map(abs, iter(range(100)), progress="endless"))) == 0
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


def test_a_long_job_gets_a_line_now_and_then(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("microkernel.tracing.progress.SECONDS_BETWEEN_LINES", 0.0)
    assert list(shown_progress([1, 2], "rows", 2)) == [1, 2]
    lines = capfd.readouterr().err.splitlines()
    assert lines[-1].startswith("rows: 2 of 2, ")


def test_how_many_there_will_be_is_known_without_taking_any() -> None:
    numbers = iter([1, 2, 3])
    assert total_of(range(10), [1, 2]) == 2
    assert total_of(numbers) == 3
    assert list(numbers) == [1, 2, 3]
    assert total_of(x for x in [1]) is None
    assert total_of() is None


def test_the_clock_of_the_progress_is_no_input_of_a_decision() -> None:
    sink = MemorySink()
    with Kernel(sink=sink) as kernel:
        kernel.decision(lambda: list(kernel.map(abs, range(3), progress=True)))
    assert events.INPUT not in {kind for kind, *_ in sink.events}


def on_a_terminal(program: str) -> tuple[int, str]:
    """The exit status of a program, and what it wrote to the terminal it sits at."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "80"},
    )
    os.close(theirs)
    written = b""
    try:
        while chunk := os.read(ours, 4096):
            written += chunk
    except OSError:
        pass  # the other end is closed
    finally:
        os.close(ours)
    return process.wait(30), written.decode()


BAR = """
    import time
    from microkernel import Kernel
    with Kernel() as kernel:
        for n in kernel.map(abs, range(50), progress="halving [bold]"):
            time.sleep(0.005)
            if n == 30:
                {then}
"""


@pytest.mark.parametrize(
    ("then", "status"), [("pass", 0), ("break", 0), ("raise KeyboardInterrupt", -2)]
)
def test_a_terminal_shows_a_bar_that_is_removed_in_the_end(then: str, status: int) -> None:
    ended, written = on_a_terminal(BAR.format(then=then))
    assert ended == status
    assert "halving [bold]" in written
    assert "/50" in written
    erased = "\x1b[2K"
    assert erased in written[written.rindex("/50") :]
    assert written.count("\x1b[?25l") == written.count("\x1b[?25h")
