"""loky's tasks, on two worker processes."""

from __future__ import annotations

from loky import get_reusable_executor

from benchmarks.peer_scripts.trials import BATCH, WORKERS, nothing, per_second, run


def noop(batches: int) -> float:
    executor = get_reusable_executor(max_workers=WORKERS)

    def batch() -> None:
        for future in [executor.submit(nothing) for _ in range(BATCH)]:
            future.result()

    try:
        return per_second(batch, batches)
    finally:
        executor.shutdown(wait=True)


if __name__ == "__main__":
    run({"noop": noop})
