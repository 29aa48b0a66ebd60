"""What a kernel is opened with, and what a task may be given beside its function."""

from __future__ import annotations

import enum
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from microkernel.errors import KernelError
from microkernel.instrument import Instrument

__all__ = ["NO_FALLBACK", "PLACEMENTS", "KernelSettings", "TaskOptions"]

PLACEMENTS = ("inline", "thread", "process")

MOST_PROCESSES = 63  # with the driver they fill the table of stations
MOST_URGENT = 63  # priorities are the bits of one word
MOST_ATTEMPTS = 255  # attempts are counted in a byte
MOST_RESOURCE = 1e9


class NoFallback(enum.Enum):
    """The type of ``NO_FALLBACK``: None is a value that a task may fall back to."""

    NO_FALLBACK = "no fallback"


NO_FALLBACK = NoFallback.NO_FALLBACK


def _check_placement(placement: str) -> None:
    if placement not in PLACEMENTS:
        raise KernelError(
            f"no placement is named {placement!r}",
            what=placement,
            expected=" or ".join(PLACEMENTS),
            remedy="inline runs in the caller's thread, thread and process in the kernel's workers",
        )


@dataclass(frozen=True)
class KernelSettings:
    """How a kernel runs.

    ``placement`` is where tasks run unless their options say otherwise: ``inline``, in the thread
    that waits for them, ``thread`` or ``process``. ``threads`` and ``processes`` are how many
    workers the second and the third have (default: one a CPU). ``resources`` is what tasks that ask
    for it share, by name; ``CPU`` is the number of workers unless it is given. ``grace`` is how
    many seconds a task that was told to stop has, before its process is killed or its thread given
    up. ``instruments`` watch.

    For processes: ``object_memory`` is the most that objects in shared memory may take, in bytes
    (default: 30 % of the machine's memory), and ``spill_folder`` where those go that do not fit
    (default: nowhere). ``preload`` names modules that workers have imported from the start.
    """

    placement: str = "inline"
    threads: int = 0
    processes: int = 0
    resources: Mapping[str, float] = field(default_factory=dict, hash=False)
    grace: float = 5.0
    object_memory: int = 0
    spill_folder: str | None = None
    preload: tuple[str, ...] = ()
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
        if not 0 <= self.processes <= MOST_PROCESSES:
            raise KernelError(
                f"processes is {self.processes}",
                what="processes",
                expected=f"0 (one a CPU) to {MOST_PROCESSES}",
                remedy="leave it out",
            )
        if not 0 <= self.grace < 1e9:
            raise KernelError(
                f"a grace of {self.grace} s",
                what="grace",
                expected="seconds, 0 or more and less than 1e9",
                remedy="leave it out for five seconds",
            )
        object.__setattr__(self, "resources", _checked_resources(self.resources))
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

    @property
    def capacity(self) -> dict[str, float]:
        """The resources that tasks share, once the default is worked out."""
        workers = self.processes or os.cpu_count() or 1
        return {"CPU": workers if self.placement == "process" else self.workers, **self.resources}


@dataclass(frozen=True)
class TaskOptions:
    """What a task may be given beside its function.

    ``placement`` is where it runs. ``deadline`` is in seconds from submission: a task without a
    result by then ends with ``DeadlineMissed``, started or not, or with ``fallback`` as its result
    if one is given. ``priority`` goes from 0 to 63: of the tasks that could begin, the one with the
    highest does, among equals the one with the earliest deadline, then the first submitted.

    ``resources`` is what it needs of ``KernelSettings.resources`` while it runs, in steps of
    1/10000.

    ``retries`` is how often it is begun again after an error that ``retry_on`` names: exception
    classes, or a function of the error that says whether. ``backoff`` is the pause before that in
    seconds; it doubles each time. ``crash_retries`` is how often it is begun again after the
    process that ran it died, 0 for a task that must not run twice, 255 for no limit; then it ends
    with ``WorkerCrashed``.
    """

    placement: str | None = None
    deadline: float | None = None
    fallback: object = field(default=NO_FALLBACK, hash=False, compare=False)
    priority: int = 0
    resources: Mapping[str, float] | None = field(default=None, hash=False)
    retries: int = 0
    retry_on: tuple[type[BaseException], ...] | Callable[[BaseException], bool] = (Exception,)
    backoff: float = 0.0
    crash_retries: int = 3

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
        if self.fallback is not NO_FALLBACK and self.deadline is None:
            raise KernelError(
                "a fallback without a deadline",
                what="fallback",
                expected="a deadline, at which it becomes the result",
                remedy="give a deadline, or catch the task's error",
            )
        _check_range("priority", self.priority, MOST_URGENT)
        _check_range("retries", self.retries, MOST_ATTEMPTS)
        _check_range("crash_retries", self.crash_retries, MOST_ATTEMPTS)
        if not 0 <= self.backoff < 1e9:
            raise KernelError(
                f"a backoff of {self.backoff} s",
                what="backoff",
                expected="seconds, 0 or more and less than 1e9",
                remedy="leave it out to try again at once",
            )
        self._check_retry_on()
        if self.resources is not None:
            object.__setattr__(self, "resources", _checked_resources(self.resources))

    def _check_retry_on(self) -> None:
        if isinstance(self.retry_on, type):
            object.__setattr__(self, "retry_on", (self.retry_on,))
        elif callable(self.retry_on):
            return
        for kind in tuple(self.retry_on):  # type: ignore[arg-type]
            if not (isinstance(kind, type) and issubclass(kind, BaseException)):
                raise KernelError(
                    f"{kind!r} is no exception class",
                    what="retry_on",
                    expected="exception classes, or a function of the error that returns a bool",
                    remedy="leave it out to try again after every error",
                )


def _check_range(name: str, value: int, most: int) -> None:
    if not (isinstance(value, int) and 0 <= value <= most):
        raise KernelError(
            f"{name} is {value!r}",
            what=name,
            expected=f"a whole number from 0 to {most}",
            remedy="leave it out for the default",
        )


def _checked_resources(resources: Mapping[str, float]) -> dict[str, float]:
    """A copy, which the caller's changes do not reach."""
    for name, amount in resources.items():
        if not (isinstance(name, str) and name and 0 <= amount <= MOST_RESOURCE):
            raise KernelError(
                f"resource {name!r}: {amount!r}",
                what=str(name),
                expected=f"a name, and an amount from 0 to {MOST_RESOURCE:.0e}",
                remedy='for example {"GPU": 0.5}',
            )
    return dict(resources)
