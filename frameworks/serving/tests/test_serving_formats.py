"""Models of each format come back from the store with the same bits."""

import io
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from sklearn.base import BaseEstimator
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier, VotingClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import LinearSVC

from enclave.keys import KeyRing, SigningKey
from frameworks.serving import (
    ArtefactRefused,
    ModelNotExact,
    ModelUnsupported,
    ReplicaSettings,
    load_predictor,
    load_replica,
    onnx_format,
    register,
    sklearn_format,
    torch_format,
)
from timemachine.exactness import ExactnessClass, ExactnessSettings, Factor

FEATURES = tuple(f"x{index}" for index in range(6))
TINY = ExactnessSettings(batch_sizes=(4, 1), threads=(1,), offsets=(), rounds=1, budget_s=0.1)


@pytest.mark.parametrize("name", ["logistic", "boosting", "mlp", "forest"])
def test_an_estimator_answers_with_the_same_bits_after_storing(
    store, key, trusted, table, estimators, name
):
    rows, _ = table
    found = register(
        store, name, estimators[name], features=FEATURES, sample=rows, key=key, settings=TINY
    )
    predictor = load_predictor(store, found.model, trusted)
    estimator = estimators[name]
    if name == "forest":
        # Its own answers are those of whichever thread came first.
        estimator = sklearn_format.load(
            sklearn_format.dump(estimator),
            len(FEATURES),
            trusted_types=sklearn_format.unknown_types(sklearn_format.dump(estimator)),
        ).estimator
    assert found.model.outputs == ("0", "1")
    for part in (rows, rows[:1], rows[5:18]):
        assert predictor.predict(part).tobytes() == estimator.predict_proba(part).tobytes()


def test_an_onnx_model_answers_with_the_same_bits_after_storing(store, key, table, onnx_bytes):
    rows, _ = table
    found = register(
        store, "onnx", onnx_bytes, features=FEATURES, sample=rows, key=key, settings=TINY
    )
    predictor = load_predictor(store, found.model)
    direct = onnx_format.load(onnx_bytes, len(FEATURES))
    assert found.model.format == "onnx"
    assert found.model.outputs == ("value_0", "value_1")
    assert predictor.predict(rows).tobytes() == direct.predict(rows).tobytes()
    assert predictor.predict(rows).dtype == np.float32


def test_a_torch_module_answers_with_the_same_bits_after_storing(
    store, key, trusted, table, module
):
    import torch

    rows, _ = table
    module.train()
    found = register(store, "torch", module, features=FEATURES, sample=rows, key=key, settings=TINY)
    assert module.training
    module.eval()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        predictor = load_predictor(store, found.model, trusted)
        for part in (rows, rows[:1], rows[5:18]):
            with torch.no_grad():
                direct = module(torch.from_numpy(part.astype(np.float32))).numpy()
            assert predictor.predict(part).tobytes() == direct.tobytes()
    finally:
        torch.set_num_threads(threads)


def test_a_torch_module_in_double_precision_stays_in_it(module):
    rows = np.random.default_rng(0).normal(size=(3, len(FEATURES)))
    predictor = torch_format.load(torch_format.dump(module.double(), len(FEATURES)), len(FEATURES))
    assert predictor.predict(rows).dtype == np.float64
    assert predictor.outputs == ("value_0", "value_1")


