"""Which inputs moved a decision, and how far: ablation and Shapley values over perturbed replays.

Ablation replaces one input by its baseline value and reports how the score falls. It is exact, but
blind where two inputs can stand in for each other. The Shapley value (Shapley 1953; for inputs of a
model Štrumbelj and Kononenko 2010) shares ``score(recorded) - score(baseline)`` out among the
inputs: their effects sum to it. With few inputs it is computed exactly over all coalitions;
otherwise it is the mean over sampled orders, each walked forwards and backwards (antithetic pairs,
Mitchell et al. 2022), which is unbiased, keeps the sum exact, and is the same on every call because
the generator is passed in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from timemachine.errors import ExplanationError
from timemachine.explanation import Answer, Judge, Scalar, ask, same_value

if TYPE_CHECKING:
    from numpy.random import Generator

__all__ = ["Effect", "attribute"]


@dataclass(frozen=True, slots=True)
class Effect:
    """How one input moved the score of a decision; positive raised it above the baseline's.

    ``ablation`` is the score as recorded minus the score with this one input at its baseline, and
    ``ablated`` the answer there. ``shapley`` is this input's share of the distance between the
    recorded and the baseline score, with its standard error (0 where it is exact); both are None
    where they were not asked for.
    """

    name: str
    recorded: Scalar
    baseline: Scalar
    ablation: float
    ablated: str
    shapley: float | None = None
    standard_error: float | None = None

    @property
    def value(self) -> float:
        """The Shapley value where there is one, else the ablation."""
        return self.ablation if self.shapley is None else self.shapley


def attribute(
    inputs: Mapping[str, Scalar],
    baseline: Mapping[str, Scalar],
    judge: Judge,
    *,
    generator: Generator | None = None,
    pairs: int = 32,
) -> list[Effect]:
    """Attribute the score of a recorded decision to its inputs, in descending absolute effect.

    Args:
        inputs: the recorded inputs by name.
        baseline: for each input to attribute, the value that stands for "nothing special", such
            as a median. Inputs without one keep their recorded value throughout.
        judge: re-decides a batch of overrides.
        generator: draws the orders for Shapley values; without one, only ablation is done.
        pairs: orders to sample, each of them walked both ways (at least 2). Cost: at most
            ``2 * pairs * inputs`` replays; fewer where all coalitions are no more than that.

    Raises ExplanationError for a baseline that is empty, names an unknown input or holds NaN, and
    for a judge that fails to answer.

    >>> def judge(batch):
    ...     rows = [{"income": 20.0, "debt": 9.0, **overrides} for overrides in batch]
    ...     scores = [row["income"] - 2 * row["debt"] for row in rows]
    ...     return [Answer("approve" if score > 5 else "reject", score) for score in scores]
    >>> for effect in attribute(
    ...     {"income": 20.0, "debt": 9.0}, {"income": 30.0, "debt": 5.0}, judge
    ... ):
    ...     print(effect.name, effect.ablation, effect.ablated)
    income -10.0 approve
    debt -8.0 approve
    """
    _check(inputs, baseline, pairs)
    differing = [name for name in baseline if not same_value(inputs[name], baseline[name])]
    recorded, *ablated = ask(judge, [{}, *({name: baseline[name]} for name in differing)])
    by_name = dict(zip(differing, ablated, strict=True))
    shares: dict[str, tuple[float, float]] = {}
    if generator is not None:
        shares = _shapley(differing, baseline, judge, recorded, generator, pairs)
    effects = []
    for name in baseline:
        alone = by_name.get(name, recorded)
        share, error = shares.get(name, (0.0, 0.0))
        effects.append(
            Effect(
                name=name,
                recorded=inputs[name],
                baseline=baseline[name],
                ablation=recorded.score - alone.score,
                ablated=alone.label,
                shapley=None if generator is None else share,
                standard_error=None if generator is None else error,
            )
        )
    return sorted(effects, key=lambda effect: -abs(effect.value))


def _check(inputs: Mapping[str, Scalar], baseline: Mapping[str, Scalar], pairs: int) -> None:
    if not baseline:
        raise ExplanationError(
            "no input has a baseline value",
            what="an empty baseline",
            expected="a value for each input to attribute",
            remedy="Pass, for example, the medians of the training data.",
        )
    if pairs < 2:
        raise ExplanationError(
            f"pairs = {pairs} gives no standard error",
            what=f"pairs = {pairs}",
            expected="at least 2",
            remedy="Sample more orders.",
        )
    for name, value in baseline.items():
        if name not in inputs:
            raise ExplanationError(
                f"the decision read no input named {name!r}",
                what=f"baseline for {name!r}",
                expected=f"one of {', '.join(sorted(inputs))}",
                remedy="Give baselines only for inputs that the decision read.",
            )
        if isinstance(value, float) and math.isnan(value):
            raise ExplanationError(
                f"the baseline of {name!r} is NaN",
                what=f"baseline of {name!r}",
                expected="a value; None where a missing value is the baseline",
                remedy="Take the median of the values that are present.",
            )


def _shapley(
    names: Sequence[str],
    baseline: Mapping[str, Scalar],
    judge: Judge,
    recorded: Answer,
    generator: Generator,
    pairs: int,
) -> dict[str, tuple[float, float]]:
    """Shapley value and standard error of each input that differs from its baseline.

    A coalition is a bit mask of the inputs that hold their recorded value. Inputs that equal their
    baseline are null players: their share is 0 and leaving them out changes no other's.
    """
    count = len(names)
    if count == 0:
        return {}
    everything = (1 << count) - 1
    exact = 2**count <= 2 * pairs * count
    orders: list[list[int]] = []
    if exact:
        coalitions = list(range(everything))
    else:
        for _ in range(pairs):
            order = [int(index) for index in generator.permutation(count)]
            orders += [order, order[::-1]]
        coalitions = sorted({mask for order in orders for mask in _walk(order)} - {everything})
    overrides = [
        {name: baseline[name] for bit, name in enumerate(names) if not mask >> bit & 1}
        for mask in coalitions
    ]
    answers = ask(judge, overrides)
    scores = {mask: answer.score for mask, answer in zip(coalitions, answers, strict=True)}
    scores[everything] = recorded.score
    if exact:
        return {name: (_exact_share(bit, count, scores), 0.0) for bit, name in enumerate(names)}
    return _sampled_shares(names, orders, scores)


def _walk(order: Sequence[int]) -> list[int]:
    """The coalitions met when the inputs join one by one in this order, from none to all."""
    masks = [0]
    for bit in order:
        masks.append(masks[-1] | 1 << bit)
    return masks


def _exact_share(bit: int, count: int, scores: Mapping[int, float]) -> float:
    weights = [1 / (count * math.comb(count - 1, size)) for size in range(count)]
    return math.fsum(
        weights[mask.bit_count()] * (scores[mask | 1 << bit] - scores[mask])
        for mask in range(1 << count)
        if not mask >> bit & 1
    )


def _sampled_shares(
    names: Sequence[str], orders: Sequence[Sequence[int]], scores: Mapping[int, float]
) -> dict[str, tuple[float, float]]:
    gains: list[list[float]] = [[] for _ in names]
    for order in orders:
        for bit, (before, after) in zip(order, pairwise(_walk(order)), strict=True):
            gains[bit].append(scores[after] - scores[before])
    shares = {}
    for name, gained in zip(names, gains, strict=True):
        # The two walks of a pair are dependent: their mean is the independent observation.
        means = [(gained[at] + gained[at + 1]) / 2 for at in range(0, len(gained), 2)]
        share = math.fsum(means) / len(means)
        variance = math.fsum((mean - share) ** 2 for mean in means) / (len(means) - 1)
        shares[name] = (share, math.sqrt(variance / len(means)))
    return shares
