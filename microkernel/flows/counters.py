"""What a flow's operators have done so far."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["OperatorCounters"]


@dataclass(frozen=True)
class OperatorCounters:
    """One instance of an operator: ``items_in`` and ``items_out``, in ``batches``; items that are
    ``queued`` in front of it, and the ``most_queued`` there ever were; nanoseconds it was ``busy``;
    whether it is ``stalled``, for want of room behind it."""

    operator: str
    instance: int
    placement: str
    items_in: int
    items_out: int
    batches: int
    queued: int
    most_queued: int
    busy_ns: int
    stalled: bool
