"""Every task leaves one entry, whatever becomes of it, of its process and of the disk."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from microkernel import DeadlineMissed, Kernel, KernelClosed, KernelSettings, TaskCancelled
from microkernel.tracing import TraceEntry

BLOCK = 4095
"""Entries of a block; sixteen blocks stay in memory."""

pytestmark = pytest.mark.timeout(60)


def nothing() -> None:
    pass


def by_name(kernel: Kernel) -> dict[str, list[TraceEntry]]:
    found: dict[str, list[TraceEntry]] = {}
    for entry in kernel.trace():
        found.setdefault(entry.name.rpartition(":")[2].rpartition(".")[2], []).append(entry)
    return found


def test_a_task_leaves_its_id_its_parent_its_place_and_its_times() -> None:
    with Kernel(run_id=bytes(range(16))) as kernel:
        before = time.monotonic_ns()
        ref = kernel.submit(nothing)
        kernel.get(ref)
        after = time.monotonic_ns()
        (entry,) = kernel.trace()
    assert entry.task_id == ref.task_id
    assert entry.parent_id == bytes(range(16))
    assert entry.name == f"{__name__}:nothing"
    assert (entry.kind, entry.place, entry.station, entry.attempt, entry.status) == (
        *("task", "inline", 0, 0, "ok"),
    )
    assert entry.started_ns is not None
    # The processor's counter is turned into nanoseconds by interpolation.
    assert before - 1_000_000 <= entry.started_ns <= entry.ended_ns <= after + 1_000_000


@pytest.mark.parametrize("placement", ["inline", "thread"])
def test_nested_tasks_lie_within_their_parent(placement: str) -> None:
    with Kernel(KernelSettings(placement=placement, threads=2)) as kernel:

        def leaf(x: int) -> int:
            return x

        def root() -> int:
            return sum(kernel.get([kernel.submit(leaf, n) for n in range(5)]))

        assert kernel.get(kernel.submit(root)) == 10
        found = by_name(kernel)
    (parent,) = found["root"]
    assert len(found["leaf"]) == 5
    assert len({leaf.task_id for leaf in found["leaf"]}) == 5
    for entry in found["leaf"]:
        assert entry.parent_id == parent.task_id
        assert entry.started_ns is not None
        assert parent.started_ns is not None
        assert parent.started_ns <= entry.started_ns <= entry.ended_ns <= parent.ended_ns


def test_how_a_task_ended_is_told() -> None:
    def fail() -> None:
        raise ValueError("no")

    def dependent(_: object) -> None:
        raise AssertionError("never runs")

    def queued() -> None:
        raise AssertionError("never runs")

    def late() -> None:
        raise AssertionError("never runs")

    with Kernel() as kernel:
        failing = kernel.submit(fail)
        after = kernel.submit(dependent, failing)
        with pytest.raises(ValueError, match="no"):
            kernel.get(after)
        assert kernel.cancel(kernel.submit(queued))
        missed = kernel.options(deadline=1e-6).submit(late)
        with pytest.raises(DeadlineMissed):
            kernel.get(missed)
        found = by_name(kernel)
    ends = {name: (one.status, one.started_ns is None) for name, (one,) in found.items()}
    assert ends == {
        "fail": ("error", False),
        "dependent": ("error", True),
        "queued": ("cancelled", True),
        "late": ("missed", True),
    }


def test_a_task_that_is_cancelled_while_it_runs_has_one_entry_in_its_own_lane() -> None:
    begun = threading.Event()

    def endless() -> None:
        begun.set()
        while True:
            pass

    with Kernel(KernelSettings(placement="thread", threads=1)) as kernel:
        kernel.get(kernel.submit(nothing))
        ref = kernel.submit(endless)
        assert begun.wait(30)
        assert kernel.cancel(ref)
        with pytest.raises(TaskCancelled):
            kernel.get(ref)
        kernel.get(kernel.submit(nothing))
        found = by_name(kernel)
    (entry,) = found["endless"]
    assert entry.status == "cancelled"
    assert entry.started_ns is not None
    assert {one.lane for one in found["nothing"]} == {entry.lane}


def test_decisions_leave_entries_too() -> None:
    def decide() -> str:
        kernel.get(kernel.submit(nothing))
        return "yes"

    async def decide_later() -> str:
        await asyncio.sleep(0)
        return "later"

    def refuse() -> None:
        raise LookupError

    with Kernel() as kernel:
        decision = kernel.decision(decide)
        asyncio.run(kernel.decision(decide_later))
        with pytest.raises(LookupError):
            kernel.decision(refuse)
        found = by_name(kernel)
    (entry,) = found["decide"]
    assert (entry.task_id, entry.kind, entry.status) == (decision.id, "decision", "ok")
    assert found["nothing"][0].parent_id == decision.id
    assert found["decide_later"][0].kind == "coroutine"
    assert found["decide_later"][0].started_ns is not None
    assert found["refuse"][0].status == "error"


@pytest.mark.parametrize("tasks", [BLOCK - 1, BLOCK, BLOCK + 1, 20 * BLOCK + 7])
def test_no_entry_is_left_out_however_many_there_are(tasks: int) -> None:
    with Kernel() as kernel:
        left = tasks
        expected = set()
        while left:
            refs = [kernel.submit(nothing) for _ in range(min(left, 1000))]
            kernel.get(refs)
            expected.update(ref.task_id for ref in refs)
            left -= len(refs)
        assert kernel.counters().trace_lost == 0
    found = Counter(entry.task_id for entry in kernel.trace())
    assert found.keys() == expected
    assert set(found.values()) == {1}


def test_the_trace_is_read_while_tasks_run() -> None:
    stop = threading.Event()
    with Kernel(KernelSettings(placement="thread", threads=2)) as kernel:
        submitted: list[bytes] = []

        def submit() -> None:
            while not stop.is_set():
                refs = [kernel.submit(nothing) for _ in range(500)]
                kernel.get(refs)
                submitted.extend(ref.task_id for ref in refs)

        thread = threading.Thread(target=submit)
        thread.start()
        try:
            for _ in range(10):
                ended = len(submitted)
                seen = Counter(entry.task_id for entry in kernel.trace())
                assert set(seen.values()) <= {1}
                assert seen.keys() >= set(submitted[:ended])
        finally:
            stop.set()
            thread.join()
    assert sum(1 for _ in kernel.trace()) == len(submitted)


def test_names_and_lanes_beyond_the_small_tables() -> None:
    with Kernel() as kernel:
        functions = {}
        for n in range(600):
            exec(f"def named_{n}(): pass", functions)
            kernel.get(kernel.submit(functions[f"named_{n}"]))

        def one() -> None:
            kernel.get(kernel.submit(nothing))

        for _ in range(5):
            threads = [threading.Thread(target=one) for _ in range(40)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        names = Counter(entry.name.rpartition(":")[2] for entry in kernel.trace())
    assert all(names[f"named_{n}"] == 1 for n in range(600))
    assert names["nothing"] == 200


def test_a_forked_child_leaves_its_parents_trace_alone() -> None:
    with Kernel() as kernel:
        kernel.get(kernel.submit(nothing))
        queued = [kernel.submit(nothing) for _ in range(5)]
        child = os.fork()
        if child == 0:
            status = 1
            try:
                kernel.cancel(queued[0])
                kernel.close()
                kernel.counters()
            except KernelClosed:
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        assert [entry.status for entry in kernel.trace()] == ["ok"]
        kernel.get(queued)
        assert [entry.status for entry in kernel.trace()] == ["ok"] * 6


def test_what_the_disk_refuses_is_counted_and_no_task_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    with Kernel() as kernel, caplog.at_level(logging.WARNING, "microkernel"):
        folder.rmdir()
        for _ in range(5 * BLOCK // 1000):
            kernel.get([kernel.submit(nothing) for _ in range(1000)])
    lost = kernel.counters().trace_lost
    assert lost > 0
    assert lost % BLOCK == 0
    assert sum(1 for _ in kernel.trace()) + lost == 5 * BLOCK // 1000 * 1000
    assert "No such file" in caplog.text


def run(program: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_file_that_may_not_grow_costs_entries_and_no_task() -> None:
    out = run("""
        import resource
        from microkernel import Kernel
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        with Kernel() as kernel:
            for _ in range(100):
                kernel.get([kernel.submit(int) for _ in range(1000)])
        lost = kernel.counters().trace_lost
        print(lost > 0, sum(1 for _ in kernel.trace()) + lost)
    """)
    assert out.split() == ["True", "100000"]


def test_a_kernel_that_is_never_closed_ends_with_its_process(tmp_path: Path) -> None:
    out = run(
        """
        from microkernel import Kernel
        kernel = Kernel()
        for _ in range(10):
            kernel.get([kernel.submit(int) for _ in range(1000)])
        print("ended")
        """,
        TMPDIR=str(tmp_path),
    )
    assert out == "ended\n"
    assert list(tmp_path.iterdir()) == []
