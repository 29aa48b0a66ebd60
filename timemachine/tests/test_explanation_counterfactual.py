"""The smallest change against brute force, its certificate, and what is refused."""

from __future__ import annotations

import math
from itertools import combinations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timemachine.counterfactual import Grid, search_changes, smallest_change
from timemachine.errors import ExplanationError
from timemachine.explanation import Answer

WEIGHTS = {"a": 3, "b": -2, "c": 5, "d": 1}


def judge_of(inputs, threshold):
    def judge(batch):
        answers = []
        for overrides in batch:
            row = {**inputs, **overrides}
            score = float(sum(WEIGHTS[name] * row[name] for name in row) + row["a"] * row["b"])
            answers.append(Answer("approve" if score >= threshold else "reject", score))
        return answers

    return judge


values = st.lists(st.integers(-5, 5), min_size=1, max_size=5, unique=True).map(tuple)
grids = st.builds(
    Grid, values, st.sampled_from([0.5, 1.0, 3.0]), st.just(""), st.sampled_from(["any", "up"])
)


def brute_force(inputs, actionable, judge):
    """Every way to change at most two inputs, as (number, distance) and the overrides."""
    ways = []
    for size in (0, 1, 2):
        for names in combinations(actionable, size):
            for chosen in product(*(actionable[name].values for name in names)):
                change = dict(zip(names, chosen, strict=True))
                if all(actionable[n].allows(inputs[n], v) for n, v in change.items()):
                    steps = (abs(v - inputs[n]) / actionable[n].step for n, v in change.items())
                    far = sum(round(step, 9) for step in steps)
                    ways.append(((size, round(far, 9)), change))
    answers = judge([change for _, change in ways])
    valid = [way for way, answer in zip(ways, answers, strict=True) if answer.label == "approve"]
    return ways, min((size for size, _ in valid), default=None)


@settings(max_examples=200, deadline=None)
@given(
    st.fixed_dictionaries({name: st.integers(-5, 5) for name in WEIGHTS}),
    st.dictionaries(st.sampled_from(sorted(WEIGHTS)), grids, min_size=1),
    st.integers(-20, 60),
)
def test_the_change_found_is_as_small_as_the_smallest_of_all_and_certified(
    inputs, actionable, threshold
):
    judge = judge_of(inputs, threshold)
    search = search_changes(inputs, actionable, judge, "approve")
    ways, best = brute_force(inputs, actionable, judge)
    found = search.found
    if best is None:
        assert found is None
        assert search.certificate.smaller_tried == search.certificate.tried == len(ways)
        assert sum(search.certificate.candidates) == len(ways)
        return
    assert found is not None
    assert (len(found.changes), round(found.distance, 9)) == best
    overrides = {change.name: change.value for change in found.changes}
    (again,) = judge([overrides])
    assert again == found.answer
    assert again.label == "approve"
    assert all(change.recorded == inputs[change.name] for change in found.changes)
    smaller = sum(size < best for size, _ in ways)
    at_most = sum(size <= best for size, _ in ways)
    assert smaller <= found.certificate.smaller_tried < at_most


def test_a_decision_that_already_answers_as_wanted_needs_no_change():
    found = smallest_change({"a": 1}, {"a": Grid((2,))}, lambda b: [Answer("yes", 1.0)], "yes")
    assert found.changes == ()
    assert found.distance == 0
    assert found.certificate.tried == 1


def test_a_predicate_may_say_what_is_wanted():
    def judge(batch):
        return [Answer("x", float(overrides.get("a", 0))) for overrides in batch]

    found = smallest_change(
        {"a": 0}, {"a": Grid((1, 2, 3))}, judge, lambda answer: answer.score >= 2
    )
    assert found.changes[0].value == 2


def test_one_change_is_preferred_to_two_however_far_it_is():
    def judge(batch):
        rows = [{"a": 0, "b": 0, **overrides} for overrides in batch]
        return [Answer("yes" if row["a"] >= 9 or row["a"] == row["b"] == 1 else "no", 0.0)
                for row in rows]  # fmt: skip

    grid = Grid(tuple(range(10)))
    found = smallest_change({"a": 0, "b": 0}, {"a": grid, "b": grid}, judge, "yes")
    assert [(change.name, change.value) for change in found.changes] == [("a", 9)]
    near = smallest_change({"a": 0, "b": 0}, {"a": Grid((1,)), "b": Grid((1,))}, judge, "yes")
    assert [(change.name, change.value) for change in near.changes] == [("a", 1), ("b", 1)]


