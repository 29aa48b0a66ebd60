"""Ray from its import to the result of the first task, in milliseconds."""

from __future__ import annotations

import tempfile
import time

from benchmarks.peer_scripts.ray_session import prepare
from benchmarks.peer_scripts.trials import WORKERS, nothing


def start() -> float:
    prepare()
    begin = time.perf_counter()
    import ray

    ray.init(
        num_cpus=WORKERS,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
        _temp_dir=tempfile.gettempdir(),
    )
    ray.get(ray.remote(nothing).remote())
    seconds = time.perf_counter() - begin
    ray.shutdown()
    return seconds * 1e3


if __name__ == "__main__":
    print(start())
