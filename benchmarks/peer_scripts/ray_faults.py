"""Ray after ``kill -9`` of the worker in the middle of a task: until the right answer is there."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import ray

from benchmarks.load import dies_once
from benchmarks.peer_scripts.ray_session import session
from benchmarks.peer_scripts.trials import median_of, run


def crash(times: int) -> float:
    """The median milliseconds from the death to the answer."""
    fragile = ray.remote(max_retries=-1)(dies_once)

    def once() -> float:
        with tempfile.TemporaryDirectory() as folder:
            died = ray.get(fragile.remote(str(Path(folder) / "died")))
            return float(time.monotonic() - died) * 1e3

    with session():
        return median_of(once, times)


if __name__ == "__main__":
    run({"crash": crash})
