"""Goals: stated beside a figure, met or not, on the line and on the page."""

from __future__ import annotations

import json

import pytest

from benchmarks.document import BEGIN, END, rewritten
from benchmarks.measure import OURS, Better, Effort, Figure, Goal, compare, figures_of, interleaved


@pytest.mark.parametrize(
    ("better", "ours", "goal", "met"),
    [
        ("higher", 100.0, 99.0, True),
        ("higher", 100.0, 101.0, False),
        ("lower", 100.0, 101.0, True),
        ("lower", 100.0, 99.0, False),
        ("lower", 0.0, 0.0, True),
        ("lower", 1.0, None, None),
    ],
)
def test_a_bound_is_kept_from_the_better_side(
    better: Better, ours: float, goal: float | None, met: bool | None
) -> None:
    assert Figure("kernel.x", ours, "", better, goal=goal).met is met


@pytest.mark.parametrize(("ratio", "met"), [(10.0, True), (11.0, False)])
def test_both_the_bound_and_the_ratio_have_to_be_reached(ratio: float, met: bool) -> None:
    figure = Figure("kernel.x", 5.0, "us", "lower", 50.0, "ray", 5.0, ratio)
    assert figure.met is met
    assert Figure("kernel.x", 5.0, "us", "lower", 50.0, "ray", 4.9, ratio).met is False


def test_a_line_says_the_goals_and_whether_they_are_met_and_is_read_again() -> None:
    figure = Figure("kernel.x", 5.0, "us", "lower", 50.0, "ray", goal_ratio=10.0)
    fields = json.loads(figure.line())
    assert (fields["goal"], fields["goal_ratio"], fields["met"]) == (None, 10.0, True)
    assert Figure.parse(figure.line()) == figure
    plain = Figure("kernel.x", 5.0, "us", "lower")
    assert "goal" not in plain.line()
    assert Figure.parse(plain.line()) == plain


def test_each_peer_gets_its_own_ratio_to_reach() -> None:
    goal = Goal(100.0, {"ray": 5})
    figures = figures_of(
        "kernel.x",
        {OURS: 100.0, "ray": 10.0, "dask": 1.0},
        unit="/s",
        better="higher",
        goal=goal,
    )
    assert [(figure.peer, figure.goal, figure.goal_ratio) for figure in figures] == [
        ("ray", 100.0, 5),
        ("dask", 100.0, None),
    ]
    assert all(figure.met for figure in figures)


def test_a_goal_that_cannot_be_checked_is_refused() -> None:
    with pytest.raises(ValueError, match="redis"):
        Goal(times={"redis": 3})
    with pytest.raises(ValueError, match="needs a peer"):
        Figure("kernel.x", 1.0, "us", "lower", goal_ratio=3.0)


def test_the_page_says_what_was_met_and_what_was_missed() -> None:
    page = rewritten(
        f"{BEGIN}\n{END}",
        [
            Figure("kernel.fast", 2e6, "/s", "higher", 2e3, "ray", 1.5e6, 500.0),
            Figure("kernel.slow", 30.0, "us", "lower", goal=10.0),
            Figure("kernel.free", 30.0, "us", "lower"),
        ],
        "a day",
    )
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert rows[0].endswith("| ≥ 1,500,000 /s, ≥ 500 ×: met |")
    assert rows[1].endswith("| ≤ 10 us: **missed** |")
    assert rows[2].endswith("|  |  |")


def test_costly_contenders_take_part_in_a_few_rounds_spread_evenly() -> None:
    order: list[str] = []

    def contender(name: str) -> float:
        order.append(name)
        return 0.0

    contenders = {name: lambda name=name: contender(name) for name in ("ours", "ray")}
    interleaved(contenders, 15, {"ray"}, 3)
    assert order.count("ours") == 15
    rounds = [order[:place].count("ours") for place, name in enumerate(order) if name == "ray"]
    assert len(rounds) == 3
    assert all(abs(done - expected) <= 1 for done, expected in zip(rounds, (0, 5, 10), strict=True))


@pytest.mark.parametrize("turns", [1, 2, 5, 9])
def test_a_costly_contender_has_at_least_one_turn_and_never_more_than_rounds(turns: int) -> None:
    effort = Effort(rounds=5, scale=1.0, turns=turns)
    calls: list[int] = []
    compare(
        "kernel.x",
        ours=lambda: 1.0,
        peers={"ray": lambda: float(calls.append(1) or 1)},
        unit="",
        better="lower",
        effort=effort,
        seldom={"ray"},
    )
    assert len(calls) == min(turns, 5)
