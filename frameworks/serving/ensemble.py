"""An ensemble of calibrated models that answers, or says "I don't know".

The members' calibrated probabilities are averaged with fixed weights (a linear opinion pool, Stone
1961) that maximise the likelihood of out-of-fold predictions, and the pool is calibrated once more,
because an average of calibrated forecasts is too timid (Ranjan and Gneiting 2010). The likelier
answer is given where its probability reaches a threshold and the members do not disagree too much;
everything else is "I don't know" and goes to a person.

Everything that is fitted is judged on rows that it was not fitted on: the threshold of
`frameworks.serving.abstention` is chosen on cross-fitted probabilities, for which calibrations and
weights came from the other folds. What is served is fitted once more on all rows, a plain frozen
description that is stored as JSON and applied row by row without BLAS.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from frameworks.serving.abstention import Guarantee, choose_threshold, error_bound
from frameworks.serving.calibration import (
    Calibration,
    describe_calibration,
    fit_calibration,
    restore_calibration,
)
from frameworks.serving.errors import CalibrationError
from frameworks.serving.metrics import Metrics, measure

__all__ = [
    "Answer",
    "Ensemble",
    "EnsembleFit",
    "EnsembleSettings",
    "LabelErrors",
    "Member",
    "fit_ensemble",
]


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer with the probability behind it.

    ``score`` is the calibrated probability of the positive label, ``confidence`` that of the
    likelier of the two labels (also where the answer is an abstention), ``members`` each member's
    calibrated probability of the positive label.
    """

    label: str
    confidence: float
    score: float
    members: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class EnsembleSettings:
    """What may be answered, and how often it may be wrong.

    Args:
        positive: label of the positive class.
        negative: label of the other class.
        error: highest error rate among the cases answered, within (0, 1).
        confidence: probability, over the draw of the rows fitted on, that this is met.
        disagreement: largest spread of the members' probabilities that is still answered, 0 to 1.
        abstention: the answer that is none.
    """

    positive: str
    negative: str
    error: float
    confidence: float = 0.9
    disagreement: float = 1.0
    abstention: str = "I don't know"

    def __post_init__(self) -> None:
        if len({self.positive, self.negative, self.abstention}) < 3:
            raise CalibrationError(
                "two of the three answers have the same label",
                what=f"{self.positive!r}, {self.negative!r}, {self.abstention!r}",
                expected="three different labels",
                remedy="Rename one.",
            )
        for name in ("error", "confidence"):
            if not 0 < getattr(self, name) < 1:
                raise CalibrationError(
                    f"{name} = {getattr(self, name)}",
                    what=f"{name} = {getattr(self, name)}",
                    expected="a number within (0, 1)",
                    remedy="Give it as a share, such as 0.1.",
                )
        if not 0 <= self.disagreement <= 1:
            raise CalibrationError(
                f"disagreement = {self.disagreement}",
                what=f"disagreement = {self.disagreement}",
                expected="a number within [0, 1]",
                remedy="Use 1 to answer however much the members disagree.",
            )


@dataclass(frozen=True, slots=True)
class Member:
    """A model's name, its weight in the pool (the weights sum to 1) and its calibration."""

    name: str
    weight: float
    calibration: Calibration


