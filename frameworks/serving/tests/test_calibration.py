"""Calibration: what it mends, that it is applied exactly and kept exactly, and what it refuses."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frameworks.serving.calibration import (
    Isotonic,
    Platt,
    describe_calibration,
    fit_calibration,
    restore_calibration,
)
from frameworks.serving.errors import CalibrationError
from frameworks.serving.metrics import expected_calibration_error, log_loss

probability = st.floats(0, 1)


def logistic(odds):
    return 1 / (1 + np.exp(-odds))


def overconfident(rows, seed):
    """Scores whose log odds are three times too large, and labels drawn from the true ones."""
    rng = np.random.default_rng(seed)
    odds = rng.normal(size=rows)
    return logistic(3 * odds).tolist(), (rng.random(rows) < logistic(odds)).tolist()


def folds_of(rows, count=5):
    return [row % count for row in range(rows)]


def test_an_overconfident_model_is_mended_on_new_rows():
    scores, labels = overconfident(3000, 0)
    calibration = fit_calibration(scores, labels, folds_of(3000))
    new_scores, new_labels = overconfident(3000, 1)
    mended = [calibration(score) for score in new_scores]
    assert isinstance(calibration, Platt)
    assert calibration.slope == pytest.approx(1 / 3, abs=0.04)
    assert log_loss(mended, new_labels) < log_loss(new_scores, new_labels) - 0.1
    assert expected_calibration_error(mended, new_labels) < 0.03


def test_a_distortion_that_is_no_logistic_function_takes_the_isotonic_map():
    rng = np.random.default_rng(2)
    scores = rng.random(4000)
    truth = np.where(scores < 0.5, 0.3, np.where(scores < 0.9, 0.35, 0.95))
    labels = rng.random(4000) < truth
    calibration = fit_calibration(scores.tolist(), labels.tolist(), folds_of(4000))
    assert isinstance(calibration, Isotonic)
    assert calibration(0.2) == pytest.approx(0.3, abs=0.08)
    assert calibration(0.97) == pytest.approx(0.95, abs=0.05)


def test_platt_is_the_maximum_of_the_smoothed_likelihood():
    scores, labels = overconfident(400, 3)
    fitted = fit_calibration(scores, labels, folds_of(400))
    assert isinstance(fitted, Platt)
    positives = sum(labels)
    targets = [
        (positives + 1) / (positives + 2) if label else 1 / (400 - positives + 2)
        for label in labels
    ]

    def loss(calibration):
        return -math.fsum(
            t * math.log(calibration(s)) + (1 - t) * math.log(1 - calibration(s))
            for s, t in zip(scores, targets, strict=True)
        )

    best = loss(fitted)
    for slope, intercept in [(1e-3, 0), (-1e-3, 0), (0, 1e-3), (0, -1e-3)]:
        assert loss(Platt(fitted.slope + slope, fitted.intercept + intercept)) > best


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(probability, st.booleans()), max_size=50))
def test_a_fitted_calibration_never_answers_outside_zero_and_one(rows):
    rows += [(0.5, True), (0.5, False)] * 18
    scores, labels = map(list, zip(*rows, strict=True))
    calibration = fit_calibration(scores, labels, folds_of(len(rows), 3))
    assert all(0 <= calibration(score) <= 1 for score in [0.0, 1.0, *scores])


@given(st.lists(probability, min_size=2, max_size=20, unique=True), probability)
def test_an_isotonic_map_agrees_with_linear_interpolation(knots, score):
    scores = sorted(knots)
    probabilities = [index / len(scores) for index in range(len(scores))]
    calibration = Isotonic(tuple(scores), tuple(probabilities))
    assert calibration(score) == pytest.approx(np.interp(score, scores, probabilities), abs=1e-9)


@given(st.floats(-50, 50), st.floats(-50, 50), probability)
def test_a_platt_map_is_defined_for_every_score(slope, intercept, score):
    assert 0 <= Platt(slope, intercept)(score) <= 1


@pytest.mark.parametrize(
    "calibration", [Platt(1 / 3, -0.1), Isotonic((0.1, 1 / 3, 0.9), (0.0, 1 / 7, 1.0))]
)
def test_a_calibration_survives_json_bit_for_bit(calibration):
    text = json.dumps(describe_calibration(calibration))
    again = restore_calibration(json.loads(text))
    assert again == calibration
    assert all(again(i / 997) == calibration(i / 997) for i in range(998))


def test_a_calibration_is_applied_without_numpy_or_scikit_learn():
    code = (
        "import sys; from frameworks.serving.calibration import restore_calibration as restore\n"
        "assert restore({'method': 'platt', 'slope': 1.0, 'intercept': 0.0})(0.25) == 0.25\n"
        "assert not {'sklearn', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.filterwarnings("error")
def test_a_model_that_always_says_the_same_is_calibrated_to_the_frequency():
    calibration = fit_calibration([0.5] * 200, ([True] * 3 + [False]) * 50, folds_of(200))
    assert calibration(0.5) == pytest.approx(0.75, abs=0.01)


def test_the_same_rows_give_the_same_calibration():
    scores, labels = overconfident(500, 4)
    assert fit_calibration(scores, labels, folds_of(500)) == fit_calibration(
        scores, labels, folds_of(500)
    )


@pytest.mark.parametrize(
    ("scores", "labels", "folds", "message"),
    [
        ([0.5] * 5, [True, False, True, False, True], [0, 1, 0, 1, 0], "only 0|only 1"),
        ([0.5] * 100, [True] * 100, folds_of(100), "only 0 rows"),
        ([0.5] * 100, [True, False] * 50, [0] * 100, "1 fold"),
        ([0.5] * 99 + [math.nan], [True, False] * 50, folds_of(100), "score of nan"),
        ([0.5] * 99 + [1.5], [True, False] * 50, folds_of(100), "score of 1.5"),
        ([0.5] * 99, [True, False] * 50, folds_of(100), "99 scores"),
    ],
)
def test_rows_that_cannot_be_calibrated_on_are_refused(scores, labels, folds, message):
    with pytest.raises(CalibrationError, match=message) as caught:
        fit_calibration(scores, labels, folds)
    assert caught.value.expected
    assert caught.value.remedy


@pytest.mark.parametrize("score", [math.nan, -0.1, 1.1, math.inf])
@pytest.mark.parametrize("calibration", [Platt(1.0, 0.0), Isotonic((0.5,), (0.5,))])
def test_a_score_that_is_no_probability_is_refused(calibration, score):
    with pytest.raises(CalibrationError, match="score of"):
        calibration(score)


@pytest.mark.parametrize(
    "description",
    [
        {},
        {"method": "magic"},
        {"method": "platt", "slope": 1.0},
        {"method": "platt", "slope": math.nan, "intercept": 0.0},
        {"method": "isotonic", "scores": [], "probabilities": []},
        {"method": "isotonic", "scores": [0.5, 0.1], "probabilities": [0.1, 0.2]},
        {"method": "isotonic", "scores": [0.1, 0.5], "probabilities": [0.3, 0.2]},
        {"method": "isotonic", "scores": [0.1], "probabilities": [1.2]},
    ],
)
def test_a_damaged_description_is_refused(description):
    with pytest.raises(CalibrationError):
        restore_calibration(description)
