"""How a figure is measured and written down.

A machine's speed drifts: it heats up, other work comes and goes. Ours and the peers' therefore take
turns: each round runs every contender once, starting with another one, and a figure is the median
over the rounds. What a contender sets up and warms up is its own affair, outside what it times.
"""

from __future__ import annotations

import json
import math
import re
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

__all__ = [
    "FULL",
    "OURS",
    "PEERS",
    "QUICK",
    "UNITS",
    "Bench",
    "Effort",
    "Figure",
    "Trial",
    "compare",
    "interleaved",
    "seconds_per_call",
]

OURS = "ours"
PEERS = frozenset(
    {"ray", "rayactor", "rayserve", "rllib", "dask", "processpool", "threadpool", "asyncio"}
    | {"loky", "astropy", "sqlite", "rocksdb", "jsonl", "flor", "temporal", "torch", "numpy"}
    | {"dice", "shap", "mlflow", "mlmd", "fastapi", "litserve", "spark", "duckdb", "sb3"}
    | {"bytewax", "pathway", "raphtory", "naive", "tls"}
)
UNITS = frozenset({"s", "ms", "us", "ns", "/s", "%", "B", ""})
SIGNIFICANT_DIGITS = 4
_NAME = re.compile(r"[a-z][a-z0-9_]*\.[a-zA-Z][a-zA-Z0-9_]*")

Better = Literal["higher", "lower"]
Trial = Callable[[], float]


@dataclass(frozen=True)
class Effort:
    """How much a run may take: ``rounds`` per figure, and the ``scale`` of each trial (0 to 1)."""

    rounds: int
    scale: float

    def of(self, count: int) -> int:
        """The number of repetitions to make where a full run makes ``count``; at least 1."""
        return max(1, round(count * self.scale))


FULL = Effort(rounds=15, scale=1.0)
QUICK = Effort(rounds=5, scale=0.2)


@dataclass(frozen=True)
class Figure:
    """One quantity of ours, beside one peer's or alone.

    ``bench`` is ``<module>.<quantity>``. ``theirs`` and ``peer`` are both given or both ``None``.
    Raises ``ValueError`` for an unknown peer or unit, and for what cannot be compared.
    """

    bench: str
    ours: float
    unit: str
    better: Better
    theirs: float | None = None
    peer: str | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.bench):
            raise ValueError(f"bench {self.bench!r}: expected <module>.<quantity>")
        if self.unit not in UNITS:
            raise ValueError(f"{self.bench}: unit {self.unit!r} is none of {sorted(UNITS)}")
        if self.better not in ("higher", "lower"):
            raise ValueError(f"{self.bench}: better is {self.better!r}, not 'higher' or 'lower'")
        if not math.isfinite(self.ours):
            raise ValueError(f"{self.bench}: our figure is {self.ours}")
        if (self.peer is None) != (self.theirs is None):
            raise ValueError(f"{self.bench}: a peer needs a figure, and a figure a peer")
        if self.peer is not None and self.peer not in PEERS:
            raise ValueError(f"{self.bench}: peer {self.peer!r} is none of {sorted(PEERS)}")
        if self.theirs is not None and not (self.ours > 0 and 0 < self.theirs < math.inf):
            raise ValueError(
                f"{self.bench}: {self.ours} and {self.peer}'s {self.theirs} have no ratio"
            )

    @property
    def ratio(self) -> float | None:
        """How many times better ours is than theirs: above 1 is better, whichever way is better."""
        if self.theirs is None:
            return None
        return self.ours / self.theirs if self.better == "higher" else self.theirs / self.ours

    def line(self) -> str:
        """The figure as one line of JSON."""
        return json.dumps(
            {
                "bench": self.bench,
                "ours": _rounded(self.ours),
                "theirs": _rounded(self.theirs),
                "peer": self.peer,
                "unit": self.unit,
                "ratio": _rounded(self.ratio),
                "better": self.better,
            }
        )


@dataclass(frozen=True)
class Bench:
    """A named quantity and the function that measures it: one figure for each peer."""

    name: str
    run: Callable[[Effort], Iterable[Figure]]


def interleaved(contenders: Mapping[str, Trial], rounds: int) -> dict[str, float]:
    """The median trial of each contender over ``rounds`` rounds in which all of them take turns."""
    names = list(contenders)
    trials: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        start = turn % len(names)
        for name in names[start:] + names[:start]:
            trials[name].append(contenders[name]())
    return {name: statistics.median(values) for name, values in trials.items()}


def compare(
    bench: str,
    *,
    ours: Trial,
    peers: Mapping[str, Trial],
    unit: str,
    better: Better,
    effort: Effort,
) -> list[Figure]:
    """Measure ours and the peers' in turns; one figure for each peer, or one alone without any."""
    medians = interleaved({OURS: ours, **peers}, effort.rounds)
    if not peers:
        return [Figure(bench, medians[OURS], unit, better)]
    return [Figure(bench, medians[OURS], unit, better, medians[peer], peer) for peer in peers]


def seconds_per_call(call: Callable[[], object], count: int) -> float:
    """The wall-clock time of one call, in seconds, over ``count`` calls in a row."""
    turns = range(count)
    begin = time.perf_counter()
    for _ in turns:
        call()
    return (time.perf_counter() - begin) / count


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{SIGNIFICANT_DIGITS}g}")
