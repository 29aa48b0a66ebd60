"""The entries of a trace as Python objects, one by one."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from microkernel.tracing.trace import TraceRing

__all__ = ["TraceEntry", "read_entries"]

STATUSES = ("ok", "error", "cancelled", "missed")
KINDS = ("task", "decision", "coroutine")
PLACES = ("inline", "thread", "process")

_ENTRY = struct.Struct("<7Q2H4B")
_ID = struct.Struct(">QQ")
_IN_NANOSECONDS = 0x80


@dataclass(frozen=True, slots=True)
class TraceEntry:
    """What is left of a task when it has ended.

    ``started_ns`` and ``ended_ns`` are nanoseconds of ``CLOCK_MONOTONIC``; ``started_ns`` is None
    for a task that never ran. It ran in process ``station`` of its kernel (0 is the program itself,
    others are workers), there in thread ``lane``. ``status`` is "ok", "error", "cancelled" or
    "missed" (its deadline); ``kind`` "task", "decision" or "coroutine"; ``place`` the placement
    that was asked for; ``attempt`` how often it had been begun before.
    """

    task_id: bytes
    parent_id: bytes
    name: str
    kind: str
    place: str
    station: int
    lane: int
    attempt: int
    status: str
    started_ns: int | None
    ended_ns: int

    @property
    def seconds(self) -> float:
        """How long it ran; 0 if it never did."""
        return 0.0 if self.started_ns is None else (self.ended_ns - self.started_ns) / 1e9


def read_entries(ring: TraceRing) -> Iterator[TraceEntry]:
    """The entries of a kernel up to now, block by block in the order of their ends.

    Only one block is in memory at a time. Entries of several processes, and of tasks that ended
    within the same few thousand, may be out of order by as much.
    """
    names: dict[int, str] = ring.statistics()["names"]
    id_of = _ID.pack
    for _, data, base, base_ns, rate, before in ring.blocks():
        for one in _ENTRY.iter_unpack(data):
            hi, lo, parent_hi, parent_lo, started, ended, function, *rest = one
            station, lane, status, attempt, kind, place = rest
            if kind & _IN_NANOSECONDS:
                kind &= ~_IN_NANOSECONDS
                started_ns, ended_ns = started, ended
            else:
                since = started - base
                started_ns = base_ns + round(since * (rate if since > 0 else before))
                since = ended - base
                ended_ns = base_ns + round(since * (rate if since > 0 else before))
            yield TraceEntry(
                id_of(hi, lo),
                id_of(parent_hi, parent_lo),
                names.get(function) or f"{function:016x}",
                KINDS[kind],
                "process" if station else PLACES[place],
                station,
                lane,
                attempt,
                STATUSES[status],
                started_ns if started else None,
                ended_ns,
            )
