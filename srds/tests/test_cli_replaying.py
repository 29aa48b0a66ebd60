"""``srds replay``, ``explain`` and ``perturb``: recorded decisions, run again."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from srds.cli import application
from srds.tests.desk import APP, Left, errors


def test_a_replay_is_exact(left: Left, bob: str) -> None:
    text = left("replay", bob, "--app", str(left.file))
    assert "exact: " in text
    assert "NOT" not in text
    document = left.json("replay", bob, "--app", str(left.file))
    assert document["exact"]
    assert document["same_bits"]
    assert not document["code_changed"]
    assert document["environment"] == []
    assert document["inputs_read"] == 6


def test_all_decisions_replay_exactly_also_errors_and_coroutines(left: Left) -> None:
    document = left.json("replay", "--all", "--app", str(left.file))
    assert document["ok"]
    assert (document["replayed"], document["exact"]) == (8, 8)
    assert "8 of 8 replays are exact" in left("replay", "--all", "--app", str(left.file))


def test_changed_code_is_named_with_bits_and_answer(left: Left, bob: str, tmp_path: Path) -> None:
    changed = tmp_path / "desk.py"
    changed.write_text(APP.replace("income - 2 * debt", "income - 2.0000000000000004 * debt"))
    text = left("replay", bob, "--app", str(changed), exit_code=1)
    assert "NOT exact" in text
    assert "units in the last place" in text
    document = left.json("replay", bob, "--app", str(changed), exit_code=1)
    assert not document["exact"]
    assert 0 < document["max_ulps"] < 10
    assert "score" in document["first_difference"]


def test_another_read_is_named_as_the_first_difference(
    left: Left, bob: str, tmp_path: Path
) -> None:
    changed = tmp_path / "desk.py"
    changed.write_text(APP.replace('cell(name, "debt"), cell', 'cell(name, "debts"), cell'))
    document = left.json("replay", bob, "--app", str(changed), exit_code=1)
    assert "debts" in document["first_difference"]
    assert document["code_changed"]
    every = left.json("replay", "--all", "--app", str(changed), exit_code=1)
    assert every["exact"] == 4  # those of the other functions, and that of nobody called eve
    assert len(every["not_exact"]) == 4


def test_another_environment_is_announced(
    left: Left, bob: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MKL_CBWR", "AVX2")
    document = left.json("replay", bob, "--app", str(left.file))
    assert document["environment"] == ["env.MKL_CBWR: was absent, is AVX2"]
    result = CliRunner().invoke(
        application(), ["replay", bob, "--app", str(left.file), "--store", str(left.store)]
    )
    assert "env.MKL_CBWR: was absent, is AVX2" in result.stderr


def test_other_models_are_asked_about_recorded_decisions(left: Left) -> None:
    cyd = left.ids["grant", "cyd"]
    app = ["--app", str(left.file)]
    one = left.json("replay", cyd, "--with", "model/desk@next", *app)
    assert one["changed"] == 1
    assert one["decisions"][0]["now"]["value"]["answer"] == "reject"
    assert "reject" in left("replay", cyd, "--with", "model/desk@next", *app)
    every = left.json("replay", "--all", "--with", "model/desk@next", *app)
    assert every["changed"] == 1
    assert {"recorded": "approve", "now": "reject", "decisions": 1} in every["transitions"]
    # The same by the hash; and the recorded model changes nothing.
    text = left("replay", "--all", "--with", every["with"][0][:12], *app)
    assert "1 of 8 answers change" in text
    assert left.json("replay", "--all", "--with", "model/desk@production", *app)["changed"] == 0


def test_an_unknown_model_is_refused(left: Left, bob: str) -> None:
    app = ["--app", str(left.file), "--store", str(left.store)]
    assert "points nowhere" in errors("replay", bob, "--with", "model/desk@nope", *app)
    assert "abcdef" in errors("replay", bob, "--with", "abcdef", *app)


def test_replay_takes_one_decision_or_all(left: Left, bob: str) -> None:
    store = ["--store", str(left.store)]
    assert "--all" in errors("replay", *store, code=2)
    assert "--all" in errors("replay", bob, "--all", *store, code=2)


def test_all_reports_decisions_whose_app_is_not_known(left: Left) -> None:
    document = left.json("replay", "--all", exit_code=1)
    assert not document["ok"]
    assert sum(one["decisions"] for one in document["skipped"]) == 8
    assert "--app" in document["skipped"][0]["reason"]


def test_explain_ranks_inputs_and_finds_the_smallest_change(left: Left, bob: str) -> None:
    document = left.json("explain", bob, "--app", str(left.file))
    effects = {one["input"]: one["effect"] for one in document["effects"]}
    # The others had incomes of 52 and 31 (and one unknown), debts of 9, 11 and 2.
    assert effects["income"] == 20.0 - 41.5
    assert effects["debt"] == 2 * (9.0 - 14.0)
    assert effects["town"] == effects["owner"] == effects["years"] == 0
    assert document["label"] == "reject"
    assert document["wanted"] == "approve"
    change = document["smallest_change"]
    assert change["found"]
    assert change["label"] == "approve"
    text = left("explain", bob, "--app", str(left.file))
    assert text.index("income") < text.index("debt")
    assert "The smallest change that leads to approve" in text


def test_an_answer_without_a_score_is_explained_by_whether_it_stands(left: Left) -> None:
    document = left.json("explain", left.ids["well_off", "bob"], "--app", str(left.file))
    (effect,) = document["effects"]
    assert effect["effect"] == -1.0
    assert effect["label_at_baseline"] == "True"
    assert document["smallest_change"]["changes"] == [{"input": "income", "from": 20.0, "to": 52.0}]


def test_shapley_values_share_out_the_whole_distance(left: Left, bob: str) -> None:
    document = left.json("explain", bob, "--shapley", "--app", str(left.file))
    shares = [one["effect"] for one in document["effects"]]
    assert sum(shares) == pytest.approx(-8 - (41.5 - 2 * 9))
    assert "Shapley" in left("explain", bob, "--shapley", "--app", str(left.file))


def test_what_cannot_be_explained_says_why(left: Left) -> None:
    options = ["--app", str(left.file), "--store", str(left.store)]
    assert "no answer to explain" in errors("explain", left.ids["grant", "eve"], *options)
    assert "nothing to compare" in errors("explain", left.ids["odd", None], *options)
    assert "score is nan" in errors("explain", left.ids["grant", "nan"], *options)


def test_an_apps_own_plan_is_used(left: Left, bob: str, tmp_path: Path) -> None:
    planned = tmp_path / "desk.py"
    planned.write_text(
        APP
        + """

