"""``boundary``: what recording adds to a decision, and what the door costs where it stands open.

The decision reads three inputs through ``boundary.read``, computes a score, and takes 3 µs on a
kernel that keeps nothing. Recorded, it leaves five events in the journal: what it was asked, three
inputs, the answer. Each trial is a burst that the journal's ring can hold; before the next one,
the flusher has caught up.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.measure import Bench, Effort, Figure, interleaved, seconds_per_call
from benchmarks.scratch import scratch_journal

if TYPE_CHECKING:
    from microkernel import Kernel
    from timemachine.journal import Journal

__all__ = ["benches"]

DECISIONS = 2000
# Short trials and many rounds: a difference of a microsecond drowns where other work cuts in.
ROUNDS_FACTOR = 4
CLOCK_CALLS = 200_000
DECISION_SECONDS = 3e-6
TABLE = {"income": 4583.0, "loan": 128.0, "debt_ratio": 0.31}


def benches() -> list[Bench]:
    """The benches of this module."""
    return [
        Bench("boundary.decision", _decision),
        Bench("boundary.record", _record),
        Bench("boundary.shim_off", _shim_off),
    ]


def _record(effort: Effort) -> Iterable[Figure]:
    with ExitStack() as opened:
        live, recording, journal = opened.enter_context(_kernels())
        decide = _three_microseconds(live)
        medians = interleaved(
            {
                "live": partial(_per_decision, live, decide),
                "recorded": partial(_per_decision, recording, decide, journal),
            },
            effort.rounds * ROUNDS_FACTOR,
        )
    added = medians["recorded"] / medians["live"] - 1
    yield Figure("boundary.record", 100 * added, "%", "lower")


def _decision(effort: Effort) -> Iterable[Figure]:
    with ExitStack() as opened:
        live, recording, journal = opened.enter_context(_kernels())
        decide = _three_microseconds(live)
        medians = interleaved(
            {
                "plain": partial(seconds_per_call, partial(decide, 7), DECISIONS),
                "recorded": partial(_per_decision, recording, decide, journal),
            },
            effort.rounds * ROUNDS_FACTOR,
        )
    added = medians["recorded"] - medians["plain"]
    yield Figure("boundary.decision", 1e9 * added, "ns", "lower")


def _shim_off(effort: Effort) -> Iterable[Figure]:
    from microkernel import shims

    def trial(prepare: Callable[[], None]) -> float:
        prepare()
        return seconds_per_call(time.time, effort.of(CLOCK_CALLS))

    try:
        medians = interleaved(
            {"bare": partial(trial, shims.remove), "shimmed": partial(trial, shims.install)},
            effort.rounds,
        )
    finally:
        shims.remove()
    added = medians["shimmed"] - medians["bare"]
    yield Figure("boundary.shim_off", 1e9 * added, "ns", "lower")


@contextmanager
def _kernels() -> Iterator[tuple[Kernel, Kernel, Journal]]:
    """A kernel that keeps nothing, one that records, and the journal that it records in."""
    from microkernel import Kernel

    with (
        scratch_journal() as journal,
        Kernel() as live,
        Kernel(sink=journal, run_id=journal.run_id) as recording,
    ):
        yield live, recording, journal


def _per_decision(
    kernel: Kernel, decide: Callable[[int], bool], journal: Journal | None = None
) -> float:
    if journal is not None:
        journal.sync()
    return seconds_per_call(partial(kernel.decision, decide, 7), DECISIONS)


def _three_microseconds(live: Kernel) -> Callable[[int], bool]:
    """A decision that takes ``DECISION_SECONDS`` on ``live``, by the number of terms it adds up."""

    def seconds(terms: int) -> float:
        call = partial(live.decision, _decide_by(terms), 7)
        return statistics.median(seconds_per_call(call, 2000) for _ in range(9))

    seconds(0)
    none, many = seconds(0), seconds(400)
    return _decide_by(max(0, round((DECISION_SECONDS - none) / (many - none) * 400)))


def _decide_by(terms: int) -> Callable[[int], bool]:
    from microkernel import boundary

    read = boundary.read
    weights = [0.5 / (term + 1) for term in range(terms)]

    def decide(applicant: int) -> bool:
        score = read("table", "income", lambda: TABLE["income"])
        score -= read("table", "loan", lambda: TABLE["loan"])
        score *= read("table", "debt_ratio", lambda: TABLE["debt_ratio"])
        for weight in weights:
            score += weight
        return score > applicant

    return decide