def test_pairs_are_left_out_where_one_change_is_allowed():
    def judge(batch):
        return [Answer("yes" if len(overrides) == 2 else "no", 0.0) for overrides in batch]

    grids = {"a": Grid((1,)), "b": Grid((1,))}
    assert smallest_change({"a": 0, "b": 0}, grids, judge, "yes", most_changes=1) is None
    assert smallest_change({"a": 0, "b": 0}, grids, judge, "yes") is not None


def test_a_direction_keeps_the_input_from_going_the_other_way():
    tried = []

    def judge(batch):
        tried.extend(overrides["a"] for overrides in batch if overrides)
        return [Answer("no", 0.0)] * len(batch)

    grid = Grid.between(0, 10, 1, direction="down")
    search = search_changes({"a": 3}, {"a": grid}, judge, "yes")
    assert sorted(tried) == [0, 1, 2]
    assert search.certificate.candidates == (1, 3, 0)


def test_texts_and_truth_values_are_one_step_apart():
    def judge(batch):
        rows = [{"kind": "x", "flag": False, **overrides} for overrides in batch]
        return [Answer("yes" if row["kind"] == "z" else "no", 0.0) for row in rows]

    found = smallest_change(
        {"kind": "x", "flag": False},
        {"kind": Grid(("y", "z")), "flag": Grid((True,))},
        judge,
        "yes",
    )
    assert (found.changes[0].value, found.distance) == ("z", 1.0)


def test_a_missing_value_may_be_supplied_where_the_grid_has_no_direction():
    def judge(batch):
        return [Answer("yes" if overrides else "no", 0.0) for overrides in batch]

    found = smallest_change({"a": math.nan}, {"a": Grid((5.0,))}, judge, "yes")
    assert found.changes[0].distance == 1.0


def test_a_grid_between_bounds_reaches_both_despite_rounding():
    assert Grid.between(0.0, 0.3, 0.1).values == pytest.approx((0.0, 0.1, 0.2, 0.3))
    assert Grid.between(2, 2, 1).values == (2,)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Grid(()), "without values"),
        (lambda: Grid((1.0, math.nan)), "holds nan"),
        (lambda: Grid((None,)), "holds None"),
        (lambda: Grid((1, 1.0)), "twice"),
        (lambda: Grid((1,), step=0), "step is 0"),
        (lambda: Grid((1,), step=math.nan), "step is nan"),
        (lambda: Grid((1,), direction="sideways"), "sideways"),
        (lambda: Grid(("x",), direction="up"), "cannot go up"),
        (lambda: Grid.between(2, 1, 1), "no grid goes from 2 to 1"),
        (lambda: Grid.between(0, math.inf, 1), "no grid goes"),
    ],
)
def test_an_unusable_grid_is_refused(make, message):
    with pytest.raises(ExplanationError, match=message) as caught:
        make()
    assert caught.value.expected
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("inputs", "actionable", "message"),
    [
        ({"a": 1}, {"b": Grid((1,))}, "no input named 'b'"),
        ({"a": math.nan}, {"a": Grid((1,), direction="up")}, "recorded as nan"),
        ({"a": None}, {"a": Grid((1,), direction="down")}, "recorded as None"),
        ({"a": "x"}, {"a": Grid((1,), direction="down")}, "recorded as 'x'"),
    ],
)
def test_an_unusable_actionable_input_is_refused(inputs, actionable, message):
    with pytest.raises(ExplanationError, match=message):
        smallest_change(inputs, actionable, lambda batch: [Answer("no", 0.0)] * len(batch), "yes")


def test_more_than_two_changes_are_refused():
    with pytest.raises(ExplanationError, match="most_changes = 3"):
        smallest_change({}, {}, lambda batch: [], "yes", most_changes=3)
