"""Which calls the self-test makes, and in which order.

The order is what makes a time limit honest: every batch asks all questions before the next batch
size has its turn, and each round takes other rows, so a test that is cut short has compared all
factors on fewer rows instead of some factors on all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from timemachine.exactness.classes import Factor

__all__ = ["ExactnessSettings", "Probe", "probes"]


@dataclass(frozen=True)
class ExactnessSettings:
    """How much the self-test tries.

    - ``batch_sizes``: rows per call, each at least 1. The defaults straddle the widths at which
      matrix kernels change over (2, 4, 8, 16, 32, 64).
    - ``threads``: thread counts for BLAS and OpenMP, each at least 1; the first is the reference.
    - ``offsets``: elements by which the input buffer is moved from a 64-byte boundary; 0 is the
      reference and is always tried.
    - ``max_rows``: at most this many of the given rows are used.
    - ``rounds``: passes over all of it, each on other rows.
    - ``budget_s``: seconds after which no further call starts, once each factor has been compared
      at least once.
    """

    batch_sizes: tuple[int, ...] = (32, 1, 2, 5, 8, 16, 3, 64, 4, 7, 31, 33, 6, 13, 48, 100)
    threads: tuple[int, ...] = (1, 2)
    offsets: tuple[int, ...] = (1, 2, 3, 5)
    max_rows: int = 1024
    rounds: int = 12
    budget_s: float = 1.0

    def __post_init__(self) -> None:
        for name in ("batch_sizes", "threads"):
            values = getattr(self, name)
            if not values or min(values) < 1:
                raise ValueError(f"{name} must be one or more counts of at least 1, not {values!r}")
        if any(not 0 <= offset < 64 for offset in self.offsets):
            raise ValueError(f"offsets must be from 0 to 63 elements, not {self.offsets!r}")
        for name in ("max_rows", "rounds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)!r}")
        if not self.budget_s > 0:
            raise ValueError(f"budget_s must be more than 0 seconds, not {self.budget_s!r}")


@dataclass(frozen=True, eq=False)
class Probe:
    """One call of the model: which rows in which order, and under which conditions.

    ``asks`` is the factor in which the call differs from the last one of the same ``group`` (one
    choice of rows in one round) that asked nothing.
    """

    rows: np.ndarray[tuple[int], np.dtype[np.intp]]
    threads: int
    offset: int
    asks: Factor | None
    group: tuple[int, int]


def probes(available: int, settings: ExactnessSettings) -> Iterator[Probe]:
    """All calls of the self-test over ``available`` rows, the most telling first."""
    sizes = tuple(dict.fromkeys(min(size, available) for size in settings.batch_sizes))
    for turn in range(settings.rounds):
        for size in sizes:
            for part in range(max(1, _FEWEST_ROWS // size)):
                start = (turn * _STRIDE + part * size) % available
                rows = (start + np.arange(size)) % available
                for threads in dict.fromkeys(settings.threads):
                    yield Probe(rows, threads, 0, None, (size, start))
                    # The further parts of a small size are there for more comparisons with other
                    # sizes; one of them is enough for the other questions.
                    if part == 0:
                        yield from _questions(rows, start, threads, turn, available, settings)


# Small batches get as many rows compared in a round as this, in several calls: where one row in
# twelve depends on its batch, a model with fewer would pass for invariant too often.
_FEWEST_ROWS = 48
# A prime, so that the rounds begin at all remainders of every kernel width.
_STRIDE = 37


def _questions(
    rows: np.ndarray[tuple[int], np.dtype[np.intp]],
    start: int,
    threads: int,
    turn: int,
    available: int,
    settings: ExactnessSettings,
) -> Iterator[Probe]:
    group = (len(rows), start)
    yield Probe(rows, threads, 0, Factor.REPEAT, group)
    if len(rows) > 1:
        yield Probe(np.roll(rows, 1 + turn % (len(rows) - 1)), threads, 0, Factor.POSITION, group)
    if 1 < len(rows) < available:
        # Every second row stays where it was, the others make way for strangers.
        mixed = rows.copy()
        mixed[1 - turn % 2 :: 2] = (mixed[1 - turn % 2 :: 2] + len(rows)) % available
        yield Probe(mixed, threads, 0, Factor.COMPANIONS, group)
    offsets = [offset for offset in settings.offsets if offset]
    if offsets:
        yield Probe(rows, threads, offsets[turn % len(offsets)], Factor.ALIGNMENT, group)
