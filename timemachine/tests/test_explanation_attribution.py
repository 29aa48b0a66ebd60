"""Attribution against brute force over all orders, and the axioms of the Shapley value."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timemachine.attribution import attribute
from timemachine.errors import ExplanationError
from timemachine.explanation import Answer

small = st.integers(-4, 4).map(float)


def judge_of(function, inputs):
    def judge(batch):
        scores = [function({**inputs, **overrides}) for overrides in batch]
        return [Answer("yes" if score > 0 else "no", score) for score in scores]

    return judge


def interaction(row):
    """A function whose inputs stand in for each other, so that order matters."""
    values = list(row.values())
    return sum(values) + 2 * values[0] * values[-1] + max(values)


def brute_force(inputs, baseline, function):
    names = list(inputs)
    orders = list(permutations(names))
    shares = dict.fromkeys(names, 0.0)
    for order in orders:
        row = dict(baseline)
        for name in order:
            before = function(row)
            row[name] = inputs[name]
            shares[name] += (function(row) - before) / len(orders)
    return shares


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(1, 5))
def test_shapley_equals_brute_force_over_all_orders(data, count):
    names = [f"x{i}" for i in range(count)]
    inputs = {name: data.draw(small) for name in names}
    baseline = {name: data.draw(small) for name in names}
    effects = attribute(
        inputs, baseline, judge_of(interaction, inputs), generator=np.random.default_rng(0)
    )
    expected = brute_force(inputs, baseline, interaction)
    assert {effect.name for effect in effects} == set(names)
    for effect in effects:
        assert effect.shapley == pytest.approx(expected[effect.name], abs=1e-9)
        assert effect.standard_error == 0.0


@settings(max_examples=40, deadline=None)
@given(st.data(), st.integers(1, 6))
def test_ablation_is_the_fall_of_the_score_when_one_input_is_at_its_baseline(data, count):
    names = [f"x{i}" for i in range(count)]
    inputs = {name: data.draw(small) for name in names}
    baseline = {name: data.draw(small) for name in names}
    effects = attribute(inputs, baseline, judge_of(interaction, inputs))
    for effect in effects:
        alone = interaction({**inputs, effect.name: baseline[effect.name]})
        assert effect.ablation == interaction(inputs) - alone
        assert effect.ablated == ("yes" if alone > 0 else "no")
        assert effect.shapley is None
        assert effect.value == effect.ablation
    sizes = [abs(effect.value) for effect in effects]
    assert sizes == sorted(sizes, reverse=True)


def many_inputs():
    rng = np.random.default_rng(5)
    weights = rng.normal(size=12)
    inputs = {f"x{i}": float(v) for i, v in enumerate(rng.normal(size=12))}
    baseline = dict.fromkeys(inputs, 0.0)

    def function(row):
        values = np.array(list(row.values()))
        return float(values @ weights + 0.5 * values[0] * values[1] * values[2])

    return inputs, baseline, function


def test_sampled_shares_add_up_to_the_distance_from_the_baseline():
    inputs, baseline, function = many_inputs()
    effects = attribute(
        inputs,
        baseline,
        judge_of(function, inputs),
        generator=np.random.default_rng(1),
        pairs=5,
    )
    total = math.fsum(effect.value for effect in effects)
    assert total == pytest.approx(function(inputs) - function(baseline))
    assert any(effect.standard_error > 1e-6 for effect in effects)


def test_sampled_shares_lie_within_their_standard_errors_of_the_exact_ones():
    inputs, baseline, function = many_inputs()
    judge = judge_of(function, inputs)
    exact = attribute(inputs, baseline, judge, generator=np.random.default_rng(0), pairs=2**11)
    assert all(effect.standard_error == 0 for effect in exact)
    expected = {effect.name: effect.value for effect in exact}
    sampled = attribute(inputs, baseline, judge, generator=np.random.default_rng(1), pairs=64)
    for effect in sampled:
        assert abs(effect.value - expected[effect.name]) <= 5 * effect.standard_error + 1e-9


def test_the_same_generator_gives_the_same_attribution_and_another_one_another():
    inputs, baseline, function = many_inputs()
    judge = judge_of(function, inputs)

    def run(seed):
        generator = np.random.default_rng(seed)
        return attribute(inputs, baseline, judge, generator=generator, pairs=4)

    assert run(7) == run(7)
    assert run(7) != run(8)


def test_an_input_at_its_baseline_has_no_effect_and_costs_no_replay():
    asked = []

    def judge(batch):
        asked.extend(batch)
        return [Answer("x", overrides.get("a", 3.0)) for overrides in batch]

    inputs = {"a": 3.0, "b": math.nan, "c": 1}
    effects = attribute(
        inputs, {"a": 1.0, "c": 1}, judge, generator=np.random.default_rng(0), pairs=2
    )
    assert [(effect.name, effect.value) for effect in effects] == [("a", 2.0), ("c", 0.0)]
    assert all("c" not in overrides and "b" not in overrides for overrides in asked)


@pytest.mark.parametrize(
    ("baseline", "message"),
    [
        ({}, "no input has a baseline"),
        ({"c": 1.0}, "no input named 'c'"),
        ({"a": math.nan}, "baseline of 'a' is NaN"),
    ],
)
def test_an_unusable_baseline_is_refused_before_anything_is_replayed(baseline, message):
    def judge(batch):
        raise AssertionError("asked")

    with pytest.raises(ExplanationError, match=message) as caught:
        attribute({"a": 1.0, "b": 2.0}, baseline, judge)
    assert caught.value.expected
    assert caught.value.remedy


def test_a_single_pair_is_refused_because_it_has_no_standard_error():
    with pytest.raises(ExplanationError, match="pairs = 1"):
        attribute({"a": 1.0}, {"a": 0.0}, lambda batch: [], pairs=1)