@dataclass(frozen=True, slots=True)
class Ensemble:
    """Calibrated members, their pool, and the confidence from which a case is answered.

    A threshold of None means that none is: no data could support an answer.
    """

    members: tuple[Member, ...]
    pool: Calibration
    settings: EnsembleSettings
    threshold: float | None

    def answer(self, scores: Mapping[str, float]) -> Answer:
        """Answer one case from the members' raw probabilities of the positive label, by name.

        Raises CalibrationError when a member's score is missing or no probability.
        """
        calibrated = {}
        for member in self.members:
            if member.name not in scores:
                raise CalibrationError(
                    f"no score of the member {member.name!r}",
                    what=f"scores of {', '.join(sorted(scores)) or 'no member'}",
                    expected=", ".join(each.name for each in self.members),
                    remedy="Ask every member of the ensemble.",
                )
            try:
                calibrated[member.name] = member.calibration(scores[member.name])
            except CalibrationError as error:
                raise CalibrationError(
                    f"the member {member.name!r} gave {error}",
                    what=error.what,
                    expected=error.expected,
                    remedy=error.remedy,
                ) from error
        pooled = math.fsum(member.weight * calibrated[member.name] for member in self.members)
        # The sum of weighted probabilities may miss 1 by a rounding.
        score = self.pool(min(pooled, 1.0))
        return Answer(self._label(score, calibrated), max(score, 1 - score), score, calibrated)

    def describe(self) -> dict[str, Any]:
        """The ensemble as a JSON object, from which `restore` makes an equal one."""
        return {
            "members": [
                {
                    "name": member.name,
                    "weight": member.weight,
                    "calibration": describe_calibration(member.calibration),
                }
                for member in self.members
            ],
            "pool": describe_calibration(self.pool),
            "settings": asdict(self.settings),
            "threshold": self.threshold,
        }

    @classmethod
    def restore(cls, description: Mapping[str, Any]) -> Ensemble:
        """The ensemble that was described; CalibrationError when the description is damaged."""
        try:
            members = tuple(
                Member(each["name"], each["weight"], restore_calibration(each["calibration"]))
                for each in description["members"]
            )
            return cls(
                members=members,
                pool=restore_calibration(description["pool"]),
                settings=EnsembleSettings(**description["settings"]),
                threshold=description["threshold"],
            )
        except (KeyError, TypeError) as error:
            raise CalibrationError(
                f"no ensemble is described: {error}",
                what=str(error),
                expected="members, pool, settings and threshold",
                remedy="Fit the ensemble again with this version.",
            ) from error

    def _label(self, score: float, calibrated: Mapping[str, float]) -> str:
        settings = self.settings
        confidence = max(score, 1 - score)
        spread = max(calibrated.values()) - min(calibrated.values())
        if self.threshold is None or confidence < self.threshold or spread > settings.disagreement:
            return settings.abstention
        return settings.positive if score >= 0.5 else settings.negative


@dataclass(frozen=True, slots=True)
class LabelErrors:
    """How often one label was answered to rows not fitted on, and how often wrongly.

    ``bound`` is the upper confidence bound of the label's error rate at the chosen threshold.
    """

    label: str
    answered: int
    wrong: int
    bound: float


@dataclass(frozen=True, slots=True)
class EnsembleFit:
    """A fitted ensemble and what cross-fitting says about it.

    ``scores`` are the cross-fitted probabilities of the rows it was fitted on, ``metrics`` theirs.
    ``guarantee`` states the error rate among the cases answered. It holds for both labels together;
    ``labels`` tells them apart, because the rarer one is wrong more often.
    """

    ensemble: Ensemble
    guarantee: Guarantee
    labels: tuple[LabelErrors, LabelErrors]
    scores: tuple[float, ...]
    metrics: Metrics


