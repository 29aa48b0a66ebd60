"""Resources: who may begin, who waits, who goes first, and what can never be."""

from __future__ import annotations

import threading
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microkernel import Kernel, KernelError, KernelSettings, TaskCancelled

pytestmark = pytest.mark.timeout(60)


def opened(threads: int = 4, placement: str = "thread", **resources: float) -> Kernel:
    return Kernel(KernelSettings(placement=placement, threads=threads, resources=resources))


class Gauge:
    """How much of each resource is in use, and the most that ever was."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.used: Counter[str] = Counter()
        self.most: Counter[str] = Counter()

    def hold(self, needs: dict[str, int], error: bool) -> None:
        with self.lock:
            self.used.update(needs)
            self.most |= self.used
        with self.lock:
            self.used.subtract(needs)
        if error:
            raise ValueError("on purpose")


@settings(max_examples=30)
@given(
    st.lists(
        st.tuples(
            st.dictionaries(st.sampled_from(["CPU", "GPU", "camera"]), st.integers(0, 10)),
            st.booleans(),
        ),
        max_size=40,
    )
)
def test_no_more_is_in_use_than_there_is_and_everybody_has_a_turn(
    tasks: list[tuple[dict[str, int], bool]],
) -> None:
    """In tenths, which as binary fractions do not come out even; some tasks fail."""
    gauge = Gauge()
    with opened(CPU=1, GPU=1, camera=1) as kernel:
        refs = [
            kernel.options(resources={k: v / 10 for k, v in needs.items()}).submit(
                gauge.hold, needs, error
            )
            for needs, error in tasks
        ]
        done, _ = kernel.wait(refs, len(refs), timeout=30)
        assert len(done) == len(refs)
        assert [ref.failed for ref in refs] == [error for _, error in tasks]
    assert all(amount <= 10 for amount in gauge.most.values())


@pytest.mark.parametrize("placement", ["inline", "thread"])
def test_what_can_never_be_is_an_error_that_names_it(placement: str) -> None:
    with opened(threads=2, placement=placement, GPU=1) as kernel:
        with pytest.raises(KernelError, match=r"1\.5 GPU, and the kernel has 1$") as refused:
            kernel.options(resources={"GPU": 1.5})
        assert refused.value.what == "GPU"
        with pytest.raises(KernelError, match="1 TPU, and the kernel has none"):
            kernel.options(resources={"TPU": 1})
        with pytest.raises(KernelError, match="3 CPU, and the kernel has 2"):
            kernel.options(resources={"CPU": 3})


def test_a_large_task_does_not_hold_up_small_ones_and_does_not_starve() -> None:
    gate, order = threading.Event(), []
    with opened(GPU=4, camera=1) as kernel:
        one, four = kernel.options(resources={"GPU": 1}), kernel.options(resources={"GPU": 4})
        first = one.submit(gate.wait)
        large = four.submit(order.append, "large")
        small = [one.submit(order.append, "small") for _ in range(500)]
        other = kernel.options(resources={"camera": 1}).submit(order.append, "other")
        kernel.get([small[0], other])
        assert "large" not in order
        # It has been passed often enough: what comes now waits behind it.
        kernel.wait(small, 64)
        late = [one.submit(order.append, "late") for _ in range(10)]
        gate.set()
        kernel.get([first, large, *small, *late])
    assert order.index("large") < 200
    assert "late" not in order[: order.index("large")]


def test_the_most_urgent_of_those_that_wait_goes_first() -> None:
    gate, order = threading.Event(), []
    with opened(GPU=1) as kernel:
        first = kernel.options(resources={"GPU": 1}).submit(gate.wait)
        refs = [
            kernel.options(resources={"GPU": 1}, priority=priority).submit(order.append, priority)
            for priority in (0, 5, 1, 63)
        ]
        gate.set()
        kernel.get([first, *refs])
    assert order == [63, 5, 1, 0]


@pytest.mark.parametrize("placement", ["inline", "thread"])
def test_nested_waits_cannot_block_each_other(placement: str) -> None:
    """Each lends its CPU to those it waits for."""
    with opened(threads=2, placement=placement, GPU=1) as kernel:
        all_of_it = kernel.options(resources={"CPU": 2})

        def nest(depth: int) -> int:
            if depth == 0:
                return 0
            return 1 + max(kernel.get([all_of_it.submit(nest, depth - 1) for _ in range(2)]))

        assert kernel.get(all_of_it.submit(nest, 6)) == 6


@pytest.mark.parametrize("placement", ["inline", "thread"])
def test_what_is_waited_for_goes_before_what_has_not_begun(placement: str) -> None:
    with opened(threads=1, placement=placement, GPU=1) as kernel:
        gpu = kernel.options(resources={"GPU": 1})

        def parent() -> tuple[int, int]:
            first, second = gpu.submit(int, "1"), gpu.submit(int, "2")
            return kernel.get(second), kernel.get(first)

        assert kernel.get(kernel.submit(parent)) == (2, 1)


@pytest.mark.parametrize("placement", ["inline", "thread"])
def test_a_task_that_stands_in_its_own_way_is_told_so(placement: str) -> None:
    with opened(threads=2, placement=placement, GPU=1) as kernel:
        gpu = kernel.options(resources={"GPU": 0.6})
        ref = gpu.submit(lambda: kernel.get(gpu.submit(int, "1")))
        with pytest.raises(KernelError, match="together they need more GPU than there is"):
            kernel.get(ref)


def test_who_is_cancelled_while_parked_or_running_leaves_nothing_behind() -> None:
    begun, gate = threading.Event(), threading.Event()
    with opened(GPU=1) as kernel:
        gpu = kernel.options(resources={"GPU": 1})
        running = gpu.submit(lambda: (begun.set(), gate.wait()))
        parked = gpu.submit(int, "1")
        assert begun.wait(30)
        assert kernel.cancel(parked)
        assert kernel.cancel(running)
        after = gpu.submit(int, "2")
        assert not kernel.wait([after], timeout=0.05)[0]  # what was cancelled still runs
        gate.set()
        assert kernel.get(after) == 2
        with pytest.raises(TaskCancelled):
            kernel.get(parked)


def test_closing_gives_up_what_is_parked() -> None:
    gate = threading.Event()
    kernel = opened(GPU=1)
    gpu = kernel.options(resources={"GPU": 1})
    running = gpu.submit(lambda: [gate.wait(0.01) for _ in range(100)])
    parked = [gpu.submit(int, "1") for _ in range(10)]
    kernel.close(cancel=True)
    assert running.failed
    assert all(ref.failed for ref in parked)
