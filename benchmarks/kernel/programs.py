"""What the benches of the kernel have in common: the kernel, its tasks, the peers beside it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.measure import Trial
from benchmarks.peers import SCRIPTS, PeerEnvironment, there, trial

if TYPE_CHECKING:
    from microkernel import Instrument, Kernel

__all__ = ["BATCH", "WORKERS", "nothing", "per_second", "process_kernel", "script"]

WORKERS = 2
BATCH = 1000
PEER_TIMEOUT_SECONDS = 300.0


def nothing() -> None:
    """The task that costs nothing itself."""


def process_kernel(*instruments: Instrument) -> Kernel:
    """A kernel whose tasks run in ``WORKERS`` processes."""
    from microkernel import Kernel, KernelSettings

    settings = KernelSettings(placement="process", processes=WORKERS, instruments=instruments)
    return Kernel(settings)


def script(peer: str, environment: PeerEnvironment, name: str, *arguments: str) -> dict[str, Trial]:
    """The peer's script as a contender, or nothing where the peer is not set up."""
    if not there(environment):
        return {}
    run = partial(trial, environment, SCRIPTS / name, *arguments, timeout_s=PEER_TIMEOUT_SECONDS)
    return {peer: partial(_twice_if_need_be, run)}


def _twice_if_need_be(run: Trial) -> float:
    """A cluster of processes does not always come up: it has a second try."""
    try:
        return run()
    except subprocess.SubprocessError as error:
        print(f"once more: {error}", file=sys.stderr)
        return run()


def per_second(run: Callable[[], object], times: int, tasks: int = BATCH) -> float:
    """The rate of ``times`` runs in a row of so many tasks."""
    begin = time.perf_counter()
    for _ in range(times):
        run()
    return times * tasks / (time.perf_counter() - begin)
