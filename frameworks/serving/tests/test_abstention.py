"""The threshold for answering: its promise over many samples, its bound, and what it refuses."""

from __future__ import annotations

import doctest
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, binom

from frameworks.serving import abstention
from frameworks.serving.abstention import choose_threshold, error_bound
from frameworks.serving.errors import CalibrationError


def test_the_examples_in_the_docstrings_run():
    assert doctest.testmod(abstention).failed == 0


@given(st.integers(0, 60), st.integers(1, 60), st.sampled_from([0.8, 0.9, 0.99]))
def test_the_bound_is_that_of_clopper_and_pearson(wrong, right, confidence):
    answered = wrong + right
    bound = error_bound(wrong, answered, confidence)
    assert bound == pytest.approx(beta.ppf(confidence, wrong + 1, right))
    assert binom.cdf(wrong, answered, bound) == pytest.approx(1 - confidence)


def test_no_answers_bound_nothing():
    assert error_bound(0, 0, 0.9) == 1.0
    assert error_bound(5, 5, 0.9) == 1.0


def sample(rng, rows):
    confidences = rng.uniform(0.5, 1.0, rows)
    return confidences, rng.random(rows) > confidences


def test_the_promise_is_broken_no_more_often_than_stated():
    # Confidences are true probabilities, so the error rate above t is known: (1 - t) / 2.
    rng = np.random.default_rng(0)
    target, confidence, draws = 0.1, 0.9, 300
    broken = 0
    answered = []
    for _ in range(draws):
        confidences, wrong = sample(rng, 600)
        chosen = choose_threshold(
            confidences.tolist(), wrong.tolist(), target=target, confidence=confidence
        )
        if chosen.threshold is not None:
            broken += (1 - chosen.threshold) / 2 > target
            answered.append(chosen.answered)
    allowed = 1 - confidence
    assert broken / draws <= allowed + 2 * math.sqrt(allowed * (1 - allowed) / draws)
    # And the promise is not kept by silence: 40 % of the cases could be answered at best.
    assert np.mean(answered) > 0.2 * 600


def test_what_is_stated_about_the_chosen_threshold_is_what_the_rows_say():
    rng = np.random.default_rng(1)
    confidences, wrong = sample(rng, 2000)
    chosen = choose_threshold(confidences.tolist(), wrong.tolist(), target=0.1)
    above = confidences >= chosen.threshold
    assert chosen.answered == above.sum()
    assert chosen.wrong == wrong[above].sum()
    assert chosen.wrong / chosen.answered < chosen.bound <= chosen.target


def test_a_stricter_target_answers_fewer():
    rng = np.random.default_rng(2)
    confidences, wrong = sample(rng, 3000)
    counts = [
        choose_threshold(confidences.tolist(), wrong.tolist(), target=target).answered
        for target in (0.05, 0.1, 0.15, 0.2)
    ]
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]


@pytest.mark.parametrize(
    ("confidences", "wrong"), [([], []), ([0.99] * 5, [False] * 5), ([0.9] * 500, [True] * 500)]
)
def test_where_no_data_can_support_a_threshold_the_answer_is_to_abstain(confidences, wrong):
    chosen = choose_threshold(confidences, wrong, target=0.05)
    assert chosen.threshold is None
    assert (chosen.answered, chosen.bound) == (0, 1.0)


@pytest.mark.parametrize(
    ("confidences", "wrong", "target", "confidence", "message"),
    [
        ([0.9], [], 0.1, 0.9, "1 confidences for 0"),
        ([0.9], [True], 0.0, 0.9, "target = 0"),
        ([0.9], [True], 8, 0.9, "target = 8"),
        ([0.9], [True], 0.1, 1.0, "confidence = 1"),
        ([math.nan], [True], 0.1, 0.9, "confidence of nan"),
    ],
)
def test_unusable_arguments_are_refused(confidences, wrong, target, confidence, message):
    with pytest.raises(CalibrationError, match=message) as caught:
        choose_threshold(confidences, wrong, target=target, confidence=confidence)
    assert caught.value.remedy
