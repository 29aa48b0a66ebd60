"""Objects as a program meets them: what is put, given to tasks, returned, and left behind."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest

from microkernel import Kernel, KernelError, KernelSettings, ObjectStoreFull, current_kernel
from microkernel.objects import ObjectStatistics

pytestmark = [
    pytest.mark.timeout(100),
    pytest.mark.skipif(sys.platform != "linux", reason="worker processes need Linux"),
]

MIB = 1 << 20


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    with Kernel(KernelSettings(placement="process", processes=2, object_memory=64 * MIB)) as kernel:
        yield kernel


def statistics(kernel: Kernel) -> ObjectStatistics:
    found = kernel.object_statistics()
    assert found is not None
    return found


def eventually(holds: Callable[[], bool]) -> bool:
    """Whether it comes to hold: a worker gives an object back after it has answered."""
    until = time.monotonic() + 20
    while not holds():
        if time.monotonic() > until:
            return False
        time.sleep(0.001)
    return True


def nature(array: Any) -> tuple[float, bool]:
    return float(array.sum()), bool(array.flags.writeable)


def made(n: int, value: float) -> Any:
    return numpy.full(n, value)


def given_back(array: Any) -> Any:
    return array


def test_what_is_put_is_what_it_was_then(kernel: Kernel) -> None:
    array = numpy.arange(10_000.0)
    put = kernel.put(array)
    array[:] = 0
    assert kernel.get(kernel.submit(nature, put)) == (49_995_000.0, False)
    assert nature(kernel.get(put)) == (49_995_000.0, False)


def test_an_object_is_in_memory_once_however_many_have_it(kernel: Kernel) -> None:
    put = kernel.put(numpy.ones(500_000))
    results = [kernel.submit(given_back, put) for _ in range(20)]
    views = kernel.get(results)
    assert all(view.sum() == 500_000 for view in views)
    assert statistics(kernel).used == 4_000_000


def test_memory_comes_back_with_the_last_reference(kernel: Kernel) -> None:
    put = kernel.put(numpy.ones(100_000))
    view = kernel.get(kernel.submit(made, 100_000, 2.0))
    last = view[-1:]
    del put, view
    assert eventually(lambda: statistics(kernel).used == 800_000)
    assert last[0] == 2.0
    del last
    assert eventually(lambda: statistics(kernel).objects == 0)


def test_large_results_are_read_only_views_and_so_are_small_ones(kernel: Kernel) -> None:
    for n in (1, 128, 129, 100_000):
        assert nature(kernel.get(kernel.submit(made, n, 1.0))) == (n, False)


def test_what_is_built_in_place_is_not_copied(kernel: Kernel) -> None:
    array = kernel.empty((1000, 100))
    array[:] = 3
    put = kernel.put(array)
    assert not array.flags.writeable
    assert kernel.get(kernel.submit(nature, put)) == (300_000.0, False)
    assert kernel.get(kernel.submit(nature, array[:10])) == (3_000.0, False)
    assert statistics(kernel).used == 800_000


def built(n: int) -> Any:
    array = current_kernel().empty(n)
    array[:] = 1
    return array


def test_a_worker_builds_in_place_too(kernel: Kernel) -> None:
    assert nature(kernel.get(kernel.submit(built, 1_000_000))) == (1_000_000.0, False)
    assert eventually(lambda: statistics(kernel).objects == 0)


def test_other_kernels_have_ordinary_arrays() -> None:
    with Kernel() as kernel:
        array = kernel.empty(3, "i4")
        assert (array.shape, array.dtype, array.flags.writeable) == ((3,), "i4", True)
        assert kernel.get(kernel.put(array)) is array
        assert kernel.object_statistics() is None


def test_a_full_memory_is_an_error_and_passes() -> None:
    settings = KernelSettings(placement="process", processes=1, object_memory=4 * MIB)
    with Kernel(settings) as kernel:
        with pytest.raises(ObjectStoreFull, match="more than all object memory"):
            kernel.put(bytes(5 * MIB))
        with pytest.raises(ObjectStoreFull, match="more than all object memory"):
            kernel.get(kernel.submit(made, MIB, 1.0))
        assert kernel.get(kernel.submit(made, 1000, 1.0)).sum() == 1000
        assert eventually(lambda: statistics(kernel).objects == 0)


def test_results_that_are_taken_one_by_one_may_be_more_than_fits() -> None:
    settings = KernelSettings(placement="process", processes=2, object_memory=8 * MIB)
    with Kernel(settings) as kernel:
        pending: Any = [kernel.submit(made, 125_000, float(n)) for n in range(50)]
        total = 0.0
        while pending:
            done, pending = kernel.wait(pending)
            total += kernel.get(done[0])[0]
            del done
        assert total == sum(range(50))


def test_views_outlive_their_kernel(kernel: Kernel) -> None:
    view = kernel.get(kernel.put(numpy.ones(10_000)))
    kernel.close()
    assert view.sum() == 10_000


def test_references_to_more_than_fits_are_kept_on_disk(tmp_path: Path) -> None:
    settings = KernelSettings(
        placement="process", processes=2, object_memory=8 * MIB, spill_folder=str(tmp_path)
    )
    with Kernel(settings) as kernel:
        puts = [kernel.put(numpy.full(125_000, float(n))) for n in range(20)]
        results = [kernel.submit(made, 125_000, float(n)) for n in range(20)]
        kernel.wait(results, count=20)
        assert statistics(kernel).spilled >= 30
        for n, (put, result) in enumerate(zip(puts, results, strict=True)):
            assert kernel.get(kernel.submit(nature, put)) == (125_000.0 * n, False)
            assert kernel.get(result)[7] == n
        assert list(tmp_path.iterdir()) == []


def test_a_missing_spill_folder_is_named(tmp_path: Path) -> None:
    settings = KernelSettings(placement="process", spill_folder=str(tmp_path / "none"))
    with Kernel(settings) as kernel, pytest.raises(KernelError, match="nothing can be spilled"):
        kernel.get(kernel.submit(int))


def killed(n: int, array: Any, death: bool, flag: str) -> Any:
    """Answer with an object; the first time, if it is to be, die in the midst of it."""
    result = array + n
    if death and not os.path.exists(flag):
        with open(flag, "w"):
            pass
        keep = current_kernel().empty(10_000)
        threading.Timer(random.random() / 1000, os.kill, (os.getpid(), signal.SIGKILL)).start()
        while True:
            keep = current_kernel().put(numpy.arange(keep.size))
            keep = kernel_value(keep)
    return result


def kernel_value(reference: Any) -> Any:
    return current_kernel().get(reference)


@pytest.mark.parametrize(
    ("amount", "deaths"), [(60, 5), pytest.param(1000, 40, marks=pytest.mark.slow)]
)
def test_killed_workers_leave_no_memory_behind(tmp_path: Path, amount: int, deaths: int) -> None:
    chance = random.Random(1)
    doomed = set(chance.sample(range(amount), deaths))
    settings = KernelSettings(placement="process", processes=2, object_memory=256 * MIB)
    with Kernel(settings) as kernel:
        put = kernel.put(numpy.zeros(125_000))
        baseline = statistics(kernel).used
        pending: Any = []
        for n in range(amount):
            flag = str(tmp_path / str(n))
            pending.append(kernel.submit(killed, n, put, n in doomed, flag))
            if len(pending) == 20:
                check_and_drop(kernel, pending, n - 19)
        check_and_drop(kernel, pending, amount - len(pending))
        assert eventually(lambda: statistics(kernel).used == baseline), statistics(kernel)
        assert len(list(tmp_path.iterdir())) == deaths


def check_and_drop(kernel: Kernel, pending: list[Any], first: int) -> None:
    for n, result in enumerate(kernel.get(pending), first):
        assert result[0] == result[-1] == n
    pending.clear()
