"""Ray's object store: 80 MB in, and out again."""

from __future__ import annotations

import time

import numpy
import ray

from benchmarks.peer_scripts.ray_session import session
from benchmarks.peer_scripts.trials import median_of, run

BYTES = 80_000_000
WARM_UP = 3


def make() -> object:
    return numpy.ones(BYTES // 8)


def put(times: int) -> float:
    """Milliseconds to put the array, where an earlier one was and is gone."""
    array = numpy.ones(BYTES // 8)

    def once() -> float:
        begin = time.perf_counter()
        reference = ray.put(array)
        seconds = time.perf_counter() - begin
        del reference
        return seconds * 1e3

    with session():
        median_of(once, WARM_UP)
        return median_of(once, times)


def get(times: int) -> float:
    """Microseconds to get what a worker has made, once it is there."""
    task = ray.remote(make)

    def once() -> float:
        reference = task.remote()
        ray.wait([reference])
        begin = time.perf_counter()
        value = ray.get(reference)
        seconds = time.perf_counter() - begin
        assert value.nbytes == BYTES
        return seconds * 1e6

    with session():
        median_of(once, WARM_UP)
        return median_of(once, times)


if __name__ == "__main__":
    run({"get": get, "put": put})
