"""Ray as the trials use it: two CPUs, no dashboard, no usage report."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.peer_scripts.trials import WORKERS, nothing

__all__ = ["OBJECT_STORE_BYTES", "prepare", "session"]

OBJECT_STORE_BYTES = 2 << 30


def prepare() -> None:
    """What has to be said before Ray is imported."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"


@contextmanager
def session() -> Iterator[None]:
    """Ray is up during the ``with`` block, with its workers started."""
    prepare()
    import ray

    ray.init(
        num_cpus=WORKERS,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
        object_store_memory=OBJECT_STORE_BYTES,
        _temp_dir=tempfile.gettempdir(),
    )
    try:
        task = ray.remote(nothing)
        ray.get([task.remote() for _ in range(100)])
        yield
    finally:
        ray.shutdown()
