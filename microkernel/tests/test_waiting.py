"""``wait`` and ``await``: first come first served, at a cost that goes with the completions."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from microkernel import (
    DeadlineMissed,
    Kernel,
    KernelError,
    KernelSettings,
    Pending,
    TaskCancelled,
)

THREADS = KernelSettings(placement="thread", threads=2)


def increment(x: int) -> int:
    return x + 1


def test_the_first_to_end_come_first() -> None:
    gates = [threading.Event() for _ in range(2)]
    with Kernel(THREADS) as kernel:
        refs = [kernel.submit(gate.wait) for gate in gates]
        gates[1].set()
        done, pending = kernel.wait(refs)
        assert done == [refs[1]]
        assert list(pending) == [refs[0]]
        assert refs[0] in pending
        assert refs[1] not in pending
        gates[0].set()
        done, pending = kernel.wait(pending)
        assert done == [refs[0]]
        assert len(pending) == 0
        assert kernel.wait(pending) == ([], pending)


def cost_of(kernel: Kernel, running: int) -> int:
    """The processor time (ns) of 1,000 waits for one, while ``running`` others are not done."""
    gate = threading.Event()
    blocked = kernel.submit(gate.wait)
    inline = kernel.options(placement="inline")
    stuck = [inline.submit(lambda _: None, blocked) for _ in range(running)]
    quick = [kernel.put(i) for i in range(1000)]
    pending: Any = Pending([*stuck, *quick])
    begin = time.thread_time_ns()
    for ref in quick:
        done, pending = kernel.wait(pending)
        assert done == [ref]
    spent = time.thread_time_ns() - begin
    gate.set()
    kernel.wait(pending, running)
    return spent


def test_taking_one_does_not_look_at_the_tasks_that_run() -> None:
    """A pass over 20,000 tasks for each of 1,000 waits would be 20 million steps, hundreds of
    times the work; the factor leaves room for any noise."""
    with Kernel(THREADS) as kernel:
        cost_of(kernel, 10)
        few = min(cost_of(kernel, 10) for _ in range(3))
        many = min(cost_of(kernel, 20_000) for _ in range(3))
    assert many < 20 * few


def test_ten_thousand_are_taken_one_by_one() -> None:
    with Kernel(THREADS) as kernel:
        pending: Any = [kernel.submit(increment, i) for i in range(10_000)]
        results = []
        while pending:
            (done,), pending = kernel.wait(pending)
            results.append(kernel.get(done))
        assert sorted(results) == list(range(1, 10_001))


def test_the_same_reference_twice_is_one_task() -> None:
    with Kernel() as kernel:
        ref = kernel.submit(increment, 1)
        done, pending = kernel.wait([ref, ref], 2)
        assert done == [ref]
        assert len(pending) == 0


def test_time_runs_out_for_the_wait_and_not_for_the_tasks() -> None:
    gate = threading.Event()
    with Kernel(THREADS) as kernel:
        ref = kernel.submit(gate.wait)
        assert kernel.wait([ref], timeout=0.01)[0] == []
        with pytest.raises(TimeoutError):
            kernel.get(ref, timeout=0.01)
        with pytest.raises(TimeoutError):
            kernel.get([ref, kernel.put(1)], timeout=0)
        assert kernel.get(kernel.put(1), timeout=0) == 1
        gate.set()
        assert kernel.get(ref, timeout=float("inf"))


def test_a_wait_runs_inline_tasks_until_enough_have_ended() -> None:
    ran: list[int] = []
    with Kernel() as kernel:
        refs = [kernel.submit(ran.append, i) for i in range(10)]
        done, pending = kernel.wait(refs, 3)
        assert done == refs[:3]
        assert ran == [0, 1, 2]
        assert len(pending) == 7


def test_two_waits_on_one_pending_are_refused() -> None:
    gate = threading.Event()
    with Kernel(THREADS) as kernel:
        pending: Pending[bool] = Pending([kernel.submit(gate.wait)])
        waiting = threading.Thread(target=kernel.wait, args=(pending,))
        waiting.start()

        def wait_until_refused() -> None:
            while True:
                kernel.wait(pending, timeout=0.01)

        with pytest.raises(KernelError, match="two wait for one Pending"):
            wait_until_refused()
        gate.set()
        waiting.join(30)


def test_many_forgotten_waits_leave_nothing_with_a_running_task() -> None:
    gate = threading.Event()
    with Kernel(THREADS) as kernel:
        ref = kernel.submit(gate.wait)
        for _ in range(1000):
            kernel.wait([ref], timeout=0)
        gate.set()
        assert kernel.get(ref)


class TestAwait:
    @pytest.mark.parametrize("settings", [KernelSettings(), THREADS], ids=["inline", "threads"])
    def test_a_coroutine_gets_results_and_errors(self, settings: KernelSettings) -> None:
        def fail() -> None:
            raise ValueError("broken")

        async def main(kernel: Kernel) -> None:
            ref = kernel.submit(increment, 1)
            assert await ref == 2
            assert await ref == 2
            refs = [kernel.submit(increment, i) for i in range(100)]
            assert await asyncio.gather(*refs) == list(range(1, 101))
            with pytest.raises(ValueError, match="broken"):
                await kernel.submit(fail)

        with Kernel(settings) as kernel:
            asyncio.run(main(kernel))

    def test_the_event_loop_goes_on_meanwhile(self) -> None:
        gate = threading.Event()

        async def main(kernel: Kernel) -> Any:
            slow = kernel.submit(gate.wait)
            after = kernel.options(placement="inline").submit(lambda x: (x, "after"), slow)
            asyncio.get_running_loop().call_later(0.01, gate.set)
            return await after

        with Kernel(THREADS) as kernel:
            assert asyncio.run(main(kernel)) == (True, "after")

    def test_a_deadline_passes_while_awaited(self) -> None:
        gate = threading.Event()

        async def main(kernel: Kernel) -> None:
            late = kernel.options(deadline=0.01).submit(gate.wait)
            with pytest.raises(DeadlineMissed):
                await kernel.submit(increment, late)

        with Kernel(THREADS) as kernel:
            asyncio.run(main(kernel))
            gate.set()

    def test_a_cancelled_coroutine_leaves_the_task_alone(self) -> None:
        gate = threading.Event()

        async def main(kernel: Kernel, ref: Any) -> None:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(_await(ref), 0.01)

        async def _await(ref: Any) -> Any:
            return await ref

        with Kernel(THREADS) as kernel:
            ref = kernel.submit(gate.wait)
            asyncio.run(main(kernel, ref))
            gate.set()  # its end finds the event loop closed
            assert kernel.get(ref)

    def test_cancelling_the_task_ends_the_await(self) -> None:
        gate = threading.Event()

        async def main(kernel: Kernel) -> None:
            ref = kernel.submit(gate.wait)
            asyncio.get_running_loop().call_later(0.01, kernel.cancel, ref)
            with pytest.raises(TaskCancelled):
                await ref

        with Kernel(THREADS) as kernel:
            asyncio.run(main(kernel))
            gate.set()
