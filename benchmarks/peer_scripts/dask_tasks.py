"""dask.distributed's tasks, on a cluster of two worker processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from distributed import Client, LocalCluster

from benchmarks.granularity import cell, metg
from benchmarks.peer_scripts.trials import BATCH, WORKERS, per_second, run

FIRST_TASK_SECONDS = 2e-3


def nothing(_: int) -> None:
    pass


@contextmanager
def client() -> Iterator[Client]:
    with (
        LocalCluster(
            n_workers=WORKERS, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        Client(cluster) as connected,
    ):
        connected.gather(connected.map(nothing, range(100), pure=False))
        yield connected


def noop(batches: int) -> float:
    with client() as dask:
        return per_second(lambda: dask.gather(dask.map(nothing, range(BATCH), pure=False)), batches)


def granularity(span_milliseconds: int) -> float:
    """METG(50 %), in microseconds."""
    with client() as dask:
        seconds = metg(
            partial(dask.submit, cell, pure=False),
            dask.gather,
            workers=WORKERS,
            first=FIRST_TASK_SECONDS,
            span=span_milliseconds / 1e3,
        )
        return seconds * 1e6


if __name__ == "__main__":
    run({"metg": granularity, "noop": noop})
