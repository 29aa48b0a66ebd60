"""Rates of a decision's answers by group, each with its interval, and differences between groups.

A rate over a small group says little without its interval, and the usual "plus or minus two
standard errors" is wrong near 0 and 1, where approval and error rates live. So a rate carries the
Wilson score interval (Wilson 1927) and a difference of two the interval that Newcombe built from it
(1998, "Interval estimation for the difference between independent proportions", method 10).

These are rates of what was observed. They show that a group fares otherwise, not why.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import NormalDist

__all__ = [
    "Difference",
    "GroupRates",
    "Observation",
    "Rate",
    "difference",
    "rates_by_group",
    "wilson",
]


@dataclass(frozen=True, slots=True)
class Rate:
    """A share ``count / total`` with its interval ``[low, high]``: NaN, 0 and 1 for total 0."""

    count: int
    total: int
    low: float
    high: float
    confidence: float = 0.95

    @property
    def value(self) -> float:
        """The share observed, NaN where nothing was."""
        return self.count / self.total if self.total else math.nan


@dataclass(frozen=True, slots=True)
class Difference:
    """The rate of one group minus that of another, with its interval ``[low, high]``."""

    value: float
    low: float
    high: float
    confidence: float = 0.95

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval leaves out "no difference"."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, slots=True)
class Observation:
    """One decision for the audit: the person's group, the answer given, and the truth if known.

    ``group`` is None where it is not known; such decisions form a group of their own.
    """

    group: str | None
    answer: str
    truth: str | None = None


@dataclass(frozen=True, slots=True)
class GroupRates:
    """What a group met with.

    ``positive`` is the share of all its decisions that had the positive answer, ``abstention`` the
    share without an answer, ``error`` the share of wrong answers among those answered whose truth
    is known.
    """

    group: str | None
    positive: Rate
    abstention: Rate
    error: Rate


def wilson(count: int, total: int, confidence: float = 0.95) -> Rate:
    """The rate ``count / total`` with its Wilson score interval.

    Args:
        count: successes, 0 to ``total``.
        total: trials; with 0 of them the interval is all of [0, 1].
        confidence: coverage of the interval, within (0, 1).

    Raises ValueError for values outside these ranges.

    >>> rate = wilson(81, 263)
    >>> round(rate.low, 4), round(rate.high, 4)
    (0.2553, 0.3662)
    """
    if not 0 <= count <= total:
        raise ValueError(f"{count} of {total}: a count lies between 0 and its total")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence = {confidence}: expected a number within (0, 1)")
    if total == 0:
        return Rate(count, total, 0.0, 1.0, confidence)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = count / total
    middle = share + z * z / (2 * total)
    reach = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    # At 0 and at all, the bound is exactly 0 and 1; the formula would miss it by a rounding.
    low = 0.0 if count == 0 else (middle - reach) / scale
    high = 1.0 if count == total else (middle + reach) / scale
    return Rate(count, total, low, high, confidence)


def difference(first: Rate, second: Rate) -> Difference:
    """The first rate minus the second, with Newcombe's interval for independent groups.

    Raises ValueError when a group is empty or the two rates have different confidence.

    >>> gap = difference(wilson(56, 70), wilson(48, 80))
    >>> round(gap.value, 4), round(gap.low, 4), round(gap.high, 4)
    (0.2, 0.0524, 0.3339)
    """
    if not (first.total and second.total):
        raise ValueError("a group without decisions has no rate to compare")
    if first.confidence != second.confidence:
        raise ValueError(
            f"rates at confidence {first.confidence} and {second.confidence} cannot be compared"
        )
    gap = first.value - second.value
    low = gap - math.hypot(first.value - first.low, second.high - second.value)
    high = gap + math.hypot(first.high - first.value, second.value - second.low)
    return Difference(gap, low, high, first.confidence)


def rates_by_group(
    observations: Iterable[Observation],
    *,
    positive: str,
    abstention: str = "I don't know",
    confidence: float = 0.95,
) -> tuple[GroupRates, ...]:
    """Positive, abstention and error rates of each group, in the order of the groups' names.

    Args:
        observations: the decisions, in any order.
        positive: the answer that people wish for, such as ``"approve"``.
        abstention: the answer that is none.
        confidence: coverage of each interval, within (0, 1).

    Decisions whose group is not known come last, under the group None.
    """
    groups: defaultdict[str | None, list[Observation]] = defaultdict(list)
    for observation in observations:
        groups[observation.group].append(observation)
    rates = []
    for group in sorted(groups, key=lambda name: (name is None, name or "")):
        members = groups[group]
        answers = [member.answer for member in members]
        checked = [m for m in members if m.answer != abstention and m.truth is not None]
        wrong = sum(member.answer != member.truth for member in checked)
        rates.append(
            GroupRates(
                group=group,
                positive=wilson(answers.count(positive), len(members), confidence),
                abstention=wilson(answers.count(abstention), len(members), confidence),
                error=wilson(wrong, len(checked), confidence),
            )
        )
    return tuple(rates)
