"""A flow while it runs: back-pressure, cycles, errors, giving up, ids, coroutines, decisions."""

from __future__ import annotations

import asyncio
import random
import threading
import traceback
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from microkernel import (
    Instrument,
    Kernel,
    KernelClosed,
    KernelError,
    KernelSettings,
    MemorySink,
    Ref,
    Replaying,
    TaskCancelled,
    boundary,
    current_task,
    events,
)
from microkernel.errors import FlowEnded, GraphError
from microkernel.flows import Flow, Graph
from microkernel.ids import child_id
from microkernel.random import stream

pytestmark = pytest.mark.timeout(60)

INLINE = KernelSettings()
ONE_THREAD = KernelSettings(placement="thread", threads=1)
THREADS = KernelSettings(placement="thread", threads=2)


@pytest.fixture(params=[INLINE, ONE_THREAD, THREADS], ids=["inline", "one thread", "threads"])
def kernel(request: pytest.FixtureRequest) -> Iterator[Kernel]:
    with Kernel(request.param) as opened:
        yield opened


def feed_and_close(flow: Flow, items: Iterable[Any]) -> None:
    flow.put_many(items, timeout=30)
    flow.close(timeout=30)


def increment(x: int) -> int:
    return x + 1


def invert(x: int) -> float:
    return 1 / x


# Back-pressure


def test_a_slow_consumer_is_felt_at_the_source() -> None:
    gate = threading.Event()

    def wait(x: int) -> int:
        assert gate.wait(30)
        return x

    graph = Graph()
    source = graph.source(capacity=10, batch=1)
    fast = graph.map(source, increment, placement="thread", capacity=10, batch=1)
    graph.map(fast, wait, placement="thread", capacity=10, batch=1)
    with Kernel(THREADS) as kernel:
        flow = kernel.flow(graph)
        with pytest.raises(TimeoutError):
            flow.put_many(range(1000), timeout=0.2)
        # Three channels of ten items, and one item in the hands of each operator.
        taken = flow.position()
        assert 30 <= taken <= 33
        assert max(counters.most_queued for counters in flow.counters()) <= 10
        assert any(counters.stalled for counters in flow.counters())
        gate.set()
        flow.close(timeout=30)
        assert list(flow.results()) == list(range(1, taken + 1))


def test_a_bounded_output_waits_for_its_reader(kernel: Kernel) -> None:
    graph = Graph()
    source = graph.source(capacity=5, batch=5)
    graph.output(graph.map(source, increment, batch=5, capacity=5), "out", capacity=5)
    flow = kernel.flow(graph)
    with pytest.raises(TimeoutError):
        flow.put_many(range(1000), timeout=0.2)
    assert flow.position() <= 25
    reader_got: list[int] = []
    reader = threading.Thread(target=lambda: reader_got.extend(flow.results("out")))
    reader.start()
    flow.put_many(range(flow.position(), 1000), timeout=30)
    flow.close(timeout=30)
    reader.join(30)
    assert reader_got == list(range(1, 1001))


def test_run_feeds_an_endless_input(kernel: Kernel) -> None:
    def endless() -> Iterator[int]:
        n = 0
        while True:
            yield n
            n += 1

    graph = Graph()
    graph.map(graph.source(batch=10), increment)
    flow = kernel.flow(graph)
    results = flow.run(endless())
    assert [next(results) for _ in range(1000)] == list(range(1, 1001))
    assert flow.position() < 10_000
    flow.cancel()


def test_a_task_may_use_a_flow_on_a_kernel_with_one_thread() -> None:
    graph = Graph()
    graph.map(graph.source(capacity=2), increment, capacity=2)

    def task(kernel: Kernel) -> list[int]:
        with kernel.flow(graph) as flow:
            flow.put_many(range(50))
            flow.end()
            return list(flow.results())

    with Kernel(ONE_THREAD) as kernel:
        assert kernel.get(kernel.submit(task, kernel), timeout=30) == list(range(1, 51))


def test_many_threads_may_feed_one_flow(kernel: Kernel) -> None:
    graph = Graph()
    graph.map(graph.source(capacity=7), increment)
    with kernel.flow(graph) as flow:
        feeders = [
            threading.Thread(target=flow.put_many, args=(range(1000 * i, 1000 * i + 1000),))
            for i in range(4)
        ]
        for feeder in feeders:
            feeder.start()
        for feeder in feeders:
            feeder.join(30)
    results = list(flow.results())
    assert sorted(results) == list(range(1, 4001))
    for i in range(4):
        mine = [x for x in results if 1000 * i < x <= 1000 * i + 1000]
        assert mine == sorted(mine)


