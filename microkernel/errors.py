"""The kernel's errors. Each says what was wrong, what was expected and what to do about it."""

from __future__ import annotations

__all__ = [
    "ActorBusy",
    "ActorDied",
    "DeadlineMissed",
    "FlowEnded",
    "GraphError",
    "KernelClosed",
    "KernelError",
    "NotRebuilt",
    "NotSendable",
    "PayloadDamaged",
    "RemoteError",
    "ObjectLost",
    "ObjectStoreFull",
    "ReplayDivergence",
    "TaskCancelled",
    "ValueNotRecordable",
    "WorkerCrashed",
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


class ActorDied(KernelError):
    """The actor has ended; ``begun`` says whether it had begun with the call."""

    def __init__(self, message: str, *, begun: bool = False, **about: str) -> None:
        super().__init__(message, **about)
        self.begun = begun


class ActorBusy(KernelError):
    """The actor has ``max_pending`` calls, and the caller cannot wait here until it has fewer."""


class WorkerCrashed(KernelError):
    """The process that ran the task died, as often as the task may be begun again."""


class ValueNotRecordable(KernelError):
    """A value cannot be kept in a journal: its type has no registered codec."""


class ReplayDivergence(KernelError):
    """A replayed task asked for something that the recorded one did not ask for."""


class GraphError(KernelError):
    """A flow's graph or a template asks for something that cannot be."""


class FlowEnded(KernelError):
    """An item was put into a flow that takes no more."""


class NotSendable(KernelError):
    """A value cannot be sent to another process: a part of it, ``what``, has no bytes."""


class NotRebuilt(KernelError):
    """What another process sent cannot be turned into a value here; the cause says why."""


class PayloadDamaged(NotRebuilt):
    """The bytes of a message are not such as a process of this kernel writes."""


class RemoteError(KernelError):
    """Stands for an exception of another process whose type cannot be rebuilt here.

    ``what`` is the name of its type, ``text`` its traceback as it was printed there.
    """

    def __init__(self, message: str, *, text: str = "", **about: str) -> None:
        super().__init__(message, **about)
        self.text = text


class ObjectStoreFull(KernelError):
    """There was no room for an object in the shared memory, nor came there any in time."""


class ObjectLost(KernelError):
    """An object is gone: nobody held it any more, or the disk that had it cannot be read."""


class NotOverridden(TypeError):
    """A method that only subclasses have was called on their base."""
