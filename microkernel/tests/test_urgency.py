"""Priorities and deadlines decide which of the ready tasks begins first."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microkernel import DeadlineMissed, Kernel, KernelError, KernelSettings, TaskOptions

ONE_THREAD = KernelSettings(placement="thread", threads=1)

pytestmark = pytest.mark.timeout(60)

asked = st.lists(
    st.tuples(
        st.one_of(st.just(0), st.integers(0, 63)),
        st.one_of(st.none(), st.integers(1000, 1_000_000)),
        st.booleans(),
    ),
    max_size=60,
)


@pytest.mark.parametrize("settings", [KernelSettings(), ONE_THREAD], ids=["inline", "thread"])
@given(tasks=asked)
def test_the_order_is_priority_then_deadline_then_arrival(
    settings: KernelSettings, tasks: list[tuple[int, int | None, bool]]
) -> None:
    """Against a sorted list; some of the tasks are given up before their turn."""
    ran: list[int] = []
    with Kernel(settings) as kernel:
        begun, gate = threading.Event(), threading.Event()
        first: list[Any] = []
        if settings.placement == "thread":
            first = [kernel.submit(lambda: (begun.set(), gate.wait()))]
            assert begun.wait(30)
        refs = [
            kernel.options(priority=priority, deadline=deadline).submit(ran.append, i)
            for i, (priority, deadline, _) in enumerate(tasks)
        ]
        for ref, (_, _, cancelled) in zip(refs, tasks, strict=True):
            if cancelled:
                assert kernel.cancel(ref)
        gate.set()
        kernel.wait([*first, *refs], len(first) + len(refs))
    expected = sorted(
        (-priority, float("inf") if deadline is None else deadline, i)
        for i, (priority, deadline, cancelled) in enumerate(tasks)
        if not cancelled
    )
    assert ran == [i for _, _, i in expected]


def test_a_fallback_is_the_result_of_a_task_that_is_late() -> None:
    gate = threading.Event()
    with Kernel(ONE_THREAD) as kernel:
        late = kernel.options(deadline=0.01, fallback=None).submit(gate.wait)
        after = kernel.submit(str, late)
        assert kernel.get(late) is None
        gate.set()
        assert kernel.get(after) == "None"
        soon = kernel.options(deadline=60, fallback=0).submit(int, "3")
        assert kernel.get(soon) == 3
        with pytest.raises(DeadlineMissed):
            kernel.get(kernel.options(deadline=1e-9).submit(int, "3"))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"priority": 64}, "priority"),
        ({"priority": -1}, "priority"),
        ({"fallback": 0}, "fallback"),
        ({"retries": -1}, "retries"),
        ({"retry_on": (int,)}, "retry_on"),
        ({"backoff": -1.0}, "backoff"),
        ({"resources": {"GPU": -1}}, "GPU"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], named: str) -> None:
    with pytest.raises(KernelError) as refused:
        TaskOptions(**options)
    assert refused.value.what == named
