"""Cursors: where an answer in pages goes on.

A cursor holds two numbers, where the page before ended and what the catalogue held when the first
page was read, and a mark of the question, so that it is not taken for another question's.
"""

from __future__ import annotations

import base64
import hashlib
import struct

from ground.errors import BadCursor

__all__ = ["Cursor", "checked_limit", "mark_of"]

MAX_LIMIT = 1_000_000

_LAYOUT = struct.Struct("<8sQQ")


def mark_of(*question: object) -> bytes:
    """Eight bytes that stand for a question."""
    return hashlib.sha256(repr(question).encode()).digest()[:8]


class Cursor:
    """The place ``position`` in the answer to the question ``mark``, as of ``snapshot``."""

    def __init__(self, mark: bytes, position: int, snapshot: int) -> None:
        self.mark = mark
        self.position = position
        self.snapshot = snapshot

    def __str__(self) -> str:
        packed = _LAYOUT.pack(self.mark, self.position, self.snapshot)
        return base64.urlsafe_b64encode(packed).decode()

    @classmethod
    def parse(cls, text: str, mark: bytes) -> Cursor:
        """The cursor of a text; raises ``BadCursor`` when it is none, or another question's."""
        try:
            found, position, snapshot = _LAYOUT.unpack(
                base64.b64decode(text, altchars=b"-_", validate=True)
            )
        except (ValueError, TypeError, struct.error) as error:
            raise _refused() from error
        # SQLite's integers are signed.
        if found != mark or max(position, snapshot) >= 1 << 63:
            raise _refused()
        return cls(mark, position, snapshot)


def checked_limit(limit: int) -> int:
    """``limit`` when it is from 1 to a million; raises ``BadCursor``."""
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MAX_LIMIT:
        raise BadCursor(
            f"{limit!r} is not a limit",
            what="limit",
            expected=f"an integer from 1 to {MAX_LIMIT}",
            remedy="ask for less, and go on with the cursor",
        )
    return limit


def _refused() -> BadCursor:
    return BadCursor(
        "the cursor belongs to another question",
        what="cursor",
        expected="the cursor of the page before, with the same arguments",
        remedy="ask again without a cursor",
    )