def test_a_flow_waits_for_itself_in_an_operator_only_with_an_error() -> None:
    graph = Graph()
    numbers = graph.source(capacity=1)
    graph.sink(numbers, lambda x: flow.put_many([x, x], timeout=10))
    with Kernel() as kernel:
        flow = kernel.flow(graph)
        with pytest.raises(KernelError, match="waits for the flow itself"):
            flow.put(1)


# Cycles


def collatz(pair: tuple[int, int]) -> tuple[int, int]:
    n, steps = pair
    return (n // 2 if n % 2 == 0 else 3 * n + 1), steps + 1


def cycle(placement: str | None, capacity: int | None) -> Graph:
    graph = Graph("collatz")
    numbers = graph.source()
    back = graph.feedback()
    begun = graph.map(numbers, lambda n: (n, 0))
    stepped = graph.map(
        graph.merge(begun, back),
        lambda pair: pair if pair[0] == 1 else collatz(pair),
        name="step",
        placement=placement,
        capacity=capacity,
    )
    graph.feed(graph.filter(stepped, lambda pair: pair[0] != 1, name="not yet"), back)
    graph.output(graph.filter(stepped, lambda pair: pair[0] == 1, name="done"), "steps")
    return graph


@pytest.mark.parametrize("capacity", [None, 1, 5])
@pytest.mark.parametrize("placement", ["inline", "thread"])
def test_a_cycle_ends_when_its_items_have_left_it(
    kernel: Kernel, placement: str, capacity: int | None
) -> None:
    def steps(n: int) -> int:
        count = 0
        while n != 1:
            n, count = collatz((n, count))
        return count

    flow = kernel.flow(cycle(placement, capacity))
    flow.put_many(range(1, 200), timeout=30)
    flow.close(timeout=30)
    found = sorted(count for _, count in flow.results("steps"))
    assert found == sorted(steps(n) for n in range(1, 200))


def test_a_cycle_that_multiplies_does_not_block_itself(kernel: Kernel) -> None:
    graph = Graph()
    numbers = graph.source(capacity=3)
    back = graph.feedback()
    merged = graph.merge(numbers, back)
    split = graph.flat_map(
        merged,
        lambda n: [n - 1, n - 1] if n else [],
        placement="thread",
        capacity=2,
        batch=1,
    )
    graph.feed(split, back)
    graph.output(split, "seen")
    flow = kernel.flow(graph)
    flow.put_many([8] * 5, timeout=30)
    flow.close(timeout=30)
    assert len(list(flow.results("seen"))) == 5 * (2**9 - 2)


def test_what_an_operator_emits_into_an_ended_cycle_is_an_error(kernel: Kernel) -> None:
    class Late:
        def process(self, batch: list[int]) -> list[int]:
            return []

        def close(self) -> list[int]:
            return [1]

    graph = Graph()
    back = graph.feedback()
    late = graph.operator(graph.merge(graph.source(), back), Late)
    graph.feed(late, back)
    flow = kernel.flow(graph)
    with pytest.raises(GraphError, match="after the end of its cycle"):
        flow.close(timeout=30)


# Errors


def test_an_error_names_the_operator_and_the_item(kernel: Kernel) -> None:
    graph = Graph("ratios")
    kept = graph.filter(graph.source(), lambda n: n % 2 == 0, name="even")
    graph.map(kept, invert, name="1/n")
    flow = kernel.flow(graph)
    with pytest.raises(ZeroDivisionError) as raised:
        feed_and_close(flow, [-4, -3, -2, -1, 0, 1, 2])
    assert raised.value.__notes__ == ["in operator 1/n of flow ratios, item 2"]
    assert "return 1 / x" in "".join(traceback.format_exception(raised.value))
    assert flow.done
    for use in (lambda: flow.put(1), lambda: flow.close(), lambda: kernel.get(flow.ref)):
        with pytest.raises(ZeroDivisionError):
            use()
    assert len(raised.value.__notes__) == 1


def test_results_before_an_error_can_be_read(kernel: Kernel) -> None:
    graph = Graph()
    graph.map(graph.source(batch=1), invert, batch=1)
    flow = kernel.flow(graph)
    with pytest.raises(ZeroDivisionError):
        feed_and_close(flow, [1, 2, 0])
    results = flow.results()
    assert next(results) == 1.0
    assert next(results) == 0.5
    with pytest.raises(ZeroDivisionError):
        next(results)


@pytest.mark.parametrize("where", ["open", "process", "close", "make", "key", "flat_map"])
def test_wherever_an_operator_fails_the_flow_says_so(kernel: Kernel, where: str) -> None:
    def fail(*anything: object) -> Any:
        raise LookupError(where)

    class Fragile:
        def __init__(self) -> None:
            if where == "make":
                fail()

        def open(self, context: object) -> None:
            if where == "open":
                fail()

        def process(self, batch: list[int]) -> list[int]:
            return fail() if where == "process" else batch

        def close(self) -> None:
            if where == "close":
                fail()

    def lazily(x: int) -> Iterator[int]:
        yield x
        if where == "flat_map":
            fail()

    graph = Graph()
    fragile = graph.operator(graph.source(), Fragile, name="it")
    spread = graph.flat_map(fragile, lazily, name="it too")
    graph.map(spread, increment, key=fail if where == "key" else None, instances=2, name="and it")
    flow = kernel.flow(graph)
    with pytest.raises(LookupError) as raised:
        feed_and_close(flow, range(10))
    assert any("it" in note for note in raised.value.__notes__)


def test_operators_are_closed_once_whichever_way_a_flow_ends(kernel: Kernel) -> None:
    closed: list[str] = []

    class Open:
        def process(self, batch: list[int]) -> list[int]:
            return batch

        def close(self) -> None:
            closed.append("closed")

    graph = Graph()
    graph.map(graph.operator(graph.source(), Open), invert)
    with kernel.flow(graph) as flow:
        flow.put(1)
    assert closed == ["closed"]
    with pytest.raises(ZeroDivisionError), kernel.flow(graph) as flow:
        flow.put(0)
    assert closed == ["closed"] * 2
    flow = kernel.flow(graph)
    flow.put(1)
    list(flow.results()) if flow.done else next(flow.results())
    assert flow.cancel()
    assert closed == ["closed"] * 3


# Giving up


@pytest.mark.parametrize("settings", [ONE_THREAD, THREADS], ids=["one thread", "threads"])
def test_cancel_stops_an_operator_that_runs(settings: KernelSettings) -> None:
    begun = threading.Event()
    stopped = threading.Event()

    def forever(x: int) -> None:
        begun.set()
        try:
            while True:
                pass
        finally:
            stopped.set()

    graph = Graph()
    graph.sink(graph.source(), forever)
    with Kernel(settings) as kernel:
        flow = kernel.flow(graph)
        flow.put(1)
        assert begun.wait(30)
        assert flow.cancel()
        assert stopped.wait(30)
        assert not flow.cancel()
        with pytest.raises(TaskCancelled):
            flow.close()
        # The worker is free again, and nothing is on its way to it.
        assert kernel.get(kernel.submit(sum, [1, 2]), timeout=30) == 3


def test_cancel_from_another_thread_wakes_who_waits(kernel: Kernel) -> None:
    graph = Graph()
    graph.output(graph.map(graph.source(capacity=1), increment, capacity=1), "out", capacity=1)
    flow = kernel.flow(graph)
    threading.Timer(0.05, flow.cancel).start()
    with pytest.raises(TaskCancelled):
        flow.put_many(range(100), timeout=30)


def test_a_cancelled_inline_operator_ends_its_item() -> None:
    seen: list[int] = []

    def cancel_at_three(x: int) -> None:
        seen.append(x)
        if x == 3:
            flow.cancel()

    graph = Graph()
    graph.sink(graph.source(), cancel_at_three)
    with Kernel() as kernel:
        flow = kernel.flow(graph)
        with pytest.raises(TaskCancelled):
            flow.put_many(range(10))
    assert seen == [0, 1, 2, 3]


def test_a_kernel_that_closes_lets_its_flows_go_through(kernel: Kernel) -> None:
    seen: list[int] = []
    graph = Graph()
    graph.sink(graph.map(graph.source(), increment), seen.append)
    flow = kernel.flow(graph)
    flow.put_many(range(1000))
    kernel.close()
    assert seen == list(range(1, 1001))
    with pytest.raises(FlowEnded):
        flow.put(1)
    with pytest.raises(KernelClosed):
        kernel.flow(graph)


def test_a_kernel_that_is_given_up_cancels_its_flows() -> None:
    graph = Graph()
    graph.map(graph.source(), increment)
    kernel = Kernel(THREADS)
    flow = kernel.flow(graph)
    kernel.close(cancel=True)
    with pytest.raises(TaskCancelled):
        flow.put(1)


# Ids


def test_ids_follow_from_operator_and_position_alone() -> None:
    def ids(x: int) -> tuple[bytes, float]:
        task = current_task()
        assert task is not None
        return task.task_id, float(stream(None, "noise").random())

    graph = Graph("ids")
    graph.map(graph.filter(graph.source("in"), lambda n: n % 3), ids, name="ids")
    seen = []
    for settings in (INLINE, ONE_THREAD, THREADS):
        with Kernel(settings, run_id=bytes(16)) as kernel, kernel.flow(graph) as flow:
            flow.put_many(range(50))
            flow.put(50)
            flow.close()
            seen.append(list(flow.results()))
            assert [flow.call_id("ids", n) for n in range(3)] == [x for x, _ in seen[-1][:3]]
            assert flow.item_id(3) != flow.item_id(4)
    assert seen[0] == seen[1] == seen[2]
    assert len({identity for identity, _ in seen[0]}) == len(seen[0]) == 34


def test_what_an_operator_submits_is_its_calls_child(kernel: Kernel) -> None:
    refs: list[tuple[bytes, Ref[int]]] = []

    def submit(x: int) -> int:
        task = current_task()
        assert task is not None
        ref = kernel.submit(increment, x)
        refs.append((task.task_id, ref))
        return kernel.get(ref)

    graph = Graph()
    graph.map(graph.source(), submit)
    with kernel.flow(graph) as flow:
        assert list(flow.run(range(20))) == list(range(1, 21))
    for parent, ref in refs:
        assert ref.parent_id == parent
        assert ref.task_id == child_id(parent, 0, f"{__name__}:increment")


def test_a_task_that_is_kept_stays_what_it_was(kernel: Kernel) -> None:
    kept: list[Any] = []
    graph = Graph()
    graph.sink(graph.source(), lambda x: kept.append(current_task()), name="keep")
    with kernel.flow(graph) as flow:
        flow.put_many(range(10))
        flow.close()
        assert [task.task_id for task in kept] == [flow.call_id("keep", n) for n in range(10)]


# Coroutines


def test_coroutines_feed_and_read(kernel: Kernel) -> None:
    graph = Graph()
    source = graph.source(capacity=3)
    graph.output(graph.map(source, increment, capacity=3, batch=1), "out", capacity=3)

    async def program() -> list[int]:
        flow = kernel.flow(graph)

        async def feed() -> None:
            await flow.put_many_async(range(99))
            await flow.put_async(99)
            await flow.close_async()

        async def read() -> list[int]:
            return [x async for x in flow.results("out")]

        _, results = await asyncio.gather(feed(), read())
        await flow.ref
        return results

    assert asyncio.run(asyncio.wait_for(program(), 30)) == list(range(1, 101))


# Decisions


def test_a_flow_in_a_decision_is_replayed() -> None:
    def noisy(x: int) -> tuple[int, float, float]:
        return x, random.random(), boundary.read("bank", x, lambda: outside.pop())

    outside = [float(n) for n in range(20)]
    graph = Graph()
    graph.map(graph.source(), noisy, placement="thread")

    def decide() -> list[Any]:
        with kernel.flow(graph) as flow:
            flow.put_many(range(10))
            flow.close()
            return list(flow.results())

    sink = MemorySink()
    with Kernel(THREADS, sink=sink) as kernel:
        decision = kernel.decision(decide)
        inputs = [
            (seq, payload)
            for seq, (kind, _, owner, payload) in enumerate(sink.events)
            if kind == events.INPUT and owner == decision.id
        ]
        outside.clear()
        again = kernel.replay(decision.id, Replaying(inputs), decide)
    assert again.answer == decision.answer
    assert len(decision.answer) == 10


# Watching


def test_instruments_see_the_runs_of_stages() -> None:
    class Count(Instrument):
        names: set[str]

        def finished(self, ref: Ref[Any]) -> None:
            self.names.add(ref.name)

    count = Count()
    count.names = set()
    graph = Graph("seen")
    graph.map(graph.map(graph.source(), increment), increment, name="again")
    settings = KernelSettings(placement="thread", threads=1, instruments=(count,))
    with Kernel(settings) as kernel, kernel.flow(graph) as flow:
        flow.put_many(range(100))
    assert "seen:source increment again" in count.names
    assert "flow:seen" in count.names
    first, second, third = flow.counters()
    assert (first.operator, second.operator, third.operator) == ("source", "increment", "again")
    assert first.items_in == second.items_in == third.items_out == 100
    assert third.batches >= 1
    assert third.busy_ns > 0


@pytest.mark.slow
def test_a_million_items_pass_through_stages_of_threads() -> None:
    graph = Graph()
    stream_ = graph.source()
    for _ in range(3):
        stream_ = graph.map(stream_, increment, placement="thread", capacity=4096)
    with Kernel(THREADS) as kernel, kernel.flow(graph) as flow:
        assert sum(flow.run(range(1_000_000))) == 500_002_500_000