@app.explained_by(grant)
def plan(opened, record):
    from srds.explaining import ExplanationPlan
    from timemachine.counterfactual import Grid
    from timemachine.explanation import Answer

    return ExplanationPlan(
        read=lambda answer: Answer(answer["answer"], answer["score"]),
        baseline={"debt": 0.0},
        actionable={"debt": Grid.between(0, 14, 1, "$1000", "down")},
        wanted="approve",
    )
"""
    )
    document = left.json("explain", bob, "--app", str(planned))
    assert [one["input"] for one in document["effects"]] == ["debt"]
    assert document["smallest_change"]["changes"] == [{"input": "debt", "from": 14.0, "to": 7}]
    text = left("explain", bob, "--app", str(planned))
    assert "debt from 14 to 7 ($1000)" in text
    assert "All 6 smaller changes on the grid were replayed" in text


def test_perturb_shows_where_the_answer_turns(left: Left, bob: str) -> None:
    app = ["--app", str(left.file)]
    document = left.json("perturb", bob, "--grid", "income=20..50:7", "--set", "debt=10", *app)
    assert [one["inputs"] for one in document["points"]] == [
        {"debt": 10.0, "income": income} for income in (20.0, 25.0, 30.0, 35.0, 40.0, 45.0, 50.0)
    ]
    assert [one["score"] for one in document["points"]] == [0, 5, 10, 15, 20, 25, 30]
    assert [one["turned"] for one in document["points"]] == [False] * 2 + [True] * 5
    lines = left("perturb", bob, "--grid", "income=20..50:7", "--set", "debt=10", *app)
    (turn,) = [line for line in lines.splitlines() if "turns" in line]
    assert turn.split()[:3] == ["10", "30", "approve"]


def test_perturb_scales_and_combines(left: Left, bob: str) -> None:
    app = ["--app", str(left.file)]
    document = left.json("perturb", bob, "--scale", "debt=0.5..1:3", "--grid", "years=1..2:2", *app)
    assert [(one["inputs"]["debt"], one["inputs"]["years"]) for one in document["points"]] == [
        (7.0, 1), (7.0, 2), (10.5, 1), (10.5, 2), (14.0, 1), (14.0, 2),
    ]  # fmt: skip


def test_perturb_takes_values_in_the_type_that_was_recorded(left: Left, bob: str) -> None:
    options = ["--set", "town=12", "--set", "owner=yes", "--set", "income=nan", "--set",
               "years=none"]  # fmt: skip
    (point,) = left.json("perturb", bob, *options, "--app", str(left.file))["points"]
    assert point["inputs"] == {"town": "12", "owner": True, "income": "NaN", "years": None}
    assert point["score"] == "NaN"


@pytest.mark.parametrize(
    ("options", "message", "code"),
    [
        (["--set", "incme=3"], "did you mean income", 1),
        (["--set", "income=much"], "is not a number", 1),
        (["--set", "owner=perhaps"], "true or false", 1),
        (["--scale", "town=1..2:3"], "cannot be scaled", 1),
        (["--set", "income"], "NAME=VALUE", 2),
        (["--grid", "income=1..2"], "NAME=LOW..HIGH:N", 2),
        (["--grid", "income=a..b:3"], "no numbers", 2),
        (["--grid", "income=0..inf:3"], "not finite", 2),
        (["--grid", "income=0..1:0"], "points", 2),
        (["--grid", "income=0..1:101", "--grid", "debt=0..1:100"], "10,100 combinations", 2),
        (["--set", "income=1", "--grid", "income=0..1:2"], "more than once", 2),
        ([], "nothing to change", 2),
    ],
)
def test_perturb_refuses_what_it_cannot_do(
    left: Left, bob: str, options: list[str], message: str, code: int
) -> None:
    where = ["--app", str(left.file), "--store", str(left.store)]
    told = " ".join(errors("perturb", bob, *options, *where, code=code).split())
    assert message in told
