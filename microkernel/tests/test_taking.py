"""``as_completed``, and how far ``map`` and ``wait`` are: results taken as they come."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from itertools import count

import pytest

from microkernel import Kernel, KernelError, KernelSettings, MemorySink, Ref, Replaying, events

THREADS = KernelSettings(placement="thread", threads=2)

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(params=[KernelSettings(), THREADS], ids=["inline", "threads"])
def kernel(request: pytest.FixtureRequest) -> Iterator[Kernel]:
    with Kernel(request.param) as opened:
        yield opened


def test_references_come_in_the_order_of_their_ends() -> None:
    gates = [threading.Event() for _ in range(2)]
    with Kernel(THREADS) as kernel:
        refs = [kernel.submit(gate.wait) for gate in gates]
        ended = kernel.as_completed(refs, timeout=60)
        for i in (1, 0):
            gates[i].set()
            assert next(ended) is refs[i]
        assert list(ended) == []


def test_the_time_is_for_all_of_them() -> None:
    gate = threading.Event()
    with Kernel(THREADS) as kernel:
        refs = [kernel.put(1), kernel.submit(gate.wait)]
        ended = kernel.as_completed(refs, timeout=0.02)
        assert next(ended) is refs[0]
        with pytest.raises(TimeoutError, match="1 tasks are not done"):
            next(ended)
        gate.set()


def test_a_coroutine_takes_references_as_they_end(kernel: Kernel) -> None:
    async def main() -> list[int]:
        refs = [kernel.submit(abs, -n) for n in range(50)]
        return [await ref async for ref in kernel.as_completed(refs)]

    assert sorted(asyncio.run(main())) == list(range(50))


def test_a_coroutine_runs_out_of_time() -> None:
    gate = threading.Event()

    async def main(kernel: Kernel) -> None:
        async for _ in kernel.as_completed([kernel.submit(gate.wait)], timeout=0.02):
            pytest.fail("it had not ended")

    with Kernel(THREADS) as kernel:
        with pytest.raises(TimeoutError):
            asyncio.run(main(kernel))
        gate.set()


def test_map_stays_its_window_ahead_and_tells_how_far_it_is(kernel: Kernel) -> None:
    ahead: list[int] = []

    def rows() -> Iterator[int]:
        for n in count():
            ahead.append(n)
            yield n

    results = kernel.map(abs, rows(), window=3)
    assert [next(results) for _ in range(5)] == list(range(5))
    assert len(ahead) <= 5 + 3
    told: list[tuple[int, int | None]] = []
    assert list(kernel.map(abs, [-1, 2], progress=lambda *so_far: told.append(so_far))) == [1, 2]
    assert told == [(1, 2), (2, 2)]
    with pytest.raises(KernelError, match="a window of 0"):
        kernel.map(abs, [1], window=0)


def test_wait_tells_how_far_it_is(kernel: Kernel) -> None:
    told: list[tuple[int, int]] = []
    refs = [kernel.submit(abs, n) for n in range(10)]
    done, pending = kernel.wait(refs, 8, progress=lambda *so_far: told.append(so_far))
    assert len(done) == 8
    assert len(pending) == 2
    assert told[-1] == (8, 8)
    assert [done for done, _ in told] == sorted({done for done, _ in told})


@pytest.mark.parametrize("style", ["function", "coroutine"])
def test_a_replay_takes_them_in_the_recorded_order(style: str) -> None:
    sink = MemorySink()
    with Kernel(THREADS, sink=sink) as kernel:

        def decide() -> list[int]:
            refs = [kernel.submit(abs, -n) for n in range(20)]
            return [kernel.get(ref) for ref in kernel.as_completed(refs)]

        async def decide_async() -> list[int]:
            refs: list[Ref[int]] = [kernel.submit(abs, -n) for n in range(20)]
            return [kernel.get(ref) async for ref in kernel.as_completed(refs)]

        def run(door: Replaying | None = None, decision: bytes = b"") -> tuple[bytes, list[int]]:
            function = decide if style == "function" else decide_async
            made = kernel.decision(function) if door is None else None
            if door is not None:
                made = kernel.replay(decision, door, function)
            if style == "coroutine":
                made = asyncio.run(awaited(made))
            return made.id, made.answer

        async def awaited(decision: object) -> object:
            return await decision  # type: ignore[misc]

        decision, answer = run()
        door = Replaying(
            [
                (seq, payload)
                for seq, (kind, _, owner, payload) in enumerate(sink.events)
                if kind == events.INPUT and owner == decision
            ]
        )
        assert run(door, decision) == (decision, answer)
        assert door.unread() == []
