"""Rates by group and their intervals, against the values printed in Newcombe's two papers."""

from __future__ import annotations

import doctest
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srds import fairness
from srds.fairness import Observation, difference, rates_by_group, wilson


def test_the_examples_in_the_docstrings_run():
    assert doctest.testmod(fairness).failed == 0


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I, method 3.
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_intervals_are_those_of_the_literature(count, total, low, high):
    rate = wilson(count, total)
    assert (round(rate.low, 4), round(rate.high, 4)) == (low, high)


@pytest.mark.parametrize(
    ("first", "second", "low", "high"),
    # Newcombe 1998, "Interval estimation for the difference …", table II, method 10.
    [
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((6, 7), (2, 7), 0.0582, 0.8062),
        ((5, 56), (0, 29), -0.0381, 0.1926),
        ((0, 10), (0, 20), -0.1611, 0.2775),
        ((0, 10), (0, 10), -0.2775, 0.2775),
        ((10, 10), (0, 20), 0.6791, 1.0000),
        ((10, 10), (0, 10), 0.6075, 1.0000),
    ],
)
def test_newcombe_intervals_are_those_of_the_literature(first, second, low, high):
    gap = difference(wilson(*first), wilson(*second))
    assert (round(gap.low, 4), round(gap.high, 4)) == (low, high)


@given(st.integers(0, 400), st.integers(0, 400), st.sampled_from([0.5, 0.9, 0.95, 0.999]))
def test_an_interval_holds_its_rate_and_stays_within_zero_and_one(count, more, confidence):
    rate = wilson(count, count + more, confidence)
    assert 0 <= rate.low <= rate.high <= 1
    if rate.total:
        assert rate.low <= rate.value <= rate.high
    mirrored = wilson(more, count + more, confidence)
    assert mirrored.low == pytest.approx(1 - rate.high)


@given(*[st.integers(1, 200)] * 4)
def test_swapping_the_groups_turns_the_difference_around(a, b, c, d):
    gap = difference(wilson(a, a + b), wilson(c, c + d))
    back = difference(wilson(c, c + d), wilson(a, a + b))
    assert -1 <= gap.low <= gap.value <= gap.high <= 1
    assert (back.low, back.high) == pytest.approx((-gap.high, -gap.low))


def test_an_empty_group_has_the_widest_interval_and_no_difference():
    empty = wilson(0, 0)
    assert math.isnan(empty.value)
    assert (empty.low, empty.high) == (0.0, 1.0)
    with pytest.raises(ValueError, match="without decisions"):
        difference(empty, wilson(1, 2))


def test_a_clear_difference_excludes_zero_and_a_small_one_does_not():
    assert difference(wilson(90, 100), wilson(50, 100)).excludes_zero
    assert difference(wilson(50, 100), wilson(90, 100)).excludes_zero
    assert not difference(wilson(51, 100), wilson(50, 100)).excludes_zero


@pytest.mark.parametrize(("count", "total"), [(-1, 3), (4, 3)])
def test_a_count_outside_its_total_is_refused(count, total):
    with pytest.raises(ValueError, match="between 0 and its total"):
        wilson(count, total)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0, math.nan])
def test_a_confidence_outside_zero_and_one_is_refused(confidence):
    with pytest.raises(ValueError, match="confidence"):
        wilson(1, 3, confidence)


def test_rates_at_different_confidence_are_not_compared():
    with pytest.raises(ValueError, match="cannot be compared"):
        difference(wilson(1, 3, 0.9), wilson(1, 3, 0.95))


def test_rates_count_answers_abstentions_and_errors_among_those_answered():
    observations = [
        Observation("b", "approve", "approve"),
        Observation("b", "approve", "reject"),
        Observation("b", "I don't know", "reject"),
        Observation("b", "reject", None),
        Observation("a", "reject", "approve"),
        Observation(None, "approve"),
    ]
    a, b, unknown = rates_by_group(observations, positive="approve")
    assert (a.group, b.group, unknown.group) == ("a", "b", None)
    assert (b.positive.count, b.positive.total) == (2, 4)
    assert (b.abstention.count, b.abstention.total) == (1, 4)
    assert (b.error.count, b.error.total) == (1, 2)
    assert (a.error.count, a.error.total) == (1, 1)
    assert (unknown.error.count, unknown.error.total) == (0, 0)


def test_no_decisions_have_no_groups():
    assert rates_by_group([], positive="approve") == ()
