"""Metrics of predictions, against scikit-learn's."""

from __future__ import annotations

import doctest
import math

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from frameworks.serving import metrics
from frameworks.serving.errors import CalibrationError
from frameworks.serving.metrics import (
    accuracy,
    brier_score,
    expected_calibration_error,
    log_loss,
    measure,
    roc_auc,
)

cases = st.lists(
    st.tuples(st.sampled_from([0.05, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95]), st.booleans()), min_size=2
).filter(lambda rows: len({label for _, label in rows}) == 2)


def test_the_examples_in_the_docstrings_run():
    assert doctest.testmod(metrics).failed == 0


@settings(max_examples=100, deadline=None)
@given(cases)
def test_the_figures_are_those_of_scikit_learn(rows):
    p, y = map(list, zip(*rows, strict=True))
    figures = measure(p, y)
    assert figures.log_loss == pytest.approx(sklearn.metrics.log_loss(y, p))
    assert figures.brier_score == pytest.approx(sklearn.metrics.brier_score_loss(y, p))
    assert figures.roc_auc == pytest.approx(sklearn.metrics.roc_auc_score(y, p))
    assert figures.accuracy == pytest.approx(np.mean((np.array(p) >= 0.5) == np.array(y)))


def test_calibration_error_is_the_mean_gap_over_bins():
    p = [0.15] * 10 + [0.95] * 10
    y = [True] * 4 + [False] * 6 + [True] * 9 + [False]
    assert expected_calibration_error(p, y) == pytest.approx((0.25 + 0.05) / 2)
    assert expected_calibration_error([1.0, 0.0], [True, False]) == 0


def test_a_certain_and_wrong_prediction_has_infinite_log_loss():
    assert log_loss([1.0], [False]) == math.inf
    assert math.isnan(roc_auc([0.3], [True]))


@pytest.mark.parametrize("figure", [log_loss, brier_score, expected_calibration_error, roc_auc,
                                    accuracy])  # fmt: skip
@pytest.mark.parametrize(("p", "y"), [([], []), ([0.5], []), ([math.nan], [True]), ([1.5], [True])])
def test_what_is_no_prediction_is_refused(figure, p, y):
    with pytest.raises(CalibrationError):
        figure(p, y)
