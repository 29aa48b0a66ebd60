"""The thread that signs a journal's head from time to time.

It holds the journal only weakly between two rounds, so that a journal that nobody uses any more
can go. A checkpoint that cannot be written is tried again: the append path reports a failing disk.
"""

from __future__ import annotations

import contextlib
import weakref
from typing import TYPE_CHECKING

from timemachine.errors import JournalError

if TYPE_CHECKING:
    from timemachine.journal.journal import Journal

__all__ = ["keep_signing"]


def keep_signing(reference: weakref.ref[Journal]) -> None:
    """Sign whenever the journal's settings say so, until it is closed or gone."""
    while True:
        journal = reference()
        if journal is None or not journal._await_checkpoint():
            return
        with contextlib.suppress(OSError, JournalError):
            journal._checkpoint()
        del journal
