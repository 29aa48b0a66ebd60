"""What can be set about a journal."""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import Literal

from timemachine.errors import JournalError

__all__ = ["JournalSettings"]


@dataclass(frozen=True)
class JournalSettings:
    """How a journal buffers, writes and signs.

    ``ring_bytes``: size of the shared-memory ring, a power of two from 64 KiB to 1 GiB. An event
    larger than a quarter of it is written before its append returns.
    ``segment_bytes``: a new segment file is begun once one has grown to this.
    ``flush_interval_ms``, ``flush_bytes``: the flusher writes and syncs what has gathered after
    the interval, or sooner when so many bytes wait.
    ``checkpoint_seconds``, ``checkpoint_events``: a signed checkpoint is made when either is over
    and something was appended.
    ``durable``: ``"group"``: append returns once the event is in shared memory, which survives a
    killed process; ``"ack"``: it returns once the event is synced to disk as well.

    Raises ``JournalError`` when a value is out of range.
    """

    ring_bytes: int = 16 << 20
    segment_bytes: int = 64 << 20
    flush_interval_ms: float = 2.0
    flush_bytes: int = 1 << 20
    checkpoint_seconds: float = 1.0
    checkpoint_events: int = 65_536
    durable: Literal["group", "ack"] = "group"

    def __post_init__(self) -> None:
        ring = self.ring_bytes
        smallest = max(64 << 10, mmap.PAGESIZE)
        if ring & (ring - 1) or not smallest <= ring <= 1 << 30:
            raise _invalid("ring_bytes", ring, f"a power of two from {smallest} to {1 << 30}")
        if self.segment_bytes < 4096:
            raise _invalid("segment_bytes", self.segment_bytes, "at least 4096")
        if not 0.01 <= self.flush_interval_ms <= 60_000:
            raise _invalid("flush_interval_ms", self.flush_interval_ms, "0.01 to 60000")
        if self.flush_bytes < 1:
            raise _invalid("flush_bytes", self.flush_bytes, "at least 1")
        if not 0.001 <= self.checkpoint_seconds <= 86_400:
            raise _invalid("checkpoint_seconds", self.checkpoint_seconds, "0.001 to 86400")
        if self.checkpoint_events < 1:
            raise _invalid("checkpoint_events", self.checkpoint_events, "at least 1")
        if self.durable not in ("group", "ack"):
            raise _invalid("durable", self.durable, "'group' or 'ack'")


def _invalid(name: str, value: object, expected: str) -> JournalError:
    return JournalError(
        f"journal setting {name} is {value!r}",
        what=name,
        expected=expected,
        remedy="change the setting",
    )
