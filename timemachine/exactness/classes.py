"""The four exactness classes, and the report that says why a model is in one.

On a processor the same row gives different last bits in different company: matrix kernels pick
another order of summation for another batch size, row position, buffer alignment or number of
threads. Which of these matter is a property of model, library and machine together, so it is
measured. The class says what a record must hold for a replay with equal bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Evidence", "ExactnessClass", "ExactnessReport", "Factor"]


class ExactnessClass(StrEnum):
    """What decides the bits of a model's answer to one row, from least to most."""

    INVARIANT = "invariant"
    """A: the row alone. It may be replayed in any batch."""

    SHAPE_STABLE = "shape-stable"
    """B: the row, the batch size, thread count and alignment; not its companions or position."""

    BATCH_BOUND = "batch-bound"
    """C: the whole batch in its order. A replay needs all of its rows."""

    UNSTABLE = "unstable"
    """D: not even the same call twice gives the same bits. Audited use refuses it."""

    @property
    def letter(self) -> str:
        """The class's letter, ``A`` to ``D``."""
        return "ABCD"[list(ExactnessClass).index(self)]


class Factor(StrEnum):
    """What differs between two calls whose answers to one row are compared."""

    REPEAT = "repeat"
    COMPANIONS = "companions"
    POSITION = "position"
    ALIGNMENT = "alignment"
    BATCH_SIZE = "batch size"
    THREADS = "threads"


@dataclass(frozen=True)
class Evidence:
    """What was seen of one factor: rows compared, rows with other bits, and how far apart.

    ``max_ulps`` is None when a difference has no distance (a NaN against a number). ``example``
    describes the first difference, or is empty.
    """

    factor: Factor
    compared: int
    differing: int
    max_ulps: int | None
    example: str = ""


@dataclass(frozen=True)
class ExactnessReport:
    """The measured class of a model, the evidence, and how much of the plan the time allowed.

    ``calls`` of ``planned`` calls were made in ``seconds``; ``rows``, ``batch_sizes`` and
    ``threads`` are what those calls covered. A class is a measurement over what was covered, not a
    proof: a rare difference that no call met stays unseen.
    """

    exactness: ExactnessClass
    evidence: tuple[Evidence, ...]
    rows: int
    batch_sizes: tuple[int, ...]
    threads: tuple[int, ...]
    calls: int
    planned: int
    seconds: float

    @property
    def complete(self) -> bool:
        """Whether every planned call was made, or the answer was certain before."""
        return self.calls >= self.planned or self.exactness is ExactnessClass.UNSTABLE

    def of(self, factor: Factor) -> Evidence:
        """The evidence on one factor."""
        return next(seen for seen in self.evidence if seen.factor is factor)

    def summary(self) -> str:
        """One line for a person: the class, what changed bits, and the coverage."""
        causes = [
            f"{seen.factor} ({seen.differing}/{seen.compared} rows"
            + (f", {seen.max_ulps} ulps)" if seen.max_ulps is not None else ")")
            for seen in self.evidence
            if seen.differing
        ]
        return (
            f"{self.exactness.letter} {self.exactness}: "
            + (f"bits change with {', '.join(causes)}" if causes else "no difference found")
            + f"; {self.calls} of {self.planned} calls in {self.seconds:.2f} s"
        )