def test_the_same_parameters_have_the_same_digest_in_every_process():
    program = (
        "import hashlib, numpy as np\n"
        "from sklearn.ensemble import RandomForestClassifier\n"
        "from frameworks.serving import sklearn_format\n"
        "rows = np.random.default_rng(0).normal(size=(50, 3))\n"
        "forest = RandomForestClassifier(3, random_state=0).fit(rows, rows[:, 0] > 0)\n"
        "digest = hashlib.sha256(sklearn_format.dump(forest)).hexdigest()\n"
    )
    here = {}
    exec(program, here)
    elsewhere = subprocess.run(
        [sys.executable, "-c", program + "print(digest)"],
        env={**os.environ, "PYTHONHASHSEED": "2"},
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert elsewhere.stdout.strip() == here["digest"]


def test_another_parameter_gives_another_digest(table, estimators):
    rows, answers = table
    first = sklearn_format.dump(LogisticRegression(C=1.0).fit(rows, answers))
    assert first == sklearn_format.dump(LogisticRegression(C=1.0).fit(rows, answers))
    assert first != sklearn_format.dump(LogisticRegression(C=1.0001).fit(rows, answers))


def test_an_artefact_holds_no_pickle(table, estimators):
    for estimator in estimators.values():
        with zipfile.ZipFile(io.BytesIO(sklearn_format.dump(estimator))) as archive:
            suffixes = {name.rpartition(".")[2] for name in archive.namelist()}
        assert suffixes <= {"json", "npy"}


def test_types_beyond_skops_own_need_a_trusted_signature(store, key, trusted, table, estimators):
    rows, _ = table
    model = register(
        store, "f", estimators["forest"], features=FEATURES, sample=rows, key=key, settings=TINY
    ).model
    stranger = KeyRing([SigningKey.generate("example.org/stranger").public])
    for ring in (None, stranger):
        with pytest.raises(ArtefactRefused, match=r"sklearn\.tree\._tree\.Tree") as refused:
            load_predictor(store, model, ring)
        assert refused.value.what == model.digest
    assert load_predictor(store, model, trusted).outputs == ("0", "1")


def test_a_linear_model_needs_no_signature(store, key, table, estimators):
    rows, _ = table
    model = register(
        store, "l", estimators["logistic"], features=FEATURES, sample=rows, key=key, settings=TINY
    ).model
    assert load_predictor(store, model).outputs == ("0", "1")


def test_a_torch_module_needs_a_trusted_signature(store, key, trusted, table, module):
    rows, _ = table
    model = register(
        store, "t", module, features=FEATURES, sample=rows, key=key, settings=TINY
    ).model
    with pytest.raises(ArtefactRefused, match="can write files"):
        load_predictor(store, model)
    assert load_predictor(store, model, trusted).outputs == model.outputs


def test_a_forest_on_two_threads_is_unstable_and_refused_where_audits_need_it(
    store, key, trusted, table, estimators
):
    rows, _ = table
    forest = estimators["forest"]
    kept = register(
        store, "forest", forest, features=FEATURES, sample=rows, key=key, single_thread=False
    )
    assert kept.report.exactness is ExactnessClass.UNSTABLE
    assert kept.report.of(Factor.REPEAT).differing
    with pytest.raises(ModelNotExact, match="forest") as refused:
        load_replica(store, kept.model, trusted)
    assert "one thread" in refused.value.remedy
    unaudited = load_replica(store, kept.model, trusted, ReplicaSettings(audited=False))
    assert unaudited.predictor.estimator.n_jobs == 2


def test_a_forest_held_to_one_thread_is_served(store, key, trusted, table, estimators):
    rows, _ = table
    forest = estimators["forest"]
    held = register(store, "forest", forest, features=FEATURES, sample=rows, key=key)
    assert held.report.exactness is not ExactnessClass.UNSTABLE
    assert load_replica(store, held.model, trusted).predictor.estimator.n_jobs == 1
    assert forest.n_jobs == 2


def test_the_parts_of_an_ensemble_are_held_to_one_thread(table):
    rows, answers = table
    voting = VotingClassifier(
        [
            ("forest", RandomForestClassifier(3)),
            ("calibrated", CalibratedClassifierCV(RandomForestClassifier(3), cv=2)),
        ],
        voting="soft",
    ).fit(rows, answers)
    # Set after fitting, which would start processes.
    parts = [part.estimator for part in voting.estimators_[1].calibrated_classifiers_]
    for estimator in (voting, voting.estimators_[0], *parts):
        estimator.n_jobs = 2
    data = sklearn_format.dump(voting)
    types = sklearn_format.unknown_types(data)
    loaded = sklearn_format.load(data, len(FEATURES), trusted_types=types).estimator
    forest, calibrated = loaded.estimators_
    assert loaded.n_jobs == forest.n_jobs == 1
    assert [part.estimator.n_jobs for part in calibrated.calibrated_classifiers_] == [1, 1]


def test_estimators_without_probabilities_answer_what_they_have(table):
    rows, answers = table
    decision = sklearn_format.load(sklearn_format.dump(LinearSVC().fit(rows, answers)), 6)
    regression = sklearn_format.load(sklearn_format.dump(LinearRegression().fit(rows, rows)), 6)
    assert decision.outputs == ("value",)
    assert decision.predict(rows).shape == (400, 1)
    assert regression.outputs == tuple(f"value_{index}" for index in range(6))


@pytest.mark.filterwarnings("error")
def test_models_fitted_on_named_columns_take_a_matrix(table):
    pd = pytest.importorskip("pandas")
    rows, answers = table
    frame = pd.DataFrame(rows, columns=list(FEATURES))
    plain = make_pipeline(StandardScaler(), LogisticRegression()).fit(frame, answers)
    selecting = make_pipeline(
        ColumnTransformer([("some", StandardScaler(), ["x4", "x1"])]), LogisticRegression()
    ).fit(frame, answers)
    for estimator in (plain, selecting):
        data = sklearn_format.dump(estimator)
        types = sklearn_format.unknown_types(data)
        predictor = sklearn_format.load(data, len(FEATURES), trusted_types=types)
        assert predictor.predict(rows).tobytes() == estimator.predict_proba(frame).tobytes()


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (LogisticRegression(), "not fitted"),
        (object(), "object"),
        (b"not a model", "no ONNX model"),
        (b"", "no ONNX model"),
    ],
)
def test_what_is_no_model_is_refused_and_leaves_nothing_in_the_store(store, key, source, says):
    with pytest.raises(ModelUnsupported, match=says):
        register(store, "m", source, features=FEATURES, sample=np.zeros((4, 6)), key=key)
    assert not store.directory.exists()


