"""What the mortgage run found, as data."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import srds
from srds.explaining import Explanation
from srds.fairness import GroupRates
from timemachine.replay import Replay

__all__ = ["Audit", "Comparison", "Report", "Tampering", "label_of"]


@dataclass(frozen=True)
class Comparison:
    """What another model would have decided: recorded answer, its answer, and how many."""

    decisions: int
    moves: tuple[tuple[str, str, int], ...]

    @property
    def moved(self) -> int:
        """How many answers are other ones."""
        return sum(count for before, after, count in self.moves if before != after)

    @classmethod
    def of(cls, replays: Sequence[Replay]) -> Comparison:
        """The replays' answers against the recorded ones."""
        counts = Counter((replay.recorded.value["answer"], label_of(replay)) for replay in replays)
        return cls(len(replays), tuple((*move, count) for move, count in sorted(counts.items())))


def label_of(replay: Replay) -> str:
    """The answer of a replayed decision; raises ``AppError`` when it ended with an error."""
    if not replay.replayed.ok:
        raise srds.AppError(
            f"the replay of decision {replay.decision[:8]} ended with {replay.replayed}",
            what=replay.decision,
            expected="an answer",
            remedy="srds replay shows the first difference",
        )
    label: str = replay.replayed.value["answer"]
    return label


@dataclass(frozen=True)
class Audit:
    """The fairness audit.

    ``read``: the columns that decisions read, by the journal; ``protected_read``: the protected
    ones among them. ``groups``: rates by protected column and group. ``moved_when_flipped``: for
    each protected column, how many answers of a model that does see them move when it is flipped,
    and in how many decisions it is known.
    """

    decisions: int
    read: tuple[str, ...]
    protected_read: tuple[str, ...]
    groups: Mapping[str, tuple[GroupRates, ...]]
    moved_when_flipped: Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class Tampering:
    """One flipped byte in a copy of the journal, and what verification says of the copy."""

    segment: str
    offset: int
    frame: int | None
    decision: str | None
    finding: str


@dataclass(frozen=True)
class Report:
    """Everything that the run computed."""

    seed: int
    store: str
    data_sha256: str
    rows: int
    columns: int
    training: int
    held_out: int
    models: Mapping[str, Mapping[str, float]]
    ensemble: Mapping[str, Any]
    answers: Mapping[str, int]
    agreed: int
    answered: int
    seconds: float
    exactness: Mapping[str, str]
    replayed: int
    same_bits: int
    explained: str
    explained_row: int
    explained_answer: Mapping[str, Any]
    explanation: Explanation
    lineage: tuple[str, ...]
    second_version: Comparison
    audit: Audit
    frames: int
    findings: int
    tampering: Tampering

    def to_json(self) -> dict[str, Any]:
        """The report in plain JSON types."""
        plain: dict[str, Any] = dataclasses.asdict(
            dataclasses.replace(self, explanation=None)  # type: ignore[arg-type]
        )
        plain["explanation"] = self.explanation.to_json()
        return plain
