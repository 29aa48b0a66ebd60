"""Streams: items of a generator as they are made, their end, their errors, their replay."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from microkernel import (
    DeadlineMissed,
    Kernel,
    KernelClosed,
    KernelError,
    KernelSettings,
    MemorySink,
    Replaying,
    TaskCancelled,
    boundary,
    events,
)

INLINE = KernelSettings()
ONE_THREAD = KernelSettings(placement="thread", threads=1)
THREADS = KernelSettings(placement="thread", threads=2)

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(params=[INLINE, ONE_THREAD, THREADS], ids=["inline", "one thread", "threads"])
def kernel(request: pytest.FixtureRequest) -> Iterator[Kernel]:
    with Kernel(request.param) as opened:
        yield opened


def wait_until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def count(n: int, made: list[int] | None = None) -> Iterator[int]:
    try:
        for i in range(n):
            if made is not None:
                made.append(i)
            yield i
    finally:
        if made is not None:
            made.append(-1)


def test_items_come_in_order_and_arguments_are_waited_for(kernel: Kernel) -> None:
    assert list(kernel.stream(count, kernel.submit(int, "500"))) == list(range(500))


def test_items_come_one_at_a_time_in_any_window(kernel: Kernel) -> None:
    for window in (1, 2, 3, 1000):
        assert sum(kernel.stream(count, 200, window=window)) == sum(range(200))


def test_the_producer_stops_a_window_ahead_and_holds_up_no_thread() -> None:
    with Kernel(ONE_THREAD) as kernel:
        streams = [kernel.stream(count, 100, window=4) for _ in range(5)]
        # All five stand still, and the one thread is free.
        assert kernel.get(kernel.submit(int, "7")) == 7
        wait_until(lambda: [stream.ahead for stream in streams] == [4] * 5)
        assert [list(stream) for stream in streams] == [list(range(100))] * 5


def test_inline_nothing_is_made_before_it_is_asked_for() -> None:
    made: list[int] = []
    with Kernel() as kernel:
        stream = kernel.stream(count, 10, made)
        assert made == []
        assert next(stream) == 0
        assert made == [0]
        stream.close()
        assert made == [0, -1]
        assert list(stream) == []


def test_closing_or_dropping_a_stream_runs_its_finally_blocks(kernel: Kernel) -> None:
    made: list[int] = []
    with kernel.stream(count, 1000, made) as stream:
        assert next(stream) == 0
    assert made.count(-1) == 1
    stream = kernel.stream(count, 1000, made)
    assert next(stream) == 0
    del stream
    gc.collect()
    wait_until(lambda: made.count(-1) == 2)
    assert len(made) < 200


def test_an_error_comes_after_the_items_before_it(kernel: Kernel) -> None:
    def fail() -> Iterator[int]:
        yield 1
        yield 2
        raise ValueError("the third")

    stream = kernel.stream(fail)
    assert (next(stream), next(stream)) == (1, 2)
    with pytest.raises(ValueError, match="the third"):
        next(stream)
    assert list(stream) == []


def test_the_errors_of_closing_are_raised_by_close(kernel: Kernel) -> None:
    def stubborn() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            raise RuntimeError("could not be closed")

    stream = kernel.stream(stubborn)
    assert next(stream) == 1
    with pytest.raises(RuntimeError, match="could not be closed"):
        stream.close()


def test_what_has_no_items_is_an_error_that_says_so(kernel: Kernel) -> None:
    with pytest.raises(KernelError, match="returned int, which has no items"):
        next(kernel.stream(abs, -1))
    for options in ({"retries": 1}, {"deadline": 1.0, "fallback": 0}):
        with pytest.raises(KernelError, match="retries or a fallback"):
            kernel.options(**options).stream(count, 1)
    with pytest.raises(KernelError, match="a window of 0"):
        kernel.stream(count, 1, window=0)


def test_a_coroutine_takes_items(kernel: Kernel) -> None:
    async def main() -> list[int]:
        both = await asyncio.gather(*(taken(kernel.stream(count, n, window=2)) for n in (30, 40)))
        return [sum(items) for items in both]

    async def taken(stream: Any) -> list[int]:
        return [item async for item in stream]

    assert asyncio.run(main()) == [sum(range(30)), sum(range(40))]


def test_tasks_take_items_from_streams_of_streams(kernel: Kernel) -> None:
    def doubled(depth: int) -> Iterator[int]:
        for item in kernel.stream(doubled, depth - 1, window=2) if depth else count(20):
            yield 2 * item

    assert list(kernel.stream(doubled, 3)) == [8 * 2 * i for i in range(20)]
    assert kernel.get(kernel.submit(lambda: sum(kernel.stream(count, 100, window=3)))) == 4950


def test_a_deadline_and_cancel_end_a_stream_after_what_was_made() -> None:
    gate = threading.Event()

    def slow() -> Iterator[int]:
        yield 1
        gate.wait()
        yield 2

    with Kernel(THREADS) as kernel:
        late = kernel.options(deadline=0.05).stream(slow)
        assert next(late) == 1
        with pytest.raises(DeadlineMissed):
            next(late)
        cancelled = kernel.stream(slow)
        wait_until(lambda: cancelled.ahead == 1)
        assert cancelled.cancel()
        assert next(cancelled) == 1
        with pytest.raises(TaskCancelled):
            next(cancelled)
        gate.set()


def test_a_kernel_that_closes_ends_its_streams(kernel: Kernel) -> None:
    made: list[int] = []
    stream = kernel.stream(count, 1000, made)
    assert next(stream) == 0
    kernel.close()
    assert made[-1] == -1
    with pytest.raises(KernelClosed):
        next(stream)


class TestDecisions:
    @staticmethod
    def inputs(sink: MemorySink, decision: bytes) -> list[tuple[int, bytes]]:
        return [
            (seq, payload)
            for seq, (kind, _, owner, payload) in enumerate(sink.events)
            if kind == events.INPUT and owner == decision
        ]

    @pytest.mark.parametrize("placement", ["inline", "thread"])
    @pytest.mark.parametrize("take", [0, 3, 100])
    def test_a_replay_makes_the_items_that_were_made(self, placement: str, take: int) -> None:
        """In threads some are made that nobody took; what they read is in the record, too."""
        calls = iter(range(10_000))
        sink = MemorySink()
        settings = KernelSettings(placement=placement, threads=2)

        def rows() -> Iterator[int]:
            try:
                for row in range(20):
                    yield boundary.read("table", row, lambda: next(calls))
            finally:
                boundary.read("table", "closed", lambda: next(calls))

        def decide() -> list[int]:
            stream = kernel.stream(rows, window=4)
            taken = [item for _, item in zip(range(take), stream, strict=False)]
            stream.close()
            return taken

        with Kernel(settings, sink=sink) as kernel:
            decision = kernel.decision(decide)
            door = Replaying(self.inputs(sink, decision.id))
            assert kernel.replay(decision.id, door, decide).answer == decision.answer
            assert door.unread() == []
            assert door.extra == []

    def test_a_stream_that_nobody_ends_ends_with_its_decision(self) -> None:
        sink, made = MemorySink(), []
        with Kernel(THREADS, sink=sink) as kernel:

            def decide() -> int:
                return next(kernel.stream(count, 1000, made, window=2))

            decision = kernel.decision(decide)
            assert made[-1] == -1
            door = Replaying(self.inputs(sink, decision.id))
            assert kernel.replay(decision.id, door, decide).answer == 0
            assert door.unread() == []

    def test_a_missed_deadline_is_missed_after_the_same_items(self) -> None:
        sink, gate = MemorySink(), threading.Event()

        def slow() -> Iterator[int]:
            yield 1
            gate.wait()
            yield 2

        with Kernel(THREADS, sink=sink) as kernel:

            def decide() -> list[Any]:
                taken: list[Any] = []
                try:
                    for item in kernel.options(deadline=0.05).stream(slow):
                        taken.append(item)
                except DeadlineMissed:
                    taken.append("late")
                return taken

            decision = kernel.decision(decide)
            assert decision.answer == [1, "late"]
            gate.set()
            door = Replaying(self.inputs(sink, decision.id))
            assert kernel.replay(decision.id, door, decide).answer == [1, "late"]
            assert door.unread() == []
