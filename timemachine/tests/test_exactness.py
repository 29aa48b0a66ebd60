"""The self-test finds, for models whose dependence is built in, exactly that dependence."""

import time

import numpy as np
import pytest
import threadpoolctl

from timemachine.errors import ModelNotTestable
from timemachine.exactness import (
    ExactnessClass,
    ExactnessSettings,
    Factor,
    aligned,
    classify,
)

ROWS = np.random.default_rng(0).normal(size=(300, 5))
QUICK = ExactnessSettings(rounds=2, budget_s=5.0)


def answer(rows):
    return (rows * np.arange(1, 6)).sum(axis=1)


def nudged(values, where):
    """The same numbers, one unit in the last place higher where asked."""
    return np.where(where, np.nextafter(values, np.inf), values)


def differing(report):
    return {seen.factor for seen in report.evidence if seen.differing}


def test_a_row_wise_sum_is_invariant():
    report = classify(answer, ROWS, settings=QUICK)
    assert report.exactness is ExactnessClass.INVARIANT
    assert differing(report) == set()
    assert all(seen.compared for seen in report.evidence)
    assert report.complete
    assert report.rows > 100


def test_a_model_that_looks_at_the_batch_size_is_shape_stable():
    def predict(rows):
        return nudged(answer(rows), len(rows) >= 4)

    report = classify(predict, ROWS, settings=QUICK)
    assert report.exactness is ExactnessClass.SHAPE_STABLE
    assert differing(report) == {Factor.BATCH_SIZE}
    assert report.of(Factor.BATCH_SIZE).max_ulps == 1


def test_a_model_that_looks_at_the_alignment_is_shape_stable():
    def predict(rows):
        return nudged(answer(rows), rows.__array_interface__["data"][0] % 64 != 0)

    report = classify(predict, ROWS, settings=QUICK)
    assert report.exactness is ExactnessClass.SHAPE_STABLE
    assert differing(report) == {Factor.ALIGNMENT}


def test_a_model_that_looks_at_the_threads_is_shape_stable():
    def predict(rows):
        threads = max(pool["num_threads"] for pool in threadpoolctl.threadpool_info())
        return nudged(answer(rows), threads > 1)

    with threadpoolctl.threadpool_limits(2):
        most = max(pool["num_threads"] for pool in threadpoolctl.threadpool_info())
    if most < 2:
        pytest.skip("the numeric libraries were built for one thread")
    settings = ExactnessSettings(batch_sizes=(4, 1), rounds=1, budget_s=10.0)
    report = classify(predict, ROWS, settings=settings)
    assert report.exactness is ExactnessClass.SHAPE_STABLE
    assert differing(report) == {Factor.THREADS}


def test_a_model_that_looks_at_the_position_is_batch_bound():
    def predict(rows):
        return nudged(answer(rows), np.arange(len(rows)) % 4 == 3)

    report = classify(predict, ROWS, settings=QUICK)
    assert report.exactness is ExactnessClass.BATCH_BOUND
    assert Factor.POSITION in differing(report)
    assert Factor.COMPANIONS not in differing(report)


def test_a_model_that_looks_at_the_other_rows_is_batch_bound():
    def predict(rows):
        return nudged(answer(rows), np.sort(rows[:, 0])[-1] > 2)

    report = classify(predict, ROWS, settings=QUICK)
    assert report.exactness is ExactnessClass.BATCH_BOUND
    assert Factor.COMPANIONS in differing(report)
    assert Factor.POSITION not in differing(report)


def test_a_model_that_draws_random_numbers_is_unstable_and_that_is_certain_at_once():
    generator = np.random.default_rng(1)
    report = classify(lambda rows: answer(rows) + generator.normal(size=len(rows)), ROWS)
    assert report.exactness is ExactnessClass.UNSTABLE
    assert report.calls < 10
    assert report.complete


def test_a_difference_in_the_payload_of_a_nan_counts():
    calls = []

    def predict(rows):
        calls.append(None)
        bits = np.full(len(rows), 0x7FF8000000000000 + len(calls), dtype=np.uint64)
        return bits.view(np.float64)

    report = classify(predict, ROWS, settings=QUICK)
    assert report.exactness is ExactnessClass.UNSTABLE
    assert report.of(Factor.REPEAT).max_ulps is None


