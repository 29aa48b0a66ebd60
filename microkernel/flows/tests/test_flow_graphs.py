"""Any graph, however it is cut into stages, computes what plain Python computes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from microkernel import Kernel, KernelError, KernelSettings
from microkernel.errors import GraphError
from microkernel.flows import Flow, Graph, OperatorContext, instance_of
from microkernel.flows.plan import plan

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def kernels() -> Iterator[dict[str, Kernel]]:
    with Kernel() as inline, Kernel(KernelSettings(placement="thread", threads=2)) as threads:
        yield {"inline": inline, "thread": threads}


@pytest.fixture(params=["inline", "thread"])
def kernel(request: pytest.FixtureRequest, kernels: dict[str, Kernel]) -> Kernel:
    return kernels[request.param]


def increment(x: int) -> int:
    return x + 1


def triple(x: int) -> int:
    return 3 * x


def odd(x: int) -> bool:
    return x % 2 == 1


def twice(x: int) -> list[int]:
    return [x, -x]


def countdown(x: int) -> Iterator[int]:
    yield from range(abs(x) % 5)


class Halves:
    """A batch operator whose answer depends on no order."""

    def __init__(self) -> None:
        self.items = 0

    def open(self, context: OperatorContext) -> None:
        assert 0 <= context.instance < context.instances

    def process(self, batch: list[int]) -> list[int]:
        self.items += len(batch)
        return [x // 2 for x in batch]

    def close(self) -> list[int] | None:
        return [-1_000_000 - self.items] if self.items else None


class Split:
    def process(self, batch: list[int]) -> tuple[list[int], list[int]]:
        return [x for x in batch if x % 3 == 0], [x for x in batch if x % 3]


class Tagged:
    def process(self, batch: list[int], port: int) -> list[int]:
        return [10 * x + port for x in batch]


FUNCTIONS: dict[str, list[Any]] = {
    "map": [increment, triple],
    "filter": [odd],
    "flat_map": [twice, countdown],
}


@st.composite
def programs(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Operators in order, each naming the streams before it that it takes."""
    steps: list[dict[str, Any]] = [{"kind": "source"} for _ in range(draw(st.integers(1, 2)))]
    streams = len(steps)
    for _ in range(draw(st.integers(1, 9))):
        kind = draw(
            st.sampled_from(["map", "filter", "flat_map", "merge", "halves", "split", "tagged"])
        )
        inputs = draw(
            st.lists(st.integers(0, streams - 1), min_size=1, max_size=3)
            if kind in ("merge", "tagged")
            else st.lists(st.integers(0, streams - 1), min_size=1, max_size=1)
        )
        step: dict[str, Any] = {"kind": kind, "inputs": inputs}
        if kind != "merge":
            step["placement"] = draw(st.sampled_from([None, "inline", "thread"]))
            if draw(st.booleans()):
                step["capacity"] = draw(st.sampled_from([1, 3, 100]))
            if draw(st.booleans()):
                step["batch"] = draw(st.sampled_from([1, 2, 50]))
            if kind in FUNCTIONS and draw(st.booleans()):
                step["instances"] = draw(st.integers(2, 3))
                step["key"] = draw(st.sampled_from([None, triple]))
        if kind in FUNCTIONS:
            step["function"] = draw(st.sampled_from(FUNCTIONS[kind]))
        steps.append(step)
        streams += 2 if kind == "split" else 1
    return steps


def build(program: list[dict[str, Any]]) -> Graph:
    graph = Graph("random")
    streams: list[Any] = []
    for number, step in enumerate(program):
        kind = step["kind"]
        options = {
            name: step[name]
            for name in ("placement", "capacity", "batch", "instances", "key")
            if name in step
        }
        inputs = [streams[i] for i in step.get("inputs", ())]
        if kind == "source":
            streams.append(graph.source(f"source {number}"))
        elif kind == "merge":
            streams.append(graph.merge(*inputs))
        elif kind == "split":
            streams += graph.operator(inputs, Split, outputs=("threes", "others"), **options)
        elif kind == "halves":
            streams.append(graph.operator(inputs, Halves, **options))
        elif kind == "tagged":
            make = Tagged if len(inputs) > 1 else _Alone
            streams.append(graph.operator(inputs, make, **options))
        else:
            streams.append(getattr(graph, kind)(inputs[0], step["function"], **options))
    return graph


