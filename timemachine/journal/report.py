"""What a verification found: one report for each log, one finding for each thing that is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Finding", "LogReport", "VerifyReport"]


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it was written.

    ``severity``: ``"damage"``, or ``"notice"`` for what a crash leaves behind. ``segment`` is the
    file's name, ``offset`` the byte in it, ``seq`` the frame, ``decision`` the 16 bytes of the
    decision that the frame belongs to; None or empty where not known.
    """

    severity: Literal["damage", "notice"]
    log: str
    message: str
    segment: str = ""
    offset: int | None = None
    seq: int | None = None
    decision: bytes | None = None

    def __str__(self) -> str:
        place = [f"log {self.log}"]
        if self.segment:
            place.append(self.segment)
        if self.offset is not None:
            place.append(f"offset {self.offset}")
        if self.seq is not None:
            place.append(f"frame {self.seq}")
        if self.decision is not None:
            place.append(f"decision {self.decision.hex()}")
        return f"{', '.join(place)}: {self.message}"


@dataclass(frozen=True)
class LogReport:
    """What was found in one log: ``frames`` in ``segments`` files, of which the first
    ``signed_frames`` are covered by the last of ``checkpoints`` signed heads."""

    log: str
    segments: int
    frames: int
    signed_frames: int
    checkpoints: int
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class VerifyReport:
    """The result of ``verify``, by log."""

    logs: tuple[LogReport, ...]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All findings."""
        return tuple(finding for log in self.logs for finding in log.findings)

    @property
    def ok(self) -> bool:
        """Whether nothing is damaged."""
        return not any(finding.severity == "damage" for finding in self.findings)

    @property
    def frames(self) -> int:
        """The number of frames looked at."""
        return sum(log.frames for log in self.logs)
