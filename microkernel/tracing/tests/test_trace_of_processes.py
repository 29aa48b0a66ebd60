"""The trace of a kernel with worker processes is one, and outlives the workers."""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter

import pytest

from microkernel import Kernel, KernelSettings, current_kernel
from microkernel.tracing import TraceEntry, prometheus_text, running_kernels

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(sys.platform != "linux", reason="worker processes need Linux"),
]


def leaf(n: int) -> int:
    return n


def root(n: int) -> int:
    kernel = current_kernel()
    return sum(kernel.get([kernel.submit(leaf, i) for i in range(n)]))


def root_that_dies_once(path: str) -> int:
    total = root(100)
    if not os.path.exists(path):
        open(path, "x").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return total


def fail() -> None:
    raise ValueError("no")


def named(kernel: Kernel, name: str) -> list[TraceEntry]:
    return [one for one in kernel.trace() if one.name.endswith(f":{name}")]


def test_tasks_and_those_they_submit_have_one_entry_each() -> None:
    with Kernel(KernelSettings(placement="process", processes=2)) as kernel:
        assert kernel.get([kernel.submit(root, 20) for _ in range(10)]) == [190] * 10
        with pytest.raises(ValueError, match="no"):
            kernel.get(kernel.submit(fail))
        counters = kernel.counters()
        entries = list(kernel.trace())
    assert set(Counter(one.task_id for one in entries).values()) == {1}
    parents = {one.task_id: one for one in entries if one.name.endswith(":root")}
    leaves = [one for one in entries if one.name.endswith(":leaf")]
    assert (len(parents), len(leaves), len(entries)) == (10, 200, 211)
    assert {one.place for one in entries} == {"process"}
    assert 0 not in {one.station for one in entries}
    for one in leaves:
        parent = parents[one.parent_id]
        assert parent.started_ns is not None
        assert one.started_ns is not None
        # Theirs are times of the processor's counter, their parent's of CLOCK_MONOTONIC.
        assert parent.started_ns - 1_000_000 <= one.started_ns <= one.ended_ns
        assert one.ended_ns <= parent.ended_ns + 1_000_000
    process = counters.places["process"]
    assert (process.submitted, process.finished, process.failed) == (211, 210, 1)
    assert (process.queued, process.running) == (0, 0)
    assert sum(worker.tasks for worker in counters.workers if worker.station) == 211
    assert counters.objects["capacity"] > 0
    assert "srds_worker_spins_total" in prometheus_text(counters)


def test_what_a_killed_worker_had_run_stays_in_the_trace(tmp_path: os.PathLike[str]) -> None:
    path = os.path.join(tmp_path, "died")
    with Kernel(KernelSettings(placement="process", processes=1)) as kernel:
        assert kernel.get(kernel.submit(root_that_dies_once, path)) == 4950
        kernel.get([kernel.submit(leaf, n) for n in range(10)])
        (survivor,) = named(kernel, "root_that_dies_once")
        leaves = named(kernel, "leaf")
        assert kernel.counters().crashes == 1
    assert survivor.attempt == 1
    # A hundred of each attempt, under the same ids, and ten.
    assert len(leaves) == 210
    times = Counter(one.task_id for one in leaves if one.parent_id == survivor.task_id)
    assert set(times.values()) == {2}
    assert len(times) == 100


def test_workers_are_seen_from_outside_with_their_memory() -> None:
    with Kernel(KernelSettings(placement="process", processes=1)) as kernel:
        kernel.get(kernel.submit(leaf, 1))
        run_id = kernel.counters().run_id
        (found,) = (one for one in running_kernels(os.getpid()) if one.counters.run_id == run_id)
        (worker,) = (one for one in found.workers if one.station)
        assert worker.process != os.getpid()
        assert found.memory[worker.process] > 1 << 20
        # The worker has the memory of this kernel open: it is not taken for its own.
        assert run_id not in {one.counters.run_id for one in running_kernels(worker.process)}


def test_many_blocks_of_many_processes() -> None:
    with Kernel(KernelSettings(placement="process", processes=2)) as kernel:
        kernel.get([kernel.submit(root, 5000) for _ in range(4)])
        assert len({one.task_id for one in named(kernel, "leaf")}) == 20_000
    assert len({one.task_id for one in named(kernel, "leaf")}) == 20_000
