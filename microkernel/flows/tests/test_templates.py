"""Templates: recorded once, submitted as one; the same ids and results as task by task."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from microkernel import (
    Instrument,
    Kernel,
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
from microkernel.errors import GraphError
from microkernel.flows import Template
from microkernel.kernel import current_kernel
from microkernel.random import stream

pytestmark = pytest.mark.timeout(60)

RUN = bytes(16)


@pytest.fixture(scope="module", params=["inline", "thread", "process"])
def kernel(request: pytest.FixtureRequest) -> Iterator[Kernel]:
    chosen = KernelSettings(placement=request.param, threads=2, processes=1)
    with Kernel(chosen, run_id=RUN) as opened:
        yield opened


def add(*numbers: int, scale: int = 1) -> int:
    return sum(numbers) * scale


def pair() -> tuple[Any, ...]:
    kernel = current_kernel()
    first = kernel.submit(identify)
    return tuple(kernel.get([first, kernel.submit(identify, first)]))


def identify(*arguments: object) -> tuple[bytes, float]:
    task = current_task()
    assert task is not None
    return task.task_id, float(stream(None, "noise").random())


def fail(number: int) -> None:
    raise ValueError(f"not {number}")


def diamond(kernel: Kernel, **options: Any) -> Template:
    with kernel.template("diamond", **options) as template:
        x = template.parameter("x")
        y = template.parameter("y", default=100)
        left = template.submit(add, x, 1)
        right = template.submit(add, x, y, scale=2)
        both = template.submit(add, left, right, x)
        template.result(both, left)
    return template


@pytest.mark.parametrize("parallel", [False, True])
def test_an_instance_is_one_task(kernel: Kernel, parallel: bool) -> None:
    template = diamond(kernel, parallel=parallel)
    assert kernel.get(template(3), timeout=30) == (4 + 206 + 3, 4)
    assert kernel.get(template(3, 7), timeout=30) == (4 + 20 + 3, 4)
    assert kernel.get(template(y=7, x=3), timeout=30) == (27, 4)
    three = kernel.submit(add, 1, 2)
    assert kernel.get(template(three, y=7), timeout=30) == (27, 4)
    assert [left for _, left in template.map([1, 2, 3], [0, 0, 0])] == [2, 3, 4]


@given(
    calls=st.lists(
        st.tuples(st.lists(st.integers(-3, 8), max_size=4), st.none() | st.integers(-3, 8)),
        min_size=1,
        max_size=8,
    ),
    parameters=st.lists(st.integers(-9, 9), min_size=1, max_size=3),
)
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_template_computes_what_its_calls_do(
    kernel: Kernel, calls: list[tuple[list[int], int | None]], parameters: list[int]
) -> None:
    values = list(parameters)
    with kernel.template() as template:
        slots: list[Any] = [template.parameter(f"p{i}") for i in range(len(parameters))]
        for numbers, scale in calls:
            chosen = [n if n < 0 else n % len(values) for n in numbers]
            given_ = [slots[n] if n >= 0 else n for n in chosen]
            plain = [values[n] if n >= 0 else n for n in chosen]
            names: dict[str, Any] = {}
            plain_names: dict[str, int] = {}
            if scale is not None:
                names["scale"] = slots[scale % len(values)] if scale >= 0 else scale
                plain_names["scale"] = values[scale % len(values)] if scale >= 0 else scale
            slots.append(template.submit(add, *given_, **names))
            values.append(add(*plain, **plain_names))
        template.result(*slots)
    assert kernel.get(template(*parameters), timeout=30) == tuple(values)


def test_ids_and_random_streams_are_those_of_single_submissions() -> None:
    seen = []
    for placement in ("inline", "thread", "process"):
        for parallel in (False, True):
            chosen = KernelSettings(placement=placement, threads=2, processes=1)
            with Kernel(chosen, run_id=RUN) as opened:
                with opened.template("pair", parallel=parallel) as template:
                    first = template.submit(identify)
                    template.result(first, template.submit(identify, first))
                ref = template()
                seen.append((ref.task_id, opened.get(ref, timeout=30)))
    # A function of the same name, which submits the calls itself.
    pair.__module__, pair.__qualname__ = "template", "pair"
    with Kernel(run_id=RUN) as opened:
        ref = opened.submit(pair)
        seen.append((ref.task_id, opened.get(ref)))
    assert all(entry == seen[0] for entry in seen)


def test_a_call_that_fails_fails_the_instance(kernel: Kernel) -> None:
    with kernel.template("doomed") as template:
        x = template.parameter("x")
        template.submit(add, template.submit(fail, x))
    with pytest.raises(ValueError, match="not 7") as raised:
        kernel.get(template(7), timeout=30)
    assert any("call 0 of template doomed" in note for note in raised.value.__notes__)


def test_a_task_of_a_template_may_submit_others(kernel: Kernel) -> None:
    def nest(x: int) -> int:
        here = current_kernel()
        return here.get(here.submit(add, x, 1))

    with kernel.template() as template:
        x = template.parameter("x")
        template.submit(nest, template.submit(nest, x))
    assert kernel.get(template(1), timeout=30) == 3


def test_values_are_dropped_after_their_last_use() -> None:
    import weakref

    class Big:
        pass

    alive: list[Any] = []

    def make() -> Big:
        big = Big()
        alive.append(weakref.ref(big))
        return big

    def look(anything: object = None) -> int:
        return sum(reference() is not None for reference in alive)

    with Kernel() as kernel:
        with kernel.template() as template:
            big = template.submit(make)
            during = template.submit(look, big)
            after = template.submit(look)
            template.result(during, after)
        assert kernel.get(template()) == (1, 0)


def test_a_template_in_a_decision_is_replayed() -> None:
    def read(name: str) -> object:
        return boundary.read("bank", name, lambda: outside.pop())

    outside = [1, 2]
    sink = MemorySink()
    with Kernel(KernelSettings(placement="thread"), sink=sink) as kernel:
        with kernel.template() as template:
            template.result(template.submit(read, "a"), template.submit(read, "a"))

        def decide() -> list[object]:
            return list(kernel.get(template()))

        decision = kernel.decision(decide)
        assert decision.answer == [2, 1]
        inputs = [
            (seq, payload)
            for seq, (kind, _, owner, payload) in enumerate(sink.events)
            if kind == events.INPUT and owner == decision.id
        ]
        again = kernel.replay(decision.id, Replaying(inputs), decide)
    assert again.answer == decision.answer


def test_instruments_see_each_call() -> None:
    class Names(Instrument):
        seen: list[str]

        def finished(self, ref: Ref[Any]) -> None:
            assert ref.done
            self.seen.append(ref.name)

    names = Names()
    names.seen = []
    with Kernel(KernelSettings(instruments=(names,))) as kernel:
        template = diamond(kernel)
        kernel.get(template(1))
    assert names.seen == [f"{__name__}:add"] * 3 + ["template:diamond"]


def test_an_instance_can_be_cancelled_before_it_runs() -> None:
    with Kernel() as kernel:
        ref = diamond(kernel)(1)
        assert kernel.cancel(ref)
        with pytest.raises(TaskCancelled):
            kernel.get(ref)


def test_wrong_recordings_and_instances_are_refused() -> None:
    with Kernel() as kernel:
        template = kernel.template("empty")
        with pytest.raises(GraphError, match="no calls"):
            template.finish()
        with pytest.raises(GraphError, match="still being recorded"):
            template()
        template.parameter("x")
        with pytest.raises(GraphError, match="two parameters"):
            template.parameter("x")
        other = diamond(kernel)
        with pytest.raises(GraphError, match="has ended"):
            other.submit(add)
        with kernel.template() as foreign:
            slot = foreign.submit(add)
        with pytest.raises(GraphError, match="another template"):
            template.submit(add, slot)
        with pytest.raises(KernelError, match="lacks its parameter x"):
            other()
        with pytest.raises(KernelError, match="no such parameter"):
            other(1, z=2)
        with pytest.raises(KernelError, match="no such parameter"):
            other(1, 2, 3)

        async def coroutine() -> None: ...

        with pytest.raises(GraphError, match="coroutine"):
            template.submit(coroutine)


def test_a_process_is_sent_one_message_for_all_calls() -> None:
    with Kernel(KernelSettings(placement="process", processes=1)) as kernel:
        with kernel.template() as template:
            template.result(*[template.submit(os.getpid) for _ in range(5)])
        pids = kernel.get(template(), timeout=30)
    assert len({*pids}) == 1
    assert os.getpid() not in pids
