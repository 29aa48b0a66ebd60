"""The ensemble: better than its members, honest about its errors, exact after storage."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from frameworks.serving.calibration import Platt
from frameworks.serving.ensemble import Ensemble, EnsembleSettings, Member, fit_ensemble
from frameworks.serving.errors import CalibrationError
from frameworks.serving.metrics import log_loss

SETTINGS = EnsembleSettings("yes", "no", error=0.1, confidence=0.9)
IDENTITY = Platt(1.0, 0.0)


def logistic(odds):
    return 1 / (1 + np.exp(-odds))


def draw(rows, seed):
    """Three members who each see the truth through noise of their own; the third sees nothing."""
    rng = np.random.default_rng(seed)
    odds = 2 * rng.normal(size=rows)
    labels = rng.random(rows) < logistic(odds)
    scores = {
        "a": logistic(2 * odds + rng.normal(size=rows)).tolist(),
        "b": logistic(0.5 * odds + 0.5 * rng.normal(size=rows)).tolist(),
        "c": rng.random(rows).tolist(),
    }
    return scores, labels.tolist(), [row % 5 for row in range(rows)]


@pytest.fixture(scope="module")
def fitted():
    return fit_ensemble(*draw(1500, 0), SETTINGS)


def answers_of(ensemble, scores, rows):
    return [ensemble.answer({name: scores[name][row] for name in scores}) for row in range(rows)]


def test_the_ensemble_predicts_new_rows_better_than_each_member(fitted):
    scores, labels, _ = draw(2000, 1)
    pooled = [answer.score for answer in answers_of(fitted.ensemble, scores, 2000)]
    for member in fitted.ensemble.members:
        alone = [member.calibration(score) for score in scores[member.name]]
        assert log_loss(pooled, labels) < log_loss(alone, labels)


def test_weights_are_a_distribution_and_a_blind_member_gets_almost_none(fitted):
    weights = {member.name: member.weight for member in fitted.ensemble.members}
    assert math.fsum(weights.values()) == pytest.approx(1)
    assert weights["c"] < 0.05 < min(weights["a"], weights["b"])


def test_the_error_rate_of_new_answers_stays_under_the_target(fitted):
    scores, labels, _ = draw(4000, 2)
    answers = answers_of(fitted.ensemble, scores, 4000)
    answered = [(a, y) for a, y in zip(answers, labels, strict=True) if a.label != "I don't know"]
    wrong = sum((answer.label == "yes") != label for answer, label in answered)
    assert wrong / len(answered) <= SETTINGS.error + 2 * math.sqrt(0.09 / len(answered))
    assert {answer.label for answer in answers} == {"yes", "no", "I don't know"}


def test_what_is_said_about_the_labels_adds_up_to_the_guarantee(fitted):
    positive, negative = fitted.labels
    assert (positive.label, negative.label) == ("yes", "no")
    assert positive.answered + negative.answered == fitted.guarantee.answered
    assert positive.wrong + negative.wrong == fitted.guarantee.wrong
    assert all(each.wrong / each.answered < each.bound < 1 for each in fitted.labels)
    assert fitted.guarantee.bound <= SETTINGS.error
    assert fitted.metrics.calibration_error < 0.05


def test_cross_fitted_scores_do_not_depend_on_their_own_label():
    scores, labels, folds = draw(400, 3)
    before = fit_ensemble(scores, labels, folds, SETTINGS).scores
    labels[7] = not labels[7]
    after = fit_ensemble(scores, labels, folds, SETTINGS).scores
    same_fold = [row for row in range(400) if folds[row] == folds[7]]
    assert all(before[row] == after[row] for row in same_fold)
    assert before != after


def test_a_stored_ensemble_answers_bit_for_bit_the_same(fitted):
    text = json.dumps(fitted.ensemble.describe())
    again = Ensemble.restore(json.loads(text))
    scores, _, _ = draw(300, 4)
    assert again == fitted.ensemble
    assert answers_of(again, scores, 300) == answers_of(fitted.ensemble, scores, 300)


def test_the_same_rows_give_the_same_ensemble():
    assert fit_ensemble(*draw(400, 5), SETTINGS) == fit_ensemble(*draw(400, 5), SETTINGS)


def two(threshold, disagreement=1.0):
    return Ensemble(
        (Member("a", 0.5, IDENTITY), Member("b", 0.5, IDENTITY)),
        IDENTITY,
        replace(SETTINGS, disagreement=disagreement),
        threshold,
    )


@pytest.mark.parametrize(
    ("a", "b", "threshold", "disagreement", "label"),
    [
        (0.9, 0.9, 0.8, 1.0, "yes"),
        (0.1, 0.1, 0.8, 1.0, "no"),
        (0.7, 0.7, 0.8, 1.0, "I don't know"),
        (0.7, 0.99, 0.8, 1.0, "yes"),
        (0.7, 0.99, 0.8, 0.2, "I don't know"),
        (0.99, 0.99, None, 1.0, "I don't know"),
    ],
)
def test_an_answer_needs_confidence_and_agreement(a, b, threshold, disagreement, label):
    answer = two(threshold, disagreement).answer({"a": a, "b": b})
    assert answer.label == label
    assert answer.score == pytest.approx((a + b) / 2)
    assert answer.confidence == max(answer.score, 1 - answer.score)
    assert answer.members == pytest.approx({"a": a, "b": b})


def test_where_nothing_can_be_promised_nothing_is_answered():
    rng = np.random.default_rng(6)
    scores = {"a": rng.random(200).tolist()}
    labels = (rng.random(200) < 0.5).tolist()
    fit = fit_ensemble(scores, labels, [row % 4 for row in range(200)], SETTINGS)
    assert fit.guarantee.threshold is None
    assert [each.answered for each in fit.labels] == [0, 0]
    assert fit.ensemble.answer({"a": 0.99}).label == "I don't know"


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({"a": 0.5}, "no score of the member 'b'"),
        ({"a": math.nan, "b": 0.5}, "member 'a' gave a score of nan"),
        ({"a": 0.5, "b": 2.0}, "member 'b' gave a score of 2.0"),
    ],
)
def test_a_member_that_is_missing_or_gives_no_probability_is_named(scores, message):
    with pytest.raises(CalibrationError, match=message) as caught:
        two(0.8).answer(scores)
    assert caught.value.expected


@pytest.mark.parametrize(
    "change",
    [
        {"error": 0.0},
        {"error": 1.0},
        {"confidence": 90},
        {"disagreement": math.nan},
        {"positive": "no"},
        {"abstention": "yes"},
    ],
)
def test_unusable_settings_are_refused(change):
    with pytest.raises(CalibrationError):
        replace(SETTINGS, **change)


def test_rows_that_no_ensemble_can_be_fitted_on_are_refused():
    scores, labels, folds = draw(200, 7)
    with pytest.raises(CalibrationError, match="0 members"):
        fit_ensemble({}, labels, folds, SETTINGS)
    with pytest.raises(CalibrationError, match="2 folds"):
        fit_ensemble(scores, labels, [fold % 2 for fold in folds], SETTINGS)
    with pytest.raises(CalibrationError, match="199 scores of 'a'"):
        fit_ensemble({**scores, "a": scores["a"][:-1]}, labels, folds, SETTINGS)
    with pytest.raises(CalibrationError, match="only 0 rows"):
        fit_ensemble(scores, [True] * 200, folds, SETTINGS)


@pytest.mark.parametrize("missing", ["members", "pool", "settings", "threshold"])
def test_a_damaged_description_is_refused(fitted, missing):
    description = fitted.ensemble.describe()
    del description[missing]
    with pytest.raises(CalibrationError, match=missing):
        Ensemble.restore(description)
