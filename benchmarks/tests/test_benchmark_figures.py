"""What a figure may say, and that the contenders take turns."""

from __future__ import annotations

import json
import math
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.measure import (
    FULL,
    PEERS,
    QUICK,
    Better,
    Effort,
    Figure,
    compare,
    interleaved,
    seconds_per_call,
)

amounts = st.floats(min_value=1e-9, max_value=1e12)


def test_a_line_has_exactly_the_agreed_fields_in_order() -> None:
    line = Figure("journal.append_200B", 2.0, "us", "lower", 30.0, "sqlite").line()
    assert list(json.loads(line).items()) == [
        ("bench", "journal.append_200B"),
        ("ours", 2.0),
        ("theirs", 30.0),
        ("peer", "sqlite"),
        ("unit", "us"),
        ("ratio", 15.0),
        ("better", "lower"),
    ]


def test_a_figure_without_a_peer_leaves_the_comparison_null() -> None:
    fields = json.loads(Figure("boundary.record", 12.34567, "%", "lower").line())
    assert fields["theirs"] is fields["peer"] is fields["ratio"] is None
    assert fields["ours"] == 12.35


@pytest.mark.parametrize(
    ("better", "ours", "theirs", "ratio"),
    [("higher", 100.0, 50.0, 2.0), ("lower", 100.0, 50.0, 0.5), ("lower", 50.0, 100.0, 2.0)],
)
def test_a_ratio_above_one_means_ours_is_better(
    better: Better, ours: float, theirs: float, ratio: float
) -> None:
    assert Figure("kernel.noop", ours, "/s", better, theirs, "asyncio").ratio == ratio


@given(amounts, amounts)
def test_the_two_directions_of_better_have_inverse_ratios(ours: float, theirs: float) -> None:
    up = Figure("kernel.noop", ours, "", "higher", theirs, "naive").ratio
    down = Figure("kernel.noop", ours, "", "lower", theirs, "naive").ratio
    assert up is not None
    assert down is not None
    assert math.isclose(up * down, 1.0)
    assert (up > 1) == (ours > theirs)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"peer": "redis"}, "redis"),
        ({"unit": "seconds"}, "seconds"),
        ({"bench": "append"}, "append"),
        ({"bench": "journal.append 200"}, "append 200"),
        ({"better": "faster"}, "faster"),
        ({"peer": None}, "peer"),
        ({"theirs": None}, "peer"),
        ({"ours": math.nan}, "nan"),
        ({"ours": 0.0}, "0.0"),
        ({"theirs": 0.0}, "0.0"),
        ({"theirs": math.inf}, "inf"),
    ],
)
def test_a_figure_that_says_nothing_comparable_is_refused(
    change: dict[str, object], named: str
) -> None:
    sound = {"bench": "journal.append", "ours": 1.0, "unit": "us", "better": "lower"}
    fields = {**sound, "theirs": 2.0, "peer": "sqlite", **change}
    with pytest.raises(ValueError, match=named):
        Figure(**fields)  # type: ignore[arg-type]


def test_every_peer_that_is_agreed_on_is_accepted() -> None:
    for peer in PEERS:
        assert Figure("any.thing", 1.0, "s", "lower", 1.0, peer).ratio == 1.0


def test_contenders_take_turns_and_each_round_starts_with_another() -> None:
    order: list[str] = []

    def contender(name: str) -> float:
        order.append(name)
        return 0.0

    interleaved({name: lambda name=name: contender(name) for name in "abc"}, rounds=4)
    assert "".join(order) == "abcbcacababc"


def test_a_drifting_machine_slows_ours_and_theirs_alike() -> None:
    clock = count(1)
    medians = interleaved({"ours": lambda: next(clock), "theirs": lambda: next(clock)}, rounds=10)
    assert abs(medians["ours"] - medians["theirs"]) <= 1


def test_one_disturbed_round_does_not_move_the_median() -> None:
    trials = iter([5.0, 5.0, 900.0, 5.0, 5.0])
    assert interleaved({"ours": lambda: next(trials)}, rounds=5) == {"ours": 5.0}


def test_several_peers_give_several_figures_and_none_gives_one() -> None:
    peers = {"sqlite": lambda: 4.0, "jsonl": lambda: 1.0}
    some = compare(
        "journal.x", ours=lambda: 2.0, peers=peers, unit="us", better="lower", effort=QUICK
    )
    assert [(figure.peer, figure.ratio) for figure in some] == [("sqlite", 2.0), ("jsonl", 0.5)]
    none = compare("journal.x", ours=lambda: 2.0, peers={}, unit="us", better="lower", effort=QUICK)
    assert [(figure.ours, figure.peer) for figure in none] == [(2.0, None)]


def test_a_quick_run_repeats_less_but_at_least_once() -> None:
    assert QUICK.of(1000) < FULL.of(1000) == 1000
    assert Effort(rounds=1, scale=1e-9).of(10) == 1


def test_seconds_per_call_counts_every_call() -> None:
    calls = count()
    assert seconds_per_call(lambda: next(calls), 1000) > 0
    assert next(calls) == 1000
