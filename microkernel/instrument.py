"""The observer interface: what may be watched in a kernel without changing it.

Modelled on Trio's ``Instrument``: a subclass overrides the methods it cares about, the kernel calls
only those. They run in the thread where the event happens, so they should be short. One that
raises is reported through ``logging`` and not called again: watching must not break the work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from microkernel.task import Ref

__all__ = ["Instrument"]


class Instrument:
    """Base of observers. Each ``ref`` is the task that the event is about."""

    def submitted(self, ref: Ref[Any]) -> None:
        """The task was handed to the kernel."""

    def started(self, ref: Ref[Any]) -> None:
        """The task begins to run in this thread."""

    def input(self, ref: Ref[Any], kind: str, source: str, key: object) -> None:
        """The task read an input through the boundary of a decision."""

    def object_made(self, ref: Ref[Any]) -> None:
        """``Kernel.put`` made an object."""

    def finished(self, ref: Ref[Any]) -> None:
        """The task has its result or its error."""

    def decision_opened(self, ref: Ref[Any]) -> None:
        """A decision begins; its id is the task's."""

    def decision_closed(self, ref: Ref[Any]) -> None:
        """The decision's answer, or error, is in the journal."""