class _Alone:
    def process(self, batch: list[int]) -> list[int]:
        return [10 * x for x in batch]


def evaluate(program: list[dict[str, Any]], items: list[int]) -> Counter[int]:
    """What all streams that nothing takes carry, computed without a flow."""
    streams: list[list[int]] = []
    taken = {i for step in program for i in step.get("inputs", ())}
    for step in program:
        inputs = [streams[i] for i in step.get("inputs", ())]
        kind = step["kind"]
        if kind == "source":
            streams.append(list(items))
        elif kind == "merge":
            streams.append([x for stream in inputs for x in stream])
        elif kind == "map":
            streams.append([step["function"](x) for x in inputs[0]])
        elif kind == "filter":
            streams.append([x for x in inputs[0] if step["function"](x)])
        elif kind == "flat_map":
            streams.append([y for x in inputs[0] for y in step["function"](x)])
        elif kind == "halves":
            end = [-1_000_000 - len(inputs[0])] if inputs[0] else []
            streams.append([x // 2 for x in inputs[0]] + end)
        elif kind == "split":
            streams.append([x for x in inputs[0] if x % 3 == 0])
            streams.append([x for x in inputs[0] if x % 3])
        else:
            streams.append([10 * x + port for port, stream in enumerate(inputs) for x in stream])
    return Counter(x for i, stream in enumerate(streams) if i not in taken for x in stream)


def all_results(flow: Flow) -> list[int]:
    return [x for name in plan(flow.graph, "inline").outputs for x in flow.results(name)]


@given(program=programs(), items=st.lists(st.integers(-50, 50), max_size=60), data=st.data())
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_graph_computes_what_plain_python_computes(
    kernels: dict[str, Kernel], program: list[dict[str, Any]], items: list[int], data: st.DataObject
) -> None:
    graph = build(program)
    flow = kernels[data.draw(st.sampled_from(["inline", "thread"]))].flow(graph)
    sources = [node.name for node in graph.nodes if node.kind == "source"]
    for source in sources:
        if data.draw(st.booleans()):
            flow.put_many(items, source=source, timeout=30)
        else:
            for item in items:
                flow.put(item, source=source, timeout=30)
    flow.close(timeout=30)
    assert Counter(all_results(flow)) == evaluate(program, items)


@given(
    functions=st.lists(st.sampled_from(["map", "filter", "flat_map"]), min_size=1, max_size=8),
    placements=st.lists(st.sampled_from(["inline", "thread"]), min_size=8, max_size=8),
    capacity=st.sampled_from([None, 1, 7]),
    items=st.lists(st.integers(-50, 50), max_size=100),
)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_chain_keeps_the_order(
    kernels: dict[str, Kernel],
    functions: list[str],
    placements: list[str],
    capacity: int | None,
    items: list[int],
) -> None:
    graph = Graph()
    stream = graph.source()
    expected = list(items)
    for kind, placement in zip(functions, placements, strict=False):
        function = FUNCTIONS[kind][0]
        stream = getattr(graph, kind)(stream, function, placement=placement, capacity=capacity)
        if kind == "map":
            expected = [function(x) for x in expected]
        elif kind == "filter":
            expected = [x for x in expected if function(x)]
        else:
            expected = [y for x in expected for y in function(x)]
    with kernels["thread"].flow(graph) as flow:
        assert list(flow.run(items)) == expected


def test_the_items_of_a_key_stay_together_and_in_order(kernel: Kernel) -> None:
    graph = Graph()
    pairs = graph.source()

    class Own:
        def open(self, context: OperatorContext) -> None:
            self.instance = context.instance

        def process(self, batch: list[tuple[str, int]]) -> list[tuple[str, int, int]]:
            return [(key, n, self.instance) for key, n in batch]

    seen = graph.operator(pairs, Own, instances=3, key=lambda pair: pair[0], batch=7, capacity=10)
    graph.map(seen, lambda triple: triple, instances=3, name="keeps the partition")
    with kernel.flow(graph) as flow:
        flow.put_many((f"key {n % 11}", n) for n in range(2000))
        flow.end()
        results = list(flow.results())
    assert len(results) == 2000
    for key in {key for key, _, _ in results}:
        mine = [(n, instance) for name, n, instance in results if name == key]
        assert [n for n, _ in mine] == sorted(n for n, _ in mine)
        assert {instance for _, instance in mine} == {instance_of(key, 3)}


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
        lambda keys: st.tuples(keys, keys),
        max_leaves=4,
    )
)
def test_equal_keys_belong_to_the_same_instance(key: object) -> None:
    assert instance_of(key, 1) == 0
    assert instance_of(key, 7) == instance_of(key, 7) < 7
    if isinstance(key, bool | int) and abs(key) < 2**53:
        assert instance_of(key, 7) == instance_of(float(key), 7)


