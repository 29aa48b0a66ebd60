"""What is in the object arena at a moment, for counters, ``srds top`` and error messages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["ObjectStatistics", "describe_holders"]

MOST_NAMED = 4


@dataclass(frozen=True)
class ObjectStatistics:
    """The object arena at a moment; sizes in bytes.

    ``used`` is memory taken, of ``capacity``; ``largest_free`` is the largest object that fits now.
    ``spilled`` of the ``objects`` are on disk. ``holders`` and ``held_bytes`` say how many objects
    each station holds (0 is the kernel's own process), also those that others hold as well.
    ``rebuilt`` counts the times a process died in the middle of a change.
    """

    capacity: int
    used: int
    objects: int
    spilled: int
    spilled_bytes: int
    largest_free: int
    rebuilt: int
    holders: Mapping[int, int]
    held_bytes: Mapping[int, int]


def describe_holders(statistics: ObjectStatistics) -> str:
    """Who holds what, the greatest first, in one line."""
    by_size = sorted(statistics.held_bytes, key=lambda station: -statistics.held_bytes[station])
    parts = [
        f"{'this kernel' if station == 0 else f'worker {station}'} holds "
        f"{statistics.holders[station]:,} objects of {statistics.held_bytes[station]:,} bytes"
        for station in by_size[:MOST_NAMED]
    ]
    if len(by_size) > MOST_NAMED:
        parts.append(f"{len(by_size) - MOST_NAMED} workers hold less")
    return "; ".join(
        [
            f"{statistics.used:,} of {statistics.capacity:,} bytes are used, the largest free room "
            f"is {statistics.largest_free:,}",
            *parts,
        ]
    )
