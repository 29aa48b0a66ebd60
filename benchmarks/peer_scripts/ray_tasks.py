"""Ray's tasks: throughput, what they cost, round trips, waiting for many, nesting."""

from __future__ import annotations

import os
import statistics
import time

import ray

from benchmarks.granularity import cell, metg
from benchmarks.load import hogs, iterations_per_second, rollout
from benchmarks.peer_scripts.ray_session import session
from benchmarks.peer_scripts.trials import BATCH, WORKERS, median_of, nothing, per_second, run
from benchmarks.process_tree import cpu_seconds, tree

IN_FLIGHT = 16
ROLLOUT_SECONDS = 1e-3
FIRST_TASK_SECONDS = 2e-3
NESTED_TIMES = 3


def fibonacci(n: int) -> tuple[int, int]:
    """The number, and how many tasks it took."""
    if n < 2:
        return n, 1
    (one, tasks), (other, more) = ray.get([FIBONACCI.remote(n - 1), FIBONACCI.remote(n - 2)])
    return one + other, tasks + more + 1


NOTHING = ray.remote(nothing)
FIBONACCI = ray.remote(fibonacci)


def batch() -> None:
    ray.get([NOTHING.remote() for _ in range(BATCH)])


def noop(batches: int) -> float:
    with session():
        return per_second(batch, batches)


def cpu(batches: int) -> float:
    """Microseconds of processor time a task, in all of Ray's processes."""
    with session():
        batch()
        processes = tree(os.getpid())
        begin = cpu_seconds(processes)
        for _ in range(batches):
            batch()
        return (cpu_seconds(processes) - begin) / (batches * BATCH) * 1e6


def roundtrip(calls: int) -> float:
    with session():
        return _roundtrip(calls)


def roundtrip_busy(calls: int) -> float:
    with session(), hogs():
        return _roundtrip(calls)


def wait(count: int) -> float:
    """Seconds to take so many results one by one."""
    with session():
        left = [NOTHING.remote() for _ in range(count)]
        begin = time.perf_counter()
        while left:
            done, left = ray.wait(left, num_returns=1)
            ray.get(done)
        return time.perf_counter() - begin


def rollouts(count: int) -> float:
    """The share of two workers' time that is useful, in percent."""
    with session():
        iterations = round(ROLLOUT_SECONDS * iterations_per_second(WORKERS))
        task = ray.remote(rollout)
        ray.get([task.remote(iterations) for _ in range(IN_FLIGHT)])
        useful, submitted = 0.0, IN_FLIGHT
        begin = time.perf_counter()
        left = [task.remote(iterations) for _ in range(IN_FLIGHT)]
        while left:
            done, left = ray.wait(left, num_returns=1)
            useful += ray.get(done[0])
            if submitted < count:
                left.append(task.remote(iterations))
                submitted += 1
        return 100 * useful / (WORKERS * (time.perf_counter() - begin))


def nested(order: int) -> float:
    """Microseconds a task of the recursive Fibonacci number; tasks wait for their children."""
    with session():

        def once() -> float:
            begin = time.perf_counter()
            _, tasks = ray.get(FIBONACCI.remote(order))
            return (time.perf_counter() - begin) / float(tasks) * 1e6

        once()
        return median_of(once, NESTED_TIMES)


def granularity(span_milliseconds: int) -> float:
    """METG(50 %), in microseconds."""
    with session():
        seconds = metg(
            ray.remote(cell).remote,
            ray.get,
            workers=WORKERS,
            first=FIRST_TASK_SECONDS,
            span=span_milliseconds / 1e3,
        )
        return seconds * 1e6


def _roundtrip(calls: int) -> float:
    """The median microseconds of a call and its result."""
    times = []
    for _ in range(calls):
        begin = time.perf_counter()
        ray.get(NOTHING.remote())
        times.append(time.perf_counter() - begin)
    return statistics.median(times) * 1e6


if __name__ == "__main__":
    run(
        {
            "cpu": cpu,
            "metg": granularity,
            "nested": nested,
            "noop": noop,
            "rollouts": rollouts,
            "roundtrip": roundtrip,
            "roundtrip_busy": roundtrip_busy,
            "wait": wait,
        }
    )