def test_keys_do_not_depend_on_the_run() -> None:
    # As another run (with another PYTHONHASHSEED) computed it.
    assert instance_of("applicant 7", 1 << 31) == 184872781
    assert instance_of((1, "b"), 1000) == instance_of((True, "b"), 1000)
    with pytest.raises(GraphError, match="no type of a key"):
        instance_of([1], 3)


def test_a_graph_that_cannot_be_is_refused_before_anything_runs(kernel: Kernel) -> None:
    with pytest.raises(GraphError, match="no source"):
        kernel.flow(Graph())
    graph = Graph()
    source = graph.source()
    with pytest.raises(GraphError, match="cannot be called"):
        graph.map(source, 3)  # type: ignore[arg-type]
    with pytest.raises(GraphError, match="capacity is 0"):
        graph.map(source, increment, capacity=0)
    with pytest.raises(GraphError, match="no placement"):
        graph.map(source, increment, placement="moon")
    with pytest.raises(GraphError, match="no stream of this graph"):
        Graph().map(source, increment)
    with pytest.raises(GraphError, match="2 instances"):
        graph.operator(source, Halves(), instances=2)

    async def coroutine(x: int) -> int:
        return x

    with pytest.raises(GraphError, match="coroutine"):
        graph.map(source, coroutine)
    back = graph.feedback()
    graph.merge(source, back)
    with pytest.raises(GraphError, match="nothing is led back"):
        kernel.flow(graph)
    with pytest.raises(GraphError, match="is no feedback"):
        graph.feed(source, source)


def test_operators_of_one_place_are_fused_and_rings_of_stages_are_not() -> None:
    graph = Graph()
    stream = graph.source()
    for _ in range(5):
        stream = graph.map(stream, increment)
    assert len(plan(graph, "inline").groups) == len(plan(graph, "thread").groups) == 1

    graph = Graph()
    a = graph.map(graph.source(), increment, placement="inline")
    b = graph.map(a, increment, placement="thread")
    graph.operator([a, b], Tagged, placement="inline")
    # Fused, the first and the last would wait for room in front of the one between them.
    assert len(plan(graph, "inline").groups) == 3

    graph = Graph()
    a = graph.map(graph.source(), increment)
    graph.operator([a, graph.map(a, increment)], Tagged)
    assert len(plan(graph, "inline").groups) == 1


def test_streams_nobody_takes_are_outputs_and_streams_taken_twice_are_whole(kernel: Kernel) -> None:
    graph = Graph()
    source = graph.source()
    graph.map(source, increment, name="more")
    graph.map(source, triple, name="thrice")
    sunk: list[int] = []
    graph.sink(source, sunk.append)
    graph.output(source, "as it came")
    with kernel.flow(graph) as flow:
        flow.put_many([1, 2, 3])
    assert list(flow.results("more")) == [2, 3, 4]
    assert list(flow.results("thrice")) == [3, 6, 9]
    assert list(flow.results("as it came")) == [1, 2, 3]
    assert sunk == [1, 2, 3]
    with pytest.raises(KernelError, match="3 outputs"):
        flow.results()


def test_a_source_of_its_own_is_read_as_fast_as_the_flow_goes_on(kernel: Kernel) -> None:
    read: list[int] = []

    def endless() -> Iterator[int]:
        n = 0
        while True:
            read.append(n)
            yield n
            n += 1

    graph = Graph()
    numbers = graph.source("numbers", endless, batch=5)
    graph.output(graph.map(numbers, increment), "out", capacity=10)
    flow = kernel.flow(graph)
    results = flow.results("out")
    assert [next(results) for _ in range(100)] == list(range(1, 101))
    assert len(read) < 150
    assert flow.cancel()