def test_a_slow_model_is_cut_off_after_every_factor_was_compared():
    def predict(rows):
        time.sleep(0.005)
        return nudged(answer(rows), len(rows) == 1)

    began = time.perf_counter()
    report = classify(predict, ROWS, settings=ExactnessSettings(budget_s=0.1))
    assert time.perf_counter() - began < 5
    assert 0 < report.calls < report.planned
    assert not report.complete
    assert all(seen.compared for seen in report.evidence)


def test_the_report_says_which_row_in_which_call_differed():
    report = classify(lambda rows: nudged(answer(rows), len(rows) == 1), ROWS, settings=QUICK)
    assert "in a batch of 1, 1 thread(s), buffer offset 0" in report.of(Factor.BATCH_SIZE).example
    assert report.summary().startswith("B shape-stable: bits change with batch size (")


def test_few_rows_are_enough_to_compare_all_factors():
    report = classify(lambda rows: nudged(answer(rows), len(rows) == 1), ROWS[:3], settings=QUICK)
    assert report.exactness is ExactnessClass.SHAPE_STABLE
    assert report.batch_sizes == (1, 2, 3)


def test_the_model_cannot_spoil_the_rows_of_the_next_call():
    def predict(rows):
        answered = answer(rows)
        rows[...] = np.nan
        return answered

    assert classify(predict, ROWS, settings=QUICK).exactness is ExactnessClass.INVARIANT


def test_a_model_that_answers_from_one_buffer_is_judged_by_each_answer():
    buffer = np.empty(1000)

    def predict(rows):
        buffer[: len(rows)] = nudged(answer(rows), len(rows) == 1)
        return buffer[: len(rows)]

    assert classify(predict, ROWS, settings=QUICK).exactness is ExactnessClass.SHAPE_STABLE


def test_thread_counts_are_as_before_afterwards():
    before = [pool["num_threads"] for pool in threadpoolctl.threadpool_info()]
    with pytest.raises(ZeroDivisionError):
        classify(lambda rows: 1 // 0, ROWS)
    classify(answer, ROWS, settings=QUICK)
    assert [pool["num_threads"] for pool in threadpoolctl.threadpool_info()] == before


@pytest.mark.parametrize(
    ("rows", "predict"),
    [
        (np.zeros(4), answer),
        (np.zeros((1, 5)), answer),
        (np.array([["a"], [1]], object), answer),
        (ROWS, lambda rows: 3.0),
        (ROWS, lambda rows: rows[:-1]),
        (ROWS, lambda rows: np.array([object()] * len(rows))),
        (ROWS, lambda rows: np.zeros((len(rows), len(rows)))),
        (ROWS, lambda rows: np.zeros(len(rows), np.float32 if len(rows) > 1 else np.float64)),
    ],
)
def test_rows_and_answers_of_no_comparable_shape_are_refused(rows, predict):
    with pytest.raises(ModelNotTestable) as refused:
        classify(predict, rows, settings=QUICK)
    assert refused.value.what in ("rows", "predict")
    assert refused.value.expected
    assert refused.value.remedy


@pytest.mark.parametrize(
    "fields",
    [
        {"batch_sizes": ()},
        {"batch_sizes": (0,)},
        {"threads": (0,)},
        {"offsets": (-1,)},
        {"max_rows": 0},
        {"rounds": 0},
        {"budget_s": 0.0},
        {"budget_s": float("nan")},
    ],
)
def test_settings_out_of_range_are_refused(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        ExactnessSettings(**fields)


@pytest.mark.parametrize("offset", [0, 1, 5])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_aligned_copy_lies_where_it_was_asked_to(offset, dtype):
    copy = aligned(ROWS.astype(dtype), offset)
    assert copy.__array_interface__["data"][0] % 64 == offset * copy.itemsize
    assert copy.flags.c_contiguous
    assert (copy == ROWS.astype(dtype)).all()


def test_classes_have_letters_and_the_names_of_the_architecture():
    assert [f"{one.letter} {one}" for one in ExactnessClass] == [
        "A invariant",
        "B shape-stable",
        "C batch-bound",
        "D unstable",
    ]
