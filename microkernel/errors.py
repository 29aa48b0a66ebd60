"""The kernel's errors. Each says what was wrong, what was expected and what to do about it."""

from __future__ import annotations

__all__ = [
    "DeadlineMissed",
    "KernelClosed",
    "KernelError",
    "ReplayDivergence",
    "TaskCancelled",
    "ValueNotRecordable",
]


class KernelError(Exception):
    """Root of the kernel's errors: ``what`` was wrong, what was ``expected``, the ``remedy``."""

    def __init__(
        self, message: str, *, what: str = "", expected: str = "", remedy: str = ""
    ) -> None:
        super().__init__(message)
        self.what = what
        self.expected = expected
        self.remedy = remedy


class KernelClosed(KernelError):
    """The kernel was used before it was opened or after it was closed."""


class TaskCancelled(KernelError):
    """The task, or one that it depends on, was cancelled."""


class DeadlineMissed(KernelError):
    """The task had no result by its deadline."""


class ValueNotRecordable(KernelError):
    """A value cannot be kept in a journal: its type has no registered codec."""


class ReplayDivergence(KernelError):
    """A replayed task asked for something that the recorded one did not ask for."""
