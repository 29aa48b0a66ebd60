"""A replica takes only rows that fit, and answers under the same conditions each time."""

import subprocess
import sys
import threading
from decimal import Decimal

import numpy as np
import pytest
import threadpoolctl
from hypothesis import given
from hypothesis import strategies as st

from frameworks.serving import (
    Model,
    ModelFailed,
    ModelNotExact,
    ModelUnsupported,
    Replica,
    ReplicaSettings,
    RowInvalid,
)

FEATURES = ("income", "debt", "term")
DIGEST = "ab" * 32


class Linear:
    """A small model of our own: what it saw last is kept for the tests."""

    outputs = ("low", "high")

    def __init__(self):
        self.seen = None

    def predict(self, rows):
        self.seen = rows
        total = rows.sum(axis=1)
        return np.stack([total, -total], axis=1)


def a_model(**fields):
    return Model(
        **{
            "name": "credit",
            "digest": DIGEST,
            "format": "onnx",
            "features": FEATURES,
            "outputs": Linear.outputs,
            "exactness": "invariant",
            **fields,
        }
    )


@pytest.fixture
def replica():
    return Replica(a_model(), Linear())


def test_a_row_by_name_and_a_row_in_order_are_one(replica):
    named = replica.row({"term": 3, "income": 1.5, "debt": True})
    assert named.tolist() == [1.5, 1.0, 3.0]
    assert replica.row([1.5, 1, 3]).tobytes() == named.tobytes()
    assert replica.row((Decimal("1.5"), np.int8(1), np.float32(3))).tobytes() == named.tobytes()
    assert replica.row(np.array([1.5, 1, 3], np.float32)).tobytes() == named.tobytes()
    assert named.dtype == np.float64


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=3, max_size=3))
def test_no_bit_of_a_row_changes_on_its_way_in(values):
    found = Replica(a_model(), Linear(), ReplicaSettings(warm_up=())).row(values)
    assert found.tobytes() == np.array(values).tobytes()


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"income": 1, "debt": 2}, "term"),
        ({"income": 1, "debt": 2, "term": 3, "age": 4}, "age"),
        ({"income": 1, "debt": "2", "term": 3}, "debt"),
        ({"income": None, "debt": 2, "term": 3}, "income"),
        ({"income": 1, "debt": 2, "term": float("nan")}, "term"),
        ({"income": float("-inf"), "debt": 2, "term": 3}, "income"),
        ({"income": 10**400, "debt": 2, "term": 3}, "income"),
        ([1, 2, 3j], "term"),
        ([1, [2], 3], "debt"),
        ([1, 2], "row"),
        ([], "row"),
        ("123", "row"),
        (7, "row"),
        (np.zeros(4), "row"),
        (np.zeros((1, 3)), "row"),
        (np.array(["a", "b", "c"]), "rows"),
        (np.array([1, np.nan, 3]), "debt"),
        (np.array([1, 2, None], object), "rows"),
    ],
)
def test_a_row_that_does_not_fit_names_its_column(replica, values, what):
    with pytest.raises(RowInvalid) as invalid:
        replica.row(values)
    assert invalid.value.what == what
    assert invalid.value.expected
    assert invalid.value.remedy


def test_the_column_and_row_of_a_bad_value_in_a_matrix_are_named(replica):
    rows = np.zeros((5, 3))
    rows[3, 1] = np.inf
    with pytest.raises(RowInvalid, match="column 'debt' of row 3 is inf"):
        replica.rows(rows)
    for shape in ((0, 3), (3,), (2, 4)):
        with pytest.raises(RowInvalid, match="shape"):
            replica.rows(np.zeros(shape))


def test_a_missing_value_passes_where_the_model_handles_it_and_infinity_never():
    replica = Replica(a_model(missing=True), Linear())
    assert np.isnan(replica.row([1, float("nan"), 3])[1])
    with pytest.raises(RowInvalid, match="debt"):
        replica.row([1, float("inf"), 3])


def test_the_model_gets_a_buffer_on_a_boundary_and_not_the_callers_own(replica):
    rows = np.ones((7, 3))[::2]
    replica.predict(rows)
    seen = replica.predictor.seen
    assert seen.__array_interface__["data"][0] % 64 == 0
    assert seen.flags.c_contiguous
    assert not np.may_share_memory(seen, rows)


def test_the_answer_is_the_callers_own():
    class Reusing(Linear):
        kept = np.zeros((64, 2))

        def predict(self, rows):
            self.kept[: len(rows)] = rows[:, :2]
            return self.kept[: len(rows)]

    replica = Replica(a_model(), Reusing())
    first = replica.predict(np.ones((2, 3)))
    replica.predict(np.zeros((2, 3)))
    assert first.tolist() == [[1, 1], [1, 1]]


