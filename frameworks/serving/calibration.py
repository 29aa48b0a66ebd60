"""Calibration of a model's score: of the cases with probability 0.8, 80 % should come true.

A calibration is fitted on out-of-fold predictions, never on those a model made for the rows that it
was trained on. Two maps are tried: Platt's (1999: a logistic function of the score's log odds, with
his smoothed targets) and isotonic regression (Zadrozny and Elkan 2002); the one with the smaller
log loss on held-out folds is fitted on all rows.

A fitted calibration is a plain frozen description. It is stored as JSON and applied to one score at
a time with elementwise Python arithmetic: no BLAS and no batch enters, so that a replay gives the
same bits whatever batch the score came from.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, TypeAlias

from frameworks.serving.errors import CalibrationError
from frameworks.serving.metrics import log_loss

__all__ = [
    "Calibration",
    "Isotonic",
    "Platt",
    "describe_calibration",
    "fit_calibration",
    "restore_calibration",
]

# Fewer rows of one class than this pin down neither of the maps.
_LEAST_OF_A_CLASS = 10

# A score of exactly 0 or 1 has no log odds.
_EDGE = 1e-6


@dataclass(frozen=True, slots=True)
class Platt:
    """Probability = logistic(``slope`` * log odds of the score + ``intercept``)."""

    slope: float
    intercept: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.slope) and math.isfinite(self.intercept)):
            raise CalibrationError(
                f"a Platt calibration with slope {self.slope} and intercept {self.intercept}",
                what="slope or intercept",
                expected="finite numbers",
                remedy="Fit it again.",
            )

    def __call__(self, score: float) -> float:
        """The calibrated probability for a score within [0, 1]; CalibrationError for others."""
        return _logistic(self.slope * _log_odds(_checked(score)) + self.intercept)


@dataclass(frozen=True, slots=True)
class Isotonic:
    """Linear interpolation between (score, probability) knots, flat beyond the outermost two."""

    scores: tuple[float, ...]
    probabilities: tuple[float, ...]

    def __post_init__(self) -> None:
        scores, probabilities = self.scores, self.probabilities
        if not (
            scores
            and len(scores) == len(probabilities)
            and all(low < high for low, high in pairwise(scores))
            and all(low <= high for low, high in pairwise(probabilities))
            and 0 <= probabilities[0] <= probabilities[-1] <= 1
        ):
            raise CalibrationError(
                "an isotonic calibration whose knots do not rise",
                what="scores or probabilities",
                expected="equally many of both: scores rising, probabilities from 0 to 1 not "
                "falling",
                remedy="Fit it again.",
            )

    def __call__(self, score: float) -> float:
        """The calibrated probability for a score within [0, 1]; CalibrationError for others."""
        right = bisect_right(self.scores, _checked(score))
        if right == 0:
            return self.probabilities[0]
        if right == len(self.scores):
            return self.probabilities[-1]
        low, high = self.scores[right - 1], self.scores[right]
        below, above = self.probabilities[right - 1], self.probabilities[right]
        return below + (above - below) * ((score - low) / (high - low))


Calibration: TypeAlias = Platt | Isotonic


def fit_calibration(
    scores: Sequence[float], labels: Sequence[bool], folds: Sequence[int]
) -> Calibration:
    """Fit the calibration that predicts held-out folds best, on all rows.

    Args:
        scores: out-of-fold probabilities of the positive class, each within [0, 1].
        labels: whether each row was positive.
        folds: the number of the fold that each row was held out in; at least two different ones.

    Raises CalibrationError for scores outside their range, unequal lengths, a single fold, or fewer
    than 10 rows of a class in what is left without any one fold.
    """
    import numpy as np

    p = np.asarray([_checked(score) for score in scores], dtype=np.float64)
    y = np.asarray(labels, dtype=bool)
    k = np.asarray(folds)
    _check_rows(p.size, y, k)
    losses = {}
    for fit in (_fit_platt, _fit_isotonic):
        predicted = np.empty_like(p)
        for fold in np.unique(k):
            held_out = k == fold
            fitted = fit(p[~held_out], y[~held_out])
            predicted[held_out] = [fitted(score) for score in p[held_out].tolist()]
        losses[fit] = log_loss(predicted.tolist(), y.tolist())
    best = min(losses, key=lambda fit: losses[fit])
    return best(p, y)


def describe_calibration(calibration: Calibration) -> dict[str, Any]:
    """The calibration as a JSON object, from which `restore_calibration` makes an equal one."""
    return {"method": type(calibration).__name__.lower(), **asdict(calibration)}


def restore_calibration(description: Mapping[str, Any]) -> Calibration:
    """The calibration that was described; CalibrationError when the description is of no kind."""
    match description:
        case {"method": "platt", "slope": float(slope), "intercept": float(intercept)}:
            return Platt(slope, intercept)
        case {"method": "isotonic", "scores": [*scores], "probabilities": [*probabilities]}:
            return Isotonic(tuple(scores), tuple(probabilities))
    raise CalibrationError(
        f"no calibration is described by {sorted(description)}",
        what=f"method {description.get('method')!r}",
        expected='"platt" with slope and intercept, or "isotonic" with scores and probabilities',
        remedy="Fit the calibration again with this version.",
    )


def _fit_platt(scores: Any, labels: Any) -> Calibration:
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    positives, rows = int(labels.sum()), len(labels)
    target = np.where(labels, (positives + 1) / (positives + 2), 1 / (rows - positives + 2))
    odds = np.asarray([_log_odds(score) for score in scores.tolist()])
    if np.ptp(odds) < 1e-3:  # equal scores leave the slope open
        return Platt(0.0, _log_odds(float(target.mean())))
    # A smoothed target t is a row that is positive with weight t and negative with weight 1 - t.
    model = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-10)
    model.fit(
        np.concatenate([odds, odds])[:, None],
        np.repeat([True, False], rows),
        sample_weight=np.concatenate([target, 1 - target]),
    )
    return Platt(float(model.coef_[0, 0]), float(model.intercept_[0]))


def _fit_isotonic(scores: Any, labels: Any) -> Calibration:
    from sklearn.isotonic import IsotonicRegression

    # No finite sample shows that something never happens: stay off 0 and 1 by Laplace's rule.
    edge = 1 / (len(labels) + 2)
    model = IsotonicRegression(y_min=edge, y_max=1 - edge, out_of_bounds="clip")
    model.fit(scores, labels.astype(float))
    return Isotonic(tuple(model.X_thresholds_.tolist()), tuple(model.y_thresholds_.tolist()))


def _checked(score: float) -> float:
    if 0 <= score <= 1:
        return score
    raise CalibrationError(
        f"a score of {score}",
        what=f"score {score}",
        expected="a probability within [0, 1]",
        remedy="See what the model was given: a model that answers NaN was often fed one.",
    )


def _check_rows(rows: int, labels: Any, folds: Any) -> None:
    import numpy as np

    if not (rows == labels.size == folds.size):
        raise CalibrationError(
            f"{rows} scores, {labels.size} labels and {folds.size} folds",
            what="unequal lengths",
            expected="one label and one fold for each score",
            remedy="Pass the three columns of the same rows.",
        )
    numbers = np.unique(folds)
    if numbers.size < 2:
        raise CalibrationError(
            f"{numbers.size} fold",
            what="folds",
            expected="at least two, to choose the calibration on rows that it was not fitted on",
            remedy="Predict the training rows by cross-validation.",
        )
    for fold in numbers:
        positives = int(labels[folds != fold].sum())
        fewest = min(positives, int((folds != fold).sum()) - positives)
        if fewest < _LEAST_OF_A_CLASS:
            raise CalibrationError(
                f"without fold {fold}, one class has only {fewest} rows to calibrate on",
                what=f"{fewest} rows of a class",
                expected=f"at least {_LEAST_OF_A_CLASS} of each",
                remedy="Use more data or fewer folds.",
            )


def _log_odds(probability: float) -> float:
    bounded = min(max(probability, _EDGE), 1 - _EDGE)
    return math.log(bounded / (1 - bounded))


def _logistic(odds: float) -> float:
    # Of the two equal forms, the one whose exponential cannot overflow.
    if odds >= 0:
        return 1 / (1 + math.exp(-odds))
    return math.exp(odds) / (1 + math.exp(odds))
