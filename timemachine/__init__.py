"""The time machine: the journal of everything that a decision saw, and what can be asked of it.

The parts are imported by their own names: ``timemachine.journal`` and its siblings. Here stand the
errors that all of them raise.
"""

from timemachine.errors import (
    JournalClosed,
    JournalDamaged,
    JournalError,
    JournalForked,
    JournalFormatError,
    JournalLocked,
    JournalTimeout,
    JournalWriteError,
    TimeMachineError,
)

__all__ = [
    "JournalClosed",
    "JournalDamaged",
    "JournalError",
    "JournalForked",
    "JournalFormatError",
    "JournalLocked",
    "JournalTimeout",
    "JournalWriteError",
    "TimeMachineError",
]
