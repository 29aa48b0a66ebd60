"""Streams of random numbers that belong to a task, not to a process.

``stream(task, purpose)`` is the one generator of the stack: counter-based (Philox 4x64; Salmon et
al., "Parallel random numbers: as easy as 1, 2, 3", SC'11), keyed by the task's id and a purpose.
It does not depend on what other tasks draw, on threads or on time, so a replay draws the same.

It is made for simulation, sampling and search. Who knows the run's id can compute it: secrets come
from ``os.urandom``, which inside a decision is recorded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from microkernel.errors import KernelError
from microkernel.ids import child_id
from microkernel.task import Ref, current_task, unwatched

if TYPE_CHECKING:
    import numpy

__all__ = ["key", "philox", "stream"]

# No task has this many children: the streams of a task share no key with a child of it.
_STREAMS = 2**64 - 1


def key(task: Ref[Any] | bytes | None, purpose: str) -> int:
    """The 128-bit key of a stream. ``task`` is a reference, the 16 bytes of an id, or None for the
    running task (``KernelError`` when there is none)."""
    if task is None:
        task = current_task()
        if task is None:
            raise KernelError(
                "a stream of the running task was asked for, and no task is running",
                what="task",
                expected="a call from within a task",
                remedy="give the task, or the 16 bytes of an id",
            )
    identity = task if isinstance(task, bytes) else task.task_id
    return int.from_bytes(child_id(identity, _STREAMS, purpose), "big")


def stream(task: Ref[Any] | bytes | None, purpose: str) -> numpy.random.Generator:
    """A NumPy generator over the task's own Philox stream for ``purpose``.

    Two calls return two generators at the same place: keep the one you draw from.

    >>> bool(stream(bytes(16), "demo").random() == stream(bytes(16), "demo").random())
    True
    """
    from numpy.random import Generator

    return Generator(philox(key(task, purpose)))


def philox(number: int) -> numpy.random.Philox:
    """NumPy's Philox of this key, which asks the operating system for a seed before it takes it:
    no input of a decision."""
    from numpy.random import Philox

    return unwatched(lambda: Philox(key=number))
