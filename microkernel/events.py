"""The registry of event kinds.

A kind is a number in a frame and a name everywhere else: each journal stores the table of the
kinds it was written with, so numbers may differ between processes and names are what readers use.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from microkernel.errors import KernelError

__all__ = ["EventKind", "kinds", "kind_named", "register"]

FIRST_FREE_KIND = 32


@dataclass(frozen=True)
class EventKind:
    """One kind of event: its number in this process, its name, and the columns of its payload.

    ``columns`` are ``(name, Arrow type name)`` pairs, for example ``("value", "binary")``: plain
    strings, so that a stranger can read a journal with nothing installed.
    """

    number: int
    name: str
    columns: tuple[tuple[str, str], ...]


_lock = threading.Lock()
_by_name: dict[str, EventKind] = {}


def register(name: str, columns: tuple[tuple[str, str], ...]) -> int:
    """Register an event kind and return its number; the same registration twice is one kind.

    Raises ``KernelError`` when the name is taken with other columns.
    """
    with _lock:
        known = _by_name.get(name)
        if known is None:
            number = _RESERVED.get(name, FIRST_FREE_KIND + len(_by_name))
            known = _by_name[name] = EventKind(number, name, columns)
        elif known.columns != columns:
            raise KernelError(
                f"event kind {name!r} is registered with other columns",
                what=name,
                expected=str(known.columns),
                remedy="give the new layout a new name",
            )
        return known.number


def kinds() -> tuple[EventKind, ...]:
    """All registered kinds, in the order of their numbers."""
    return tuple(sorted(_by_name.values(), key=lambda kind: kind.number))


def kind_named(name: str) -> EventKind:
    """The kind of this name; raises ``KernelError`` when nobody registered it."""
    try:
        return _by_name[name]
    except KeyError:
        raise KernelError(
            f"no event kind is named {name!r}",
            what=name,
            expected="one of " + ", ".join(sorted(_by_name)),
            remedy="import the package that registers it",
        ) from None


# The kinds that the kernel and the journal write themselves; their numbers never change.
_RESERVED = {
    "journal.kind": 1,
    "journal.checkpoint": 2,
    "decision.opened": 3,
    "decision.closed": 4,
    "input": 5,
    "tasks": 6,
}

JOURNAL_KIND = register("journal.kind", (("payload", "binary"),))
JOURNAL_CHECKPOINT = register("journal.checkpoint", (("note", "string"),))
DECISION_OPENED = register("decision.opened", (("payload", "binary"),))
DECISION_CLOSED = register("decision.closed", (("payload", "binary"),))
INPUT = register("input", (("payload", "binary"),))
TASKS = register("tasks", (("records", "binary"),))
