"""The time machine's errors. Each says what was wrong, what was expected and the remedy."""

from __future__ import annotations

__all__ = [
    "DecisionNotFound",
    "ExplanationError",
    "JournalClosed",
    "JournalDamaged",
    "JournalError",
    "JournalForked",
    "JournalFormatError",
    "JournalLocked",
    "JournalTimeout",
    "JournalWriteError",
    "ModelNotTestable",
    "ReplayImpossible",
    "TimeMachineError",
]


class TimeMachineError(Exception):
    """Root of the tree: ``what`` was wrong, what was ``expected``, and the ``remedy``."""

    def __init__(
        self, message: str, *, what: str = "", expected: str = "", remedy: str = ""
    ) -> None:
        super().__init__(message)
        self.what = what
        self.expected = expected
        self.remedy = remedy


class ExplanationError(TimeMachineError):
    """A decision cannot be explained: an input, baseline, grid or replayed answer is unusable."""


class DecisionNotFound(TimeMachineError):
    """No decision, or more than one, has the id that was given."""


class ReplayImpossible(TimeMachineError):
    """A decision cannot be replayed as asked; the message says what is missing."""


class ModelNotTestable(TimeMachineError):
    """The rows or the answers of the exactness self-test have no shape that can be compared."""


class JournalError(TimeMachineError):
    """A journal cannot do what it was asked for; the subclasses say why."""


class JournalClosed(JournalError):
    """The journal was used after it was closed."""


class JournalForked(JournalError):
    """A forked process tried to write through its parent's journal."""


class JournalLocked(JournalError):
    """Another writer has the log; ``pid`` is its process id where it is known."""

    def __init__(
        self,
        message: str,
        *,
        what: str = "",
        expected: str = "",
        remedy: str = "",
        pid: int | None = None,
    ) -> None:
        super().__init__(message, what=what, expected=expected, remedy=remedy)
        self.pid = pid


class JournalFormatError(JournalError):
    """A file is no journal segment, or of a newer format than this program reads."""


class JournalWriteError(JournalError):
    """The disk refuses the journal. What was acknowledged is kept, and written once it relents."""


class JournalTimeout(JournalError, TimeoutError):
    """The events were not durable within the time given."""


class JournalDamaged(JournalError):
    """A journal's files are not as they were written.

    ``segment`` is the file's name, ``offset`` the byte in it and ``seq`` the position in the log
    where the damage begins, where they are known.
    """

    def __init__(
        self,
        message: str,
        *,
        what: str = "",
        expected: str = "",
        remedy: str = "",
        segment: str = "",
        offset: int | None = None,
        seq: int | None = None,
    ) -> None:
        super().__init__(message, what=what, expected=expected, remedy=remedy)
        self.segment = segment
        self.offset = offset
        self.seq = seq
