"""How a figure is measured and written down.

A machine's speed drifts: it heats up, other work comes and goes. Ours and the peers' therefore take
turns: each round runs every contender once, starting with another one, and a figure is the median
over the rounds. What a contender sets up and warms up is its own affair, outside what it times.
A contender that takes seconds to start takes part in a few of the rounds, spread evenly.
"""

from __future__ import annotations

import json
import math
import re
import statistics
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
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
    "Goal",
    "Trial",
    "compare",
    "figures_of",
    "interleaved",
    "seconds_per_call",
]

OURS = "ours"
PEERS = frozenset(
    {"ray", "rayactor", "rayserve", "rllib", "dask", "processpool", "threadpool", "asyncio"}
    | {"loky", "astropy", "sqlite", "rocksdb", "jsonl", "flor", "temporal", "torch", "numpy"}
    | {"dice", "shap", "mlflow", "mlmd", "fastapi", "litserve", "spark", "duckdb", "sb3"}
    | {"bytewax", "pathway", "raphtory", "naive", "tls", "multiprocessing", "fifo"}
)
UNITS = frozenset({"s", "ms", "us", "ns", "/s", "%", "B", "MB", ""})
SIGNIFICANT_DIGITS = 4
_NAME = re.compile(r"[a-z][a-z0-9_]*\.[a-zA-Z][a-zA-Z0-9_]*")

Better = Literal["higher", "lower"]
Trial = Callable[[], float]


@dataclass(frozen=True)
class Effort:
    """How much a run may take: ``rounds`` per figure, the ``scale`` of each trial (0 to 1), and
    ``turns``, the rounds that a contender takes part in whose trials take seconds."""

    rounds: int
    scale: float
    turns: int = 1

    def of(self, count: int) -> int:
        """The number of repetitions to make where a full run makes ``count``; at least 1."""
        return max(1, round(count * self.scale))


FULL = Effort(rounds=15, scale=1.0, turns=3)
QUICK = Effort(rounds=5, scale=0.2)


@dataclass(frozen=True)
class Goal:
    """What a quantity is to reach: a bound on ``ours``, in its unit, and for each peer in ``times``
    how many times better than it ours is to be."""

    ours: float | None = None
    times: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        strangers = set(self.times) - PEERS
        if strangers:
            raise ValueError(f"peer {sorted(strangers)[0]!r} is none of {sorted(PEERS)}")


@dataclass(frozen=True)
class Figure:
    """One quantity of ours, beside one peer's or alone.

    ``bench`` is ``<module>.<quantity>``. ``theirs`` and ``peer`` are both given or both ``None``.
    ``goal`` is the bound that ours is to keep, ``goal_ratio`` the least
    ``ratio`` aimed at. Raises ``ValueError`` for an unknown peer or unit, and for what cannot be
    compared.
    """

    bench: str
    ours: float
    unit: str
    better: Better
    theirs: float | None = None
    peer: str | None = None
    goal: float | None = None
    goal_ratio: float | None = None

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
        if self.goal_ratio is not None and self.peer is None:
            raise ValueError(f"{self.bench}: a ratio to reach needs a peer")

    @property
    def ratio(self) -> float | None:
        """How many times better ours is than theirs: above 1 is better, whichever way is better."""
        if self.theirs is None:
            return None
        return self.ours / self.theirs if self.better == "higher" else self.theirs / self.ours

    @property
    def met(self) -> bool | None:
        """Whether ours reaches its goals; ``None`` without any."""
        reached = []
        if self.goal is not None:
            higher = self.better == "higher"
            reached.append(self.ours >= self.goal if higher else self.ours <= self.goal)
        if self.goal_ratio is not None and self.ratio is not None:
            reached.append(self.ratio >= self.goal_ratio)
        return all(reached) if reached else None

    def line(self) -> str:
        """The figure as one line of JSON; the goals only where there are any."""
        fields: dict[str, object] = {
            "bench": self.bench,
            "ours": _rounded(self.ours),
            "theirs": _rounded(self.theirs),
            "peer": self.peer,
            "unit": self.unit,
            "ratio": _rounded(self.ratio),
            "better": self.better,
        }
        if self.met is not None:
            fields |= {"goal": self.goal, "goal_ratio": self.goal_ratio, "met": self.met}
        return json.dumps(fields)

    @classmethod
    def parse(cls, line: str) -> Figure:
        """The figure of a ``line``. What follows from the other fields is worked out again."""
        fields = json.loads(line)
        for derived in ("ratio", "met"):
            fields.pop(derived, None)
        return cls(**fields)


@dataclass(frozen=True)
class Bench:
    """A named quantity and the function that measures it: one figure for each peer."""

    name: str
    run: Callable[[Effort], Iterable[Figure]]


def interleaved(
    contenders: Mapping[str, Trial],
    rounds: int,
    seldom: Collection[str] = (),
    turns: int = 1,
) -> dict[str, float]:
    """The median trial of each contender over ``rounds`` rounds in which all of them take turns.

    Those in ``seldom`` take part in ``turns`` of the rounds, spread evenly from the first on.
    """
    names = list(contenders)
    trials: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        start = turn % len(names)
        for name in names[start:] + names[:start]:
            if name not in seldom or turn * turns % rounds < turns:
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
    seldom: Collection[str] = (),
    turns: int | None = None,
    goal: Goal | None = None,
) -> list[Figure]:
    """Measure ours and the peers' in turns; one figure for each peer, or one alone without any.

    Peers in ``seldom`` take part in ``turns`` of the rounds, by default ``effort.turns``.
    """
    medians = interleaved({OURS: ours, **peers}, effort.rounds, seldom, turns or effort.turns)
    return figures_of(bench, medians, unit=unit, better=better, goal=goal)


def figures_of(
    bench: str,
    medians: Mapping[str, float],
    *,
    unit: str,
    better: Better,
    goal: Goal | None = None,
) -> list[Figure]:
    """What was measured, as figures: ``OURS`` beside each of the others, or alone."""
    goal = goal or Goal()
    ours = medians[OURS]
    peers = [name for name in medians if name != OURS]
    if not peers:
        return [Figure(bench, ours, unit, better, goal=goal.ours)]
    return [
        Figure(bench, ours, unit, better, medians[peer], peer, goal.ours, goal.times.get(peer))
        for peer in peers
    ]


def seconds_per_call(call: Callable[[], object], count: int) -> float:
    """The wall-clock time of one call, in seconds, over ``count`` calls in a row."""
    turns = range(count)
    begin = time.perf_counter()
    for _ in turns:
        call()
    return (time.perf_counter() - begin) / count


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{SIGNIFICANT_DIGITS}g}")
