"""80 MB into the object arena, and a view of it out again.

Beside a plain copy into memory that is already there, which is the least that ``put`` can do. Each
time the object of the time before is gone.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

from benchmarks.kernel.programs import nothing, process_kernel, script
from benchmarks.measure import Bench, Effort, Figure, Goal, compare
from benchmarks.peers import RAY

__all__ = ["benches"]

BYTES = 80_000_000
TIMES = 5
RAY_TIMES = 10
# A copy that takes a fifth longer than the plain one is five sixths as good.
OF_MEMCPY = 1 / 1.2


def benches() -> list[Bench]:
    """The benches of this module."""
    return [Bench("kernel.put_80MB", _put), Bench("kernel.get_80MB", _get)]


def _put(effort: Effort) -> Iterable[Figure]:
    """Milliseconds."""
    import numpy

    array = numpy.ones(BYTES // 8)
    there = numpy.zeros_like(array)
    with process_kernel() as kernel:

        def put() -> float:
            value = array[-1]
            begin = time.perf_counter()
            ref = kernel.put(array)
            seconds = time.perf_counter() - begin
            array[-1] += 1.0
            if kernel.get(kernel.submit(_last, ref)) != value:
                raise RuntimeError("what was put is not what was there at that time")
            return seconds * 1e3

        def copy() -> float:
            begin = time.perf_counter()
            numpy.copyto(there, array)
            return (time.perf_counter() - begin) * 1e3

        kernel.get(kernel.submit(nothing))
        _median(put)
        scripts = script("ray", RAY, "ray_objects.py", "put", str(effort.of(RAY_TIMES)))
        return compare(
            "kernel.put_80MB",
            ours=lambda: _median(put),
            peers={"numpy": lambda: _median(copy), **scripts},
            unit="ms",
            better="lower",
            effort=effort,
            seldom=scripts,
            goal=Goal(times={"numpy": OF_MEMCPY, "ray": 8}),
        )


def _get(effort: Effort) -> Iterable[Figure]:
    """Microseconds to get what a worker has made, once it is there."""
    with process_kernel() as kernel:

        def get() -> float:
            ref = kernel.submit(_make)
            kernel.wait([ref])
            begin = time.perf_counter()
            value: Any = kernel.get(ref)
            seconds = time.perf_counter() - begin
            if value.nbytes != BYTES or value[-1] != 1.0:
                raise RuntimeError("the array has changed on its way")
            return seconds * 1e6

        _median(get)
        scripts = script("ray", RAY, "ray_objects.py", "get", str(effort.of(RAY_TIMES)))
        return compare(
            "kernel.get_80MB",
            ours=lambda: _median(get),
            peers=scripts,
            unit="us",
            better="lower",
            effort=effort,
            seldom=scripts,
            goal=Goal(5.0, {"ray": 50}),
        )


def _last(array: Any) -> float:
    return float(array[-1])


def _make() -> object:
    import numpy

    return numpy.ones(BYTES // 8)


def _median(trial: Callable[[], float]) -> float:
    return statistics.median(trial() for _ in range(TIMES))