def fit_ensemble(
    scores: Mapping[str, Sequence[float]],
    labels: Sequence[bool],
    folds: Sequence[int],
    settings: EnsembleSettings,
) -> EnsembleFit:
    """Fit calibrations, weights and threshold on the members' out-of-fold predictions.

    Args:
        scores: for each member, its out-of-fold probabilities of the positive label.
        labels: whether each row was positive.
        folds: the number of the fold that each row was held out in, at least three.
        settings: labels, error rate and confidence.

    Raises CalibrationError where a member, the labels or the folds are too few or of one class.
    Deterministic: the same arguments give the same ensemble.
    """
    numbers = sorted(set(folds))
    if not scores or len(numbers) < 3:
        raise CalibrationError(
            f"{len(scores)} members with predictions on {len(numbers)} folds",
            what="members or folds",
            expected="at least one member and three folds",
            remedy="Cross-validate the members over more folds.",
        )
    for name, column in scores.items():
        if not (len(column) == len(labels) == len(folds)):
            raise CalibrationError(
                f"{len(column)} scores of {name!r}, {len(labels)} labels and {len(folds)} folds",
                what=f"scores of {name!r}",
                expected="one score of each member, one label and one fold for each row",
                remedy="Pass columns of the same rows.",
            )
    cross_fitted = [0.0] * len(labels)
    spreads = [0.0] * len(labels)
    for fold in numbers:
        rows = [row for row, number in enumerate(folds) if number != fold]
        members, pool = _fit_members(scores, labels, folds, rows)
        trial = Ensemble(members, pool, settings, None)
        for row in (row for row, number in enumerate(folds) if number == fold):
            answer = trial.answer({name: column[row] for name, column in scores.items()})
            cross_fitted[row] = answer.score
            spreads[row] = max(answer.members.values()) - min(answer.members.values())
    agreed = [row for row, spread in enumerate(spreads) if spread <= settings.disagreement]
    confidences = [max(cross_fitted[row], 1 - cross_fitted[row]) for row in agreed]
    wrong = [(cross_fitted[row] >= 0.5) is not bool(labels[row]) for row in agreed]
    guarantee = choose_threshold(
        confidences, wrong, target=settings.error, confidence=settings.confidence
    )
    members, pool = _fit_members(scores, labels, folds, range(len(labels)))
    ensemble = Ensemble(members, pool, settings, guarantee.threshold)
    answered: dict[str, list[bool]] = {settings.positive: [], settings.negative: []}
    for row, confidence, error in zip(agreed, confidences, wrong, strict=True):
        if guarantee.threshold is not None and confidence >= guarantee.threshold:
            positive = cross_fitted[row] >= 0.5
            answered[settings.positive if positive else settings.negative].append(error)
    positive_errors, negative_errors = (
        LabelErrors(
            label,
            len(errors),
            sum(errors),
            error_bound(sum(errors), len(errors), settings.confidence),
        )
        for label, errors in answered.items()
    )
    return EnsembleFit(
        ensemble=ensemble,
        guarantee=guarantee,
        labels=(positive_errors, negative_errors),
        scores=tuple(cross_fitted),
        metrics=measure(cross_fitted, labels),
    )


def _fit_members(
    scores: Mapping[str, Sequence[float]],
    labels: Sequence[bool],
    folds: Sequence[int],
    rows: Sequence[int],
) -> tuple[tuple[Member, ...], Calibration]:
    """Calibrate each member on these rows, weigh the members, and calibrate their pool."""
    truth = [bool(labels[row]) for row in rows]
    parts = [folds[row] for row in rows]
    calibrations = {}
    columns = []
    for name, column in scores.items():
        raw = [float(column[row]) for row in rows]
        calibrations[name] = fit_calibration(raw, truth, parts)
        columns.append([calibrations[name](score) for score in raw])
    weights = _likeliest_weights(columns, truth)
    pooled = [
        min(math.fsum(w * p for w, p in zip(weights, row, strict=True)), 1.0)
        for row in zip(*columns, strict=True)
    ]
    members = tuple(
        Member(name, weight, calibration)
        for (name, calibration), weight in zip(calibrations.items(), weights, strict=True)
    )
    return members, fit_calibration(pooled, truth, parts)


def _likeliest_weights(columns: Sequence[Sequence[float]], truth: Sequence[bool]) -> list[float]:
    """The weights that maximise the likelihood of the pool, by expectation maximisation.

    The likelihood is concave in the weights, so the climb has one top; each step keeps them a
    distribution. A member that adds nothing goes towards 0.
    """
    import numpy as np

    p = np.asarray(columns)
    # Members that are all certain, and all wrong, still share the blame.
    likelihoods = np.maximum(np.where(truth, p, 1 - p), 1e-12)
    weights = np.full(len(columns), 1 / len(columns))
    for _ in range(100):
        parts = weights[:, None] * likelihoods
        weights = (parts / parts.sum(axis=0)).mean(axis=1)
    return [float(weight) for weight in weights]