def test_a_lambda_in_a_pipeline_is_refused_with_the_way_out(table):
    rows, answers = table
    estimator = make_pipeline(FunctionTransformer(lambda x: x + 1), LogisticRegression())
    with pytest.raises(ModelUnsupported, match="cannot be stored") as refused:
        sklearn_format.dump(estimator.fit(rows, answers))
    assert "lambdas" in refused.value.remedy


def test_a_transformer_alone_predicts_nothing(table):
    rows, _ = table
    with pytest.raises(ModelUnsupported, match="predicts nothing"):
        sklearn_format.load(sklearn_format.dump(StandardScaler().fit(rows)), 6)


@pytest.mark.parametrize("name", ["logistic", "onnx", "torch"])
def test_a_wrong_number_of_features_is_refused(name, estimators, onnx_bytes, module):
    loaders = {
        "logistic": lambda: sklearn_format.load(sklearn_format.dump(estimators["logistic"]), 5),
        "onnx": lambda: onnx_format.load(onnx_bytes, 5),
        "torch": lambda: torch_format.load(torch_format.dump(module, 6), 5),
    }
    with pytest.raises(ModelUnsupported, match="5") as refused:
        loaders[name]()
    assert refused.value.what == "features"


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 no zip", b"\x80\x04\x95pickle"])
def test_foreign_bytes_are_refused_by_every_loader(data):
    with pytest.raises(ModelUnsupported):
        sklearn_format.unknown_types(data)
    with pytest.raises(ModelUnsupported):
        sklearn_format.load(data, 6)
    with pytest.raises(ModelUnsupported):
        onnx_format.load(data, 6)
    with pytest.raises(ModelUnsupported):
        torch_format.load(data, 6)


def test_weights_in_a_file_beside_an_onnx_model_are_not_followed(tmp_path, monkeypatch):
    onnx = pytest.importorskip("onnx")
    numpy_helper, helper = onnx.numpy_helper, onnx.helper
    weights = numpy_helper.from_array(np.ones((6, 2), np.float32), "weights")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["rows", "weights"], ["out"])],
        "g",
        [helper.make_tensor_value_info("rows", onnx.TensorProto.FLOAT, [None, 6])],
        [helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, [None, 2])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    assert onnx_format.load(model.SerializeToString(), 6).outputs == ("value_0", "value_1")
    (tmp_path / "secret").write_bytes(np.ones((6, 2), np.float32).tobytes())
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "secret"
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelUnsupported, match="no ONNX model"):
        onnx_format.load(model.SerializeToString(), 6)


def test_class_probabilities_as_maps_are_refused_with_the_way_out(estimators):
    skl2onnx = pytest.importorskip("skl2onnx")
    from skl2onnx.common.data_types import FloatTensorType

    data = skl2onnx.convert_sklearn(
        estimators["logistic"], initial_types=[("rows", FloatTensorType([None, 6]))]
    ).SerializeToString()
    with pytest.raises(ModelUnsupported) as refused:
        onnx_format.load(data, 6)
    assert "zipmap" in refused.value.remedy


class Planted(BaseEstimator):
    """A type of this test, which no loader may build on its own."""

    built = 0

    def __init__(self):
        type(self).built += 1

    def __setstate__(self, state):
        type(self).built += 1

    def fit(self, rows, answers):
        self.fitted_ = True
        return self

    def predict(self, rows):
        return rows[:, 0]


def test_a_foreign_type_is_not_built_before_it_is_trusted(store, key, trusted, table):
    rows, answers = table
    digest = store.write(sklearn_format.dump(Planted().fit(rows, answers)))
    types = sklearn_format.unknown_types(store.read(digest))
    assert any(name.endswith("Planted") for name in types)
    Planted.built = 0
    with pytest.raises(ModelUnsupported, match="Planted"):
        sklearn_format.load(store.read(digest), 6)
    assert Planted.built == 0