@pytest.mark.parametrize(
    "answer",
    [
        lambda rows: rows[:1],
        lambda rows: rows[:, 0],
        lambda rows: [[0.0, 0.0]] * len(rows),
        lambda rows: np.array([["a", "b"]] * len(rows)),
        lambda rows: None,
        lambda rows: 1 / 0,
    ],
)
def test_a_model_that_answers_rubbish_has_failed(answer):
    predictor = Linear()
    replica = Replica(a_model(), predictor)
    predictor.predict = answer
    with pytest.raises(ModelFailed, match="credit"):
        replica.predict(np.zeros((2, 3)))


def test_a_model_that_fails_while_it_warms_up_makes_no_replica():
    class Broken(Linear):
        def predict(self, rows):
            raise RuntimeError("no weights")

    with pytest.raises(ModelFailed, match="no weights"):
        Replica(a_model(), Broken())


def test_it_is_warm_before_its_first_row():
    sizes = []

    class Counting(Linear):
        def predict(self, rows):
            sizes.append(len(rows))
            return super().predict(rows)

    Replica(a_model(), Counting(), ReplicaSettings(warm_up=(1, 32)))
    assert sizes == [1, 32]
    with pytest.raises(ValueError, match="warm_up"):
        ReplicaSettings(warm_up=(0,))


def test_an_unstable_model_is_served_only_where_nobody_audits():
    with pytest.raises(ModelNotExact) as refused:
        Replica(a_model(exactness="unstable"), Linear())
    assert refused.value.what == "credit"
    served = Replica(a_model(exactness="unstable"), Linear(), ReplicaSettings(audited=False))
    assert served.predict(np.zeros((1, 3))).shape == (1, 2)


def test_numeric_libraries_have_one_thread_in_every_thread_that_calls():
    # A process of its own: pinned libraries stay so.
    program = (
        "import threading, numpy, threadpoolctl, sklearn.ensemble\n"
        "from frameworks.serving import Model, Replica\n"
        "class Summing:\n"
        "    outputs = ('sum',)\n"
        "    def predict(self, rows):\n"
        "        counts.update(p['num_threads'] for p in threadpoolctl.threadpool_info())\n"
        "        return rows.sum(axis=1, keepdims=True)\n"
        "counts = set()\n"
        "model = Model('m', 'ab' * 32, 'onnx', ('a',), ('sum',), 'invariant')\n"
        "replica = Replica(model, Summing())\n"
        "thread = threading.Thread(target=replica.predict, args=(numpy.ones((1, 1)),))\n"
        "thread.start(); thread.join()\n"
        "print(sorted(counts))\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60
    )
    assert finished.stdout.strip() == "[1]"


def test_threads_may_share_a_replica(replica):
    rows = np.random.default_rng(0).normal(size=(64, 3))
    expected = replica.predict(rows).tobytes()
    found = []

    def call():
        found.extend(replica.predict(rows).tobytes() == expected for _ in range(50))

    with threadpoolctl.threadpool_limits(1):
        threads = [threading.Thread(target=call) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == [True] * 200


def test_a_description_survives_as_plain_values():
    model = a_model(missing=True)
    assert Model.from_dict(model.as_dict()) == model
    assert Model.from_dict({**model.as_dict(), "features": list(FEATURES)}) == model


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"name": ""}, "name"),
        ({"digest": "xyz"}, "digest"),
        ({"features": ()}, "features"),
        ({"features": ("a", "a")}, "features"),
        ({"outputs": ()}, "outputs"),
    ],
)
def test_an_impossible_description_is_refused(fields, what):
    with pytest.raises(ModelUnsupported) as refused:
        a_model(**fields)
    assert refused.value.what == what


def test_a_description_of_another_version_is_refused():
    with pytest.raises(ModelUnsupported, match="description"):
        Model.from_dict({**a_model().as_dict(), "colour": "red"})
    with pytest.raises(ModelUnsupported, match="description"):
        Model.from_dict({"name": "credit"})


def test_importing_serving_imports_no_numeric_library():
    program = (
        "import sys, frameworks.serving as serving\n"
        "from frameworks.serving import plugin, ArtefactStore, Model, ServingError\n"
        "heavy = {'numpy', 'sklearn', 'onnxruntime', 'torch', 'skops', 'pandas', 'scipy'}\n"
        "print(sorted(heavy & {name.partition('.')[0] for name in sys.modules}))\n"
        "names = [name for name in serving.__all__ if getattr(serving, name) is None]\n"
        "print(names, 'numpy' in sys.modules)\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60
    )
    assert finished.stdout.split("\n")[:2] == ["[]", "[] True"]
