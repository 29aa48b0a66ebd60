"""A store of artefacts, a key, and small fitted models on one table of data."""

import warnings

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from enclave.keys import KeyRing, SigningKey
from frameworks.serving import ArtefactStore
from timemachine.exactness import ExactnessSettings

FEATURES = tuple(f"x{index}" for index in range(6))


@pytest.fixture(scope="session")
def table():
    generator = np.random.default_rng(7)
    rows = generator.normal(size=(400, len(FEATURES)))
    return rows, (rows[:, 0] + rows[:, 1] ** 2 + generator.normal(size=400) > 0.5).astype(int)


@pytest.fixture(scope="session")
def estimators(table):
    rows, answers = table
    found = {
        "logistic": make_pipeline(StandardScaler(), LogisticRegression()),
        "boosting": HistGradientBoostingClassifier(max_iter=10, random_state=0),
        "mlp": MLPClassifier((16, 8), max_iter=30, random_state=0),
        "forest": RandomForestClassifier(80, max_depth=6, n_jobs=2, random_state=0),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for estimator in found.values():
            estimator.fit(rows, answers)
    return found


@pytest.fixture(scope="session")
def onnx_bytes(estimators):
    skl2onnx = pytest.importorskip("skl2onnx")
    from skl2onnx.common.data_types import FloatTensorType

    converted = skl2onnx.convert_sklearn(
        estimators["logistic"],
        initial_types=[("rows", FloatTensorType([None, len(FEATURES)]))],
        options={"zipmap": False},
    )
    return converted.SerializeToString()


@pytest.fixture
def module():
    torch = pytest.importorskip("torch")
    torch.manual_seed(3)
    return torch.nn.Sequential(
        torch.nn.Linear(len(FEATURES), 16), torch.nn.ReLU(), torch.nn.Linear(16, 2)
    )


@pytest.fixture(scope="session")
def key():
    return SigningKey.generate("example.org/models")


@pytest.fixture
def trusted(key):
    return KeyRing([key.public])


@pytest.fixture
def store(tmp_path):
    return ArtefactStore(tmp_path / "objects")


@pytest.fixture
def quick():
    return ExactnessSettings(rounds=2, budget_s=0.2)
