"""Tasks that ask for unusual things: what no bytes can carry, great depth, forks, no descriptors.

As in ``test_faults``, the functions are written inside the tests, and nothing may hang or cost more
than the task concerned.
"""

from __future__ import annotations

import collections
import contextlib
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from microkernel import Kernel, KernelError, KernelSettings
from microkernel.errors import NotSendable

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(sys.platform != "linux", reason="worker processes need Linux"),
]

SOON = 20.0  # seconds: what has not happened by then never will


def settings(processes: int = 2) -> KernelSettings:
    return KernelSettings(placement="process", processes=processes)


def healthy(kernel: Kernel) -> bool:
    return kernel.get([kernel.submit(pow, 2, n) for n in range(50)], timeout=SOON) == [
        2**n for n in range(50)
    ]


# ---- What cannot be sent ----


def test_a_closure_that_does_not_pickle_is_named() -> None:
    lock = threading.Lock()

    def guarded() -> bool:
        return lock.locked()

    with Kernel(settings(1)) as kernel:
        with pytest.raises(NotSendable, match="lock") as refused:
            kernel.get(kernel.submit(guarded), timeout=SOON)
        assert refused.value.what
        with pytest.raises(NotSendable, match="lock"):
            kernel.get(kernel.submit(id, lock), timeout=SOON)
        with pytest.raises(NotSendable, match="lock"):
            kernel.get(kernel.submit(threading.Lock), timeout=SOON)
        assert healthy(kernel)


def test_an_error_that_does_not_pickle_arrives_all_the_same() -> None:
    class Local(Exception):
        def __init__(self, first: object, second: object) -> None:
            super().__init__("only one of two")
            self.lock = threading.Lock()

    def fails() -> None:
        raise Local(1, 2)

    with Kernel(settings(1)) as kernel:
        with pytest.raises(Exception, match="only one of two"):
            kernel.get(kernel.submit(fails), timeout=SOON)
        assert healthy(kernel)


def test_a_result_that_breaks_when_it_is_rebuilt_is_an_error_of_that_task_alone() -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return int, ("no number",)

    with Kernel(settings(1)) as kernel:
        ref = kernel.submit(Trap)
        others = [kernel.submit(pow, 2, n) for n in range(10)]
        with pytest.raises((KernelError, ValueError), match="no number"):
            kernel.get(ref, timeout=SOON)
        assert kernel.get(others, timeout=SOON) == [2**n for n in range(10)]
        with pytest.raises((KernelError, ValueError), match="no number"):
            kernel.get(kernel.submit(id, Trap()), timeout=SOON)
        assert healthy(kernel)


# ---- Many, deep ----


def test_10_000_nested_tasks_of_one_task() -> None:
    def wide(n: int) -> int:
        from microkernel import current_kernel

        kernel = current_kernel()
        return sum(kernel.get([kernel.submit(pow, i, 2) for i in range(n)]))

    with Kernel(settings()) as kernel:
        assert kernel.get(kernel.submit(wide, 10_000), timeout=SOON) == sum(
            i * i for i in range(10_000)
        )


def test_tasks_nested_10_000_deep_end_or_say_that_it_is_too_deep() -> None:
    def deep(n: int) -> int:
        from microkernel import current_kernel

        kernel = current_kernel()
        return 0 if n == 0 else 1 + kernel.get(kernel.submit(deep, n - 1))

    with Kernel(settings(1)) as kernel:
        assert kernel.get(kernel.submit(deep, 100), timeout=SOON) == 100
        with contextlib.suppress(RecursionError):
            assert kernel.get(kernel.submit(deep, 10_000), timeout=SOON) == 10_000
        assert healthy(kernel)


def test_1_000_nested_chains_on_one_process(workers: Callable[[], list[int]]) -> None:
    def f(n: int) -> int:
        from microkernel import current_kernel

        kernel = current_kernel()
        return kernel.get(kernel.submit(g, n)) + 1

    def g(n: int) -> int:
        from microkernel import current_kernel

        kernel = current_kernel()
        return kernel.get(kernel.submit(lambda: n)) + 1

    with Kernel(settings(1)) as kernel:
        refs = [kernel.submit(f, n) for n in range(1000)]
        assert kernel.get(refs, timeout=SOON) == [n + 2 for n in range(1000)]
        assert len(workers()) == 1


# ---- Forks ----


def test_a_child_that_a_task_forked_does_not_answer_for_it() -> None:
    def forks(n: int) -> int:
        child = os.fork()
        if child:
            os.waitpid(child, 0)
            return n
        return -1  # goes on as if it were the worker

    with Kernel(settings(1)) as kernel:
        assert kernel.get([kernel.submit(forks, n) for n in range(5)], timeout=SOON) == [*range(5)]
        assert healthy(kernel)


def test_a_worker_that_loses_its_descriptors_goes_on() -> None:
    def close_all() -> str:
        os.closerange(0, 256)
        return "done"

    with Kernel(settings(1)) as kernel:
        assert kernel.get(kernel.submit(close_all), timeout=SOON) == "done"
        assert healthy(kernel)
        assert collections.Counter(
            kernel.get([kernel.submit(len, bytes(200_000)) for _ in range(5)], timeout=SOON)
        ) == {200_000: 5}
