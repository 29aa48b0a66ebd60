"""What a kernel is opened with, and what a task may be given beside its function."""

from __future__ import annotations

import os
from dataclasses import dataclass

from microkernel.errors import KernelError
from microkernel.instrument import Instrument

__all__ = ["PLACEMENTS", "KernelSettings", "TaskOptions"]

PLACEMENTS = ("inline", "thread")


def _check_placement(placement: str) -> None:
    if placement not in PLACEMENTS:
        raise KernelError(
            f"no placement is named {placement!r}",
            what=placement,
            expected=" or ".join(PLACEMENTS),
            remedy="inline runs in the caller's thread, thread in the kernel's workers",
        )


@dataclass(frozen=True)
class KernelSettings:
    """How a kernel runs.

    ``placement`` is where tasks run unless their options say otherwise: ``inline``, in the thread
    that waits for them, or ``thread``. ``threads`` is how many workers the second has (default:
    one a CPU). ``instruments`` watch.
    """

    placement: str = "inline"
    threads: int = 0
    instruments: tuple[Instrument, ...] = ()

    def __post_init__(self) -> None:
        _check_placement(self.placement)
        if self.threads < 0:
            raise KernelError(
                f"threads is {self.threads}",
                what="threads",
                expected="0 (one a CPU) or more",
                remedy="leave it out",
            )
        for instrument in self.instruments:
            if not isinstance(instrument, Instrument):
                raise KernelError(
                    f"{instrument!r} is no instrument",
                    what="instruments",
                    expected="objects of subclasses of microkernel.Instrument",
                    remedy="derive its class from Instrument",
                )

    @property
    def workers(self) -> int:
        """The number of worker threads, once the default is worked out."""
        return self.threads or os.cpu_count() or 1


@dataclass(frozen=True)
class TaskOptions:
    """What a task may be given: where it runs, and its deadline in seconds from submission.

    A task without a result by its deadline ends with ``DeadlineMissed``, started or not.
    """

    placement: str | None = None
    deadline: float | None = None

    def __post_init__(self) -> None:
        if self.placement is not None:
            _check_placement(self.placement)
        if self.deadline is not None and not 0 < self.deadline < 1e9:
            raise KernelError(
                f"a deadline of {self.deadline} s",
                what="deadline",
                expected="seconds from now, more than 0 and less than 1e9",
                remedy="leave it out for a task that may take as long as it takes",
            )
