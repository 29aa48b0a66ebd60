"""The main job computes what it reports: other seeds, other rows, other outcomes, other results.

And the same seed and data give the same results to the last bit, in any store and any process.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from srds.store import Store
from timemachine.replay import Records

SEED = 1


def applications_of(data: Any, seed: int = SEED) -> Any:
    from srds.apps.mortgage_models import load_applications

    return load_applications(seed, data)


def trained(applications: Any, store: Path) -> Any:
    """The ensemble of the training step alone, in a store of its own."""
    from srds.apps import mortgage

    with mortgage.app.open(store) as opened:
        fit, fitted, _ = mortgage.train(opened, applications)
    return fit, fitted


def answers_of(fit: Any, fitted: Any, applications: Any) -> Counter[tuple[str, bool]]:
    """What the held-out applications are answered, and whether the bank approved."""
    from srds.apps.mortgage_models import matrix

    rows = applications.held_out
    scores = {
        name: model.predict_proba(matrix(applications, False)[rows])[:, 1]
        for name, model in fitted.items()
    }
    return Counter(
        (
            fit.ensemble.answer({name: float(scores[name][at]) for name in scores}).label,
            bool(applications.approved[row]),
        )
        for at, row in enumerate(rows)
    )


def answers_in(store: Path, ids: list[str]) -> dict[int, dict[str, Any]]:
    records = Records(Store.open(store).reader())
    found = [records.find(one) for one in ids]
    return {one.args[0]: one.outcome.value for one in found if one.outcome}


def test_the_same_seed_and_data_give_the_same_bits_in_another_store(
    main_job: Any, trained_store: Path
) -> None:
    from srds.apps import mortgage

    with mortgage.app.open(trained_store, recording=False) as opened:
        again = opened.ground.resolve("ensemble/mortgage@production")
    with mortgage.app.open(main_job.store, recording=False) as opened:
        first = opened.ground.resolve("ensemble/mortgage@production")
    assert again.hash == first.hash == main_job.report.ensemble["version"]
    assert again.content == first.content


def test_one_changed_value_of_one_applicant_changes_that_applicant_s_decision(
    main_job: Any, store: Path, table: Any, deciding: Callable[..., list[str]]
) -> None:
    rows = applications_of(table).held_out.tolist()[:40]
    changed = table.copy()
    changed.loc[rows[7], "obrat"] = 95.0
    digests = {main_job.report.data_sha256, applications_of(changed).digest}
    assert len(digests) == 2
    recorded = answers_in(main_job.store, Records(Store.open(main_job.store).reader()).ids())
    as_published = answers_in(store, deciding(store, rows))
    as_changed = answers_in(store, deciding(store, rows, changed))
    # Where rows are batched together decides last bits, no more.
    for row in rows:
        assert as_published[row]["score"] == pytest.approx(recorded[row]["score"], abs=1e-9)
        assert as_published[row]["answer"] == recorded[row]["answer"]
    moved = [
        row
        for row in rows
        if as_changed[row]["score"] != pytest.approx(as_published[row]["score"], abs=1e-9)
    ]
    assert moved == [rows[7]]


def test_one_changed_training_row_changes_the_models_and_not_the_split(
    main_job: Any, trained_store: Path, table: Any, tmp_path: Path
) -> None:
    from srds.apps import mortgage

    first = applications_of(table)
    changed = table.copy()
    row = int(first.training[100])
    changed.loc[row, "obrat"] += 30
    other = applications_of(changed)
    assert other.digest != first.digest
    assert other.held_out.tolist() == first.held_out.tolist()
    fit, _ = trained(other, tmp_path / "store")
    with mortgage.app.open(trained_store, recording=False) as opened:
        known = opened.ground.resolve("ensemble/mortgage@production").content
    assert fit.ensemble.describe() != known["ensemble"]


def test_shuffled_outcomes_leave_nothing_to_answer(
    main_job: Any, table: Any, tmp_path: Path
) -> None:
    """No model can know an outcome drawn at random, and one that says so does not answer.

    One in eight is rejected, more than the errors allowed: approving everyone is no way out.
    """
    shuffled = table.copy()
    shuffled["approve"] = np.random.default_rng(5).permutation(table["approve"].to_numpy())
    applications = applications_of(shuffled)
    answers = answers_of(*trained(applications, tmp_path / "store"), applications)
    abstained = sum(count for (answer, _), count in answers.items() if answer == "I don't know")
    assert abstained >= 0.9 * len(applications.held_out)
    assert main_job.report.answered >= 0.8 * main_job.report.held_out


def test_another_seed_gives_another_run_of_the_same_data(
    main_job: Any, table: Any, tmp_path: Path
) -> None:
    report = main_job.report
    applications = applications_of(table, SEED + 1)
    assert applications.digest == report.data_sha256
    assert applications.held_out.tolist() != applications_of(table).held_out.tolist()
    fit, fitted = trained(applications, tmp_path / "store")
    weights = {member.name: member.weight for member in fit.ensemble.members}
    assert set(weights) == set(report.ensemble["weights"])
    assert weights != report.ensemble["weights"]
    answers = answers_of(fit, fitted, applications)
    by_answer: Counter[str] = Counter()
    for (answer, _), count in answers.items():
        by_answer[answer] += count
    assert by_answer != Counter(report.answers)
    # And yet it is as good a run.
    answered = len(applications.held_out) - by_answer["I don't know"]
    right = answers["approve", True] + answers["reject", False]
    assert right / answered == pytest.approx(report.agreed / report.answered, abs=0.04)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_whole_runs_differ_with_the_seed_and_with_one_row(
    main_job: Any, table: Any, tmp_path: Path
) -> None:
    from srds.apps import mortgage

    first = main_job.report.to_json()
    changed = table.copy()
    changed.loc[main_job.report.explained_row, "unver"] = 0.0
    runs = {
        "seed": mortgage.run(store=tmp_path / "seed", seed=SEED + 1).to_json(),
        "row": mortgage.run(store=tmp_path / "row", seed=SEED, data=changed).to_json(),
    }
    for name, run in runs.items():
        assert run["findings"] == 0
        assert run["same_bits"] == run["replayed"] == 498, name
        assert run["tampering"]["frame"] is not None
    for key in ("answers", "models", "ensemble", "explained_answer", "second_version", "audit"):
        assert runs["seed"][key] != first[key], key
    assert runs["seed"]["data_sha256"] == first["data_sha256"]
    # The applicant whose rejection was explained brought the papers.
    assert runs["row"]["data_sha256"] != first["data_sha256"]
    assert runs["row"]["models"] == first["models"]
    with mortgage.app.open(tmp_path / "row", recording=False) as opened:
        [record] = [
            one
            for one in Records(opened.store.reader())
            if one.args == (main_job.report.explained_row,)
        ]
    assert record.outcome is not None
    assert record.outcome.value["score"] > first["explained_answer"]["score"]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_whole_run_on_shuffled_outcomes_finds_nothing_to_say(table: Any, tmp_path: Path) -> None:
    from srds.apps import mortgage

    shuffled = table.copy()
    shuffled["approve"] = np.random.default_rng(6).permutation(table["approve"].to_numpy())
    report = mortgage.run(store=tmp_path / "store", seed=SEED, data=shuffled)
    assert report.answered <= 0.1 * report.held_out
    assert report.same_bits == report.replayed
    assert report.findings == 0
