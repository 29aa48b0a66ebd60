"""How well probabilities predict: proper losses, calibration error, ranking and accuracy.

A proper loss (log loss, Brier score) is smallest for the true probabilities, so that it rewards
honesty; ranking and accuracy do not. All are sums over plain numbers, equal on every machine.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from frameworks.serving.errors import CalibrationError

__all__ = [
    "Metrics",
    "accuracy",
    "brier_score",
    "expected_calibration_error",
    "log_loss",
    "measure",
    "roc_auc",
]


@dataclass(frozen=True, slots=True)
class Metrics:
    """The figures of one set of predictions; small losses and errors are good, large others."""

    log_loss: float
    brier_score: float
    calibration_error: float
    roc_auc: float
    accuracy: float


def measure(probabilities: Sequence[float], labels: Sequence[bool]) -> Metrics:
    """All figures of this module for probabilities of the positive class.

    Raises CalibrationError for lengths that differ, no rows, and values outside [0, 1].
    """
    return Metrics(
        log_loss=log_loss(probabilities, labels),
        brier_score=brier_score(probabilities, labels),
        calibration_error=expected_calibration_error(probabilities, labels),
        roc_auc=roc_auc(probabilities, labels),
        accuracy=accuracy(probabilities, labels),
    )


def log_loss(probabilities: Sequence[float], labels: Sequence[bool]) -> float:
    """Mean negative log likelihood in nats; infinite where a certain prediction was wrong.

    >>> round(log_loss([0.9, 0.2], [True, False]), 4)
    0.1643
    """
    _check(probabilities, labels)
    losses = []
    for probability, label in zip(probabilities, labels, strict=True):
        likelihood = probability if label else 1 - probability
        losses.append(-math.log(likelihood) if likelihood > 0 else math.inf)
    return math.fsum(losses) / len(losses)


def brier_score(probabilities: Sequence[float], labels: Sequence[bool]) -> float:
    """Mean squared distance of the probability from what came true (Brier 1950): 0 is best.

    >>> round(brier_score([0.9, 0.2], [True, False]), 4)
    0.025
    """
    _check(probabilities, labels)
    pairs = zip(probabilities, labels, strict=True)
    return math.fsum((probability - label) ** 2 for probability, label in pairs) / len(labels)


def expected_calibration_error(
    probabilities: Sequence[float], labels: Sequence[bool], bins: int = 10
) -> float:
    """Mean gap between probability and frequency over equally wide bins (Naeini et al. 2015).

    >>> round(expected_calibration_error([0.8] * 5, [True] * 4 + [False]), 12)
    0.0
    """
    _check(probabilities, labels)
    if bins < 1:
        raise CalibrationError(
            f"{bins} bins", what=f"bins = {bins}", expected="at least 1", remedy="Use 10."
        )
    gaps: list[list[float]] = [[] for _ in range(bins)]
    for probability, label in zip(probabilities, labels, strict=True):
        gaps[min(int(probability * bins), bins - 1)].append(probability - label)
    return math.fsum(abs(math.fsum(gap)) for gap in gaps) / len(labels)


def roc_auc(probabilities: Sequence[float], labels: Sequence[bool]) -> float:
    """How often a positive ranks above a negative, a tie being half; NaN with only one class.

    >>> roc_auc([0.9, 0.6, 0.6, 0.1], [True, True, False, False])
    0.875
    """
    _check(probabilities, labels)
    pairs = list(zip(probabilities, labels, strict=True))
    negatives = sorted(probability for probability, label in pairs if not label)
    positives = [probability for probability, label in pairs if label]
    if not (positives and negatives):
        return math.nan
    # Twice the rank: what lies below counts on both sides, what ties on one.
    ranks = (bisect_left(negatives, p) + bisect_right(negatives, p) for p in positives)
    return sum(ranks) / (2 * len(positives) * len(negatives))


def accuracy(probabilities: Sequence[float], labels: Sequence[bool]) -> float:
    """Share of rows whose likelier class came true.

    >>> accuracy([0.9, 0.6], [True, False])
    0.5
    """
    _check(probabilities, labels)
    pairs = zip(probabilities, labels, strict=True)
    return sum((p >= 0.5) == bool(label) for p, label in pairs) / len(labels)


def _check(probabilities: Sequence[float], labels: Sequence[bool]) -> None:
    if len(probabilities) != len(labels) or not len(labels):
        raise CalibrationError(
            f"{len(probabilities)} probabilities for {len(labels)} labels",
            what=f"{len(probabilities)} probabilities",
            expected="as many as labels, at least one",
            remedy="Pass the predictions and the labels of the same rows.",
        )
    for probability in probabilities:
        if not 0 <= probability <= 1:
            raise CalibrationError(
                f"a probability of {probability}",
                what=f"probability {probability}",
                expected="a number within [0, 1]",
                remedy="Pass probabilities, not scores or labels.",
            )
