"""Ground's errors. Each says what was wrong, what was expected and what to do about it."""

from __future__ import annotations

__all__ = [
    "AmbiguousVersion",
    "BadCursor",
    "BadName",
    "CompareAndSetFailed",
    "CycleRefused",
    "DatabaseLocked",
    "DatabaseTooNew",
    "DatabaseUnreadable",
    "ForeignDatabase",
    "GroundClosed",
    "GroundError",
    "JournalEventsMissing",
    "MalformedChange",
    "MixedBatch",
    "NotCanonical",
    "ReadOnlyGround",
    "TooLarge",
    "UnknownItem",
    "UnknownRef",
    "UnknownVersion",
]


class GroundError(Exception):
    """Root of Ground's errors: ``what`` was wrong, what was ``expected``, and the ``remedy``."""

    def __init__(
        self, message: str, *, what: str = "", expected: str = "", remedy: str = ""
    ) -> None:
        super().__init__(message)
        self.what = what
        self.expected = expected
        self.remedy = remedy


class GroundClosed(GroundError):
    """The catalogue was used after it was closed."""


class ReadOnlyGround(GroundError):
    """A change was asked of a catalogue that was opened without a journal to write it to."""


class DatabaseUnreadable(GroundError):
    """The database file cannot be opened, read or written."""


class ForeignDatabase(DatabaseUnreadable):
    """The file is not a database, or is the database of another program."""


class DatabaseTooNew(DatabaseUnreadable):
    """The database was written by a newer version of this software."""


class DatabaseLocked(GroundError):
    """Another process kept the database locked for longer than the patience of this one."""


class BadName(GroundError):
    """A kind, name, role, tag or reference is not one that the catalogue can hold."""


class BadCursor(GroundError):
    """A cursor or limit does not belong to the question it came with."""


class NotCanonical(GroundError):
    """A value has no RFC 8785 form: NaN, an infinity, an integer beyond 2**53 or a foreign type."""


class TooLarge(GroundError):
    """A version or a transaction is larger than the catalogue takes."""


class MixedBatch(GroundError):
    """A change in a batch is another principal's than the batch."""


class UnknownItem(GroundError):
    """No item has this kind and name."""


class UnknownVersion(GroundError):
    """No version has this hash."""


class AmbiguousVersion(GroundError):
    """Several versions have a hash that begins so; ``candidates`` names some of them."""

    def __init__(self, message: str, *, candidates: tuple[str, ...], what: str) -> None:
        super().__init__(
            message,
            what=what,
            expected="a prefix that one hash has",
            remedy="give more digits: " + ", ".join(candidates),
        )
        self.candidates = candidates


class UnknownRef(GroundError):
    """No reference of this name points to a version."""


class CompareAndSetFailed(GroundError):
    """A reference was moved by somebody else meanwhile; ``found`` is where it points now.

    ``found`` is a version hash, or ``None`` when the reference points nowhere.
    """

    def __init__(self, message: str, *, what: str, expected: str, found: str | None) -> None:
        super().__init__(
            message,
            what=what,
            expected=expected,
            remedy="read the reference again, decide again, and move it from where it is now",
        )
        self.found = found


class CycleRefused(GroundError):
    """An edge would make a version its own ancestor."""


class MalformedChange(GroundError):
    """A ``ground.change`` event is not one that this software writes."""


class JournalEventsMissing(GroundError):
    """The journal's ``ground.change`` events do not join up with each other or the database."""
