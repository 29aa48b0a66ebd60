"""Operators in processes of their own: the same results, credits across processes, deaths."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from microkernel import Kernel, KernelSettings, TaskCancelled, current_task
from microkernel.errors import GraphError, WorkerCrashed
from microkernel.flows import Flow, Graph, OperatorContext, instance_of

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    with Kernel(KernelSettings(placement="inline", processes=2), run_id=bytes(16)) as opened:
        yield opened


def feed_and_close(flow: Flow, items: Iterable[Any]) -> None:
    flow.put_many(items, timeout=30)
    flow.close(timeout=30)


def increment(x: int) -> int:
    return x + 1


def where(x: object) -> tuple[object, int]:
    return x, os.getpid()


def test_an_operator_runs_in_a_process_of_its_own(kernel: Kernel) -> None:
    graph = Graph()
    first = graph.map(graph.source(), where, name="first", placement="process")
    graph.map(first, where, name="second", placement="process", capacity=100)
    with kernel.flow(graph) as flow:
        results = list(flow.run(range(100)))
    assert [x for (x, _), _ in results] == list(range(100))
    places = {(first, second) for (_, first), second in results}
    assert len(places) == 1
    assert len({*places.pop(), os.getpid()}) == 3
    counters = {counters.operator: counters for counters in flow.counters()}
    assert counters["first"].placement == "process"
    assert counters["first"].items_in == counters["second"].items_out == 100


def test_what_a_process_is_sent_may_be_large_and_of_any_type(kernel: Kernel) -> None:
    items: list[Any] = [b"x" * 100_000, "text", {"a": [1, 2.5, None]}, (1, "b"), {3}, "y" * 50_000]
    graph = Graph()
    graph.map(graph.source(), lambda x: (type(x).__name__, x), placement="process")
    with kernel.flow(graph) as flow:
        assert list(flow.run(items)) == [(type(x).__name__, x) for x in items]


def test_numpy_arrays_travel_in_the_object_arena(kernel: Kernel) -> None:
    numpy = pytest.importorskip("numpy")
    graph = Graph()
    graph.map(graph.source(), lambda array: array * 2, placement="process")
    with kernel.flow(graph) as flow:
        for n, array in enumerate(flow.run(numpy.full(50_000, n) for n in range(20))):
            assert (array == 2 * n).all()


@given(
    functions=st.lists(st.sampled_from(["map", "filter", "flat_map"]), min_size=1, max_size=4),
    placements=st.lists(
        st.sampled_from(["inline", "thread", "process"]), min_size=4, max_size=4
    ).filter(lambda places: "process" in places),
    instances=st.integers(1, 2),
    capacity=st.sampled_from([None, 1, 7]),
    items=st.lists(st.integers(-50, 50), max_size=60),
)
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_placement_gives_the_same_results(
    kernel: Kernel,
    functions: list[str],
    placements: list[str],
    instances: int,
    capacity: int | None,
    items: list[int],
) -> None:
    graph = Graph()
    stream = graph.source()
    expected = list(items)
    for kind, placement in zip(functions, placements, strict=False):
        options: dict[str, Any] = {"placement": placement, "capacity": capacity}
        if kind == "map":
            stream = graph.map(stream, increment, instances=instances, key=str, **options)
            expected = [increment(x) for x in expected]
        elif kind == "filter":
            stream = graph.filter(stream, lambda x: x % 3 != 0, **options)
            expected = [x for x in expected if x % 3]
        else:
            stream = graph.flat_map(stream, lambda x: [x, -x], **options)
            expected = [y for x in expected for y in (x, -x)]
    with kernel.flow(graph) as flow:
        results = list(flow.run(items))
    assert Counter(results) == Counter(expected)
    if instances == 1:
        assert results == expected


def test_the_items_of_a_key_meet_in_one_process(kernel: Kernel) -> None:
    class Count:
        def open(self, context: OperatorContext) -> None:
            self.instance = context.instance
            self.seen: Counter[str] = Counter()

        def process(self, batch: list[str]) -> None:
            self.seen.update(batch)

        def close(self) -> list[tuple[str, int, int]]:
            return [(key, count, self.instance) for key, count in self.seen.items()]

    graph = Graph()
    graph.operator(graph.source(), Count, placement="process", instances=3, key=lambda key: key)
    with kernel.flow(graph) as flow:
        flow.put_many(f"key {n % 10}" for n in range(1000))
        flow.close()
    assert sorted(flow.results()) == [
        (f"key {n}", 100, instance_of(f"key {n}", 3)) for n in range(10)
    ]


def test_a_process_that_is_slow_is_felt_at_the_source(kernel: Kernel) -> None:
    graph = Graph()
    source = graph.source(capacity=10, batch=1)
    stopped = graph.map(source, where, placement="process", capacity=10, batch=1)
    graph.output(stopped, "out", capacity=1)
    flow = kernel.flow(graph)
    with pytest.raises(TimeoutError):
        flow.put_many(range(10_000), timeout=0.5)
    # Ten at the source, ten on the way there, then on the way back and at the output.
    assert flow.position() < 10 + 1 + 10 + 1 + 4096 + 1024 + 10
    assert flow.cancel()


def test_a_source_in_a_process_is_read_as_fast_as_its_items_are_taken(kernel: Kernel) -> None:
    def endless() -> Iterator[int]:
        n = 0
        while True:
            yield n
            n += 1

    graph = Graph()
    numbers = graph.source("numbers", endless, placement="process")
    graph.output(numbers, "out", capacity=100)
    flow = kernel.flow(graph)
    results = flow.results("out")
    assert [next(results) for _ in range(20_000)] == list(range(20_000))
    assert flow.cancel()


def test_ids_do_not_depend_on_the_place() -> None:
    def identity(x: int) -> bytes:
        task = current_task()
        assert task is not None
        return task.task_id

    seen = []
    for placement in ("inline", "thread", "process"):
        graph = Graph("ids")
        graph.map(graph.source(), identity, name="ids", placement=placement)
        settings_ = KernelSettings(processes=1, threads=1)
        with Kernel(settings_, run_id=bytes(16)) as opened, opened.flow(graph) as flow:
            seen.append(list(flow.run(range(30))))
    assert seen[0] == seen[1] == seen[2]


@pytest.mark.parametrize("whole", [True, False], ids=["in one process", "by way of the driver"])
def test_a_cycle_through_a_process_ends(kernel: Kernel, whole: bool) -> None:
    def step(n: int) -> int:
        return n // 2 if n % 2 == 0 else 3 * n + 1

    graph = Graph()
    back = graph.feedback(placement="process" if whole else "inline")
    merged = graph.merge(graph.source(), back)
    place = "process" if whole else "inline"
    going = graph.filter(merged, lambda n: n != 1, name="not yet", placement=place)
    stepped = graph.map(going, step, placement="process")
    graph.feed(stepped, back)
    graph.output(stepped, "seen")
    flow = kernel.flow(graph)
    flow.put_many(range(1, 60))
    flow.close(timeout=30)
    expected: Counter[int] = Counter()
    for n in range(1, 60):
        while n != 1:
            n = step(n)
            expected[n] += 1
    assert Counter(flow.results("seen")) == expected


def test_a_cycle_from_process_to_process_is_refused(kernel: Kernel) -> None:
    graph = Graph()
    back = graph.feedback()
    first = graph.map(graph.merge(graph.source(), back), increment, placement="process")
    graph.feed(graph.map(first, increment, placement="process", capacity=5), back)
    with pytest.raises(GraphError, match="from one process to another"):
        kernel.flow(graph)


def test_an_error_in_a_process_names_the_operator_and_keeps_its_type(kernel: Kernel) -> None:
    graph = Graph("ratios")
    graph.map(graph.source(), lambda n: 1 / n, name="1/n", placement="process")
    flow = kernel.flow(graph)
    with pytest.raises(ZeroDivisionError) as raised:
        feed_and_close(flow, [1, 2, 0, 3])
    assert "in operator 1/n of flow ratios, item 2" in raised.value.__notes__


def test_what_cannot_be_sent_is_an_error_of_the_flow(kernel: Kernel) -> None:
    graph = Graph()
    graph.map(graph.source(), where, placement="process")
    flow = kernel.flow(graph)
    with pytest.raises(Exception, match=r"lock|pickle"):
        feed_and_close(flow, [threading.Lock()])
    assert flow.done

    lock = threading.Lock()
    graph = Graph()
    graph.map(graph.source(), lambda x: (x, lock), placement="process")
    with pytest.raises(Exception, match=r"lock|pickle"):
        kernel.flow(graph)


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_process_that_dies_fails_the_flow_by_name(kernel: Kernel, signal_number: int) -> None:
    graph = Graph("fragile")
    alive = graph.map(graph.source(), where, name="alive", placement="process")
    graph.map(
        alive,
        lambda x: os.kill(os.getpid(), signal_number),
        name="dying",
        placement="process",
        capacity=10,
    )
    flow = kernel.flow(graph)
    with pytest.raises(WorkerCrashed, match="dying of flow fragile"):
        feed_and_close(flow, range(100))


def test_cancel_ends_a_process_that_does_not_listen(kernel: Kernel) -> None:
    def forever(x: int) -> None:
        while True:
            pass

    graph = Graph()
    graph.sink(graph.source(), forever, placement="process")
    flow = kernel.flow(graph)
    flow.put(1)
    assert flow.cancel()
    with pytest.raises(TaskCancelled):
        flow.close(timeout=30)


def test_a_flow_in_a_worker_process_runs_there(kernel: Kernel) -> None:
    def task() -> list[tuple[int, int]]:
        from microkernel.kernel import current_kernel

        graph = Graph()
        graph.map(graph.source(), where, placement="process")
        with current_kernel().flow(graph) as flow:
            flow.put_many(range(10))
            flow.end()
            return [*flow.results(), (-1, os.getpid())]

    results = kernel.get(kernel.options(placement="process").submit(task), timeout=30)
    assert [x for x, _ in results] == [*range(10), -1]
    assert len({pid for _, pid in results} - {os.getpid()}) == 1
