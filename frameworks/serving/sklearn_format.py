"""scikit-learn estimators as artefacts, by skops: a zip of a JSON tree and plain arrays.

skops writes no pickle and builds only types that it knows to be harmless. Types beyond those (the
trees of a forest among them) are built only from an artefact that a trusted key has signed.

skops names objects after their memory addresses and stamps the time, so the same model would get
another digest in each process; here the names are renumbered and the stamps fixed.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from frameworks.serving.errors import FormatUnavailable, ModelUnsupported
from frameworks.serving.model import value_names

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["FORMAT", "SklearnPredictor", "dump", "load", "unknown_types"]

FORMAT = "sklearn"

_SCHEMA = "schema.json"
_EPOCH = (1980, 1, 1, 0, 0, 0)
_METHODS = ("predict_proba", "decision_function", "predict")


def dump(estimator: Any) -> bytes:
    """The artefact of a fitted estimator: the same bytes for the same parameters.

    Raises ``ModelUnsupported`` when the estimator is not fitted or holds what skops cannot write,
    such as a lambda.
    """
    skops_io = _skops()
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    try:
        check_is_fitted(estimator)
        data: bytes = skops_io.dumps(estimator)
        # skops writes a lambda by its name, which nobody can find again.
        skops_io.loads(data, trusted=skops_io.get_untrusted_types(data=data))
    except NotFittedError as error:
        raise ModelUnsupported(
            str(error),
            what=type(estimator).__name__,
            expected="a fitted estimator",
            remedy="call fit first",
        ) from None
    except Exception as error:
        raise ModelUnsupported(
            f"{type(estimator).__name__} cannot be stored: {error}",
            what=type(estimator).__name__,
            expected="an estimator that skops can write",
            remedy="replace lambdas and local classes by importable ones, or convert it to ONNX",
        ) from error
    return _canonical(data)


def unknown_types(data: bytes) -> tuple[str, ...]:
    """The types in an artefact that only a trusted signature allows to build, by name."""
    skops_io = _skops()
    try:
        return tuple(skops_io.get_untrusted_types(data=data))
    except Exception as error:
        raise _foreign(error) from error


def load(
    data: bytes,
    features: int,
    *,
    trusted_types: Sequence[str] = (),
    single_thread: bool = True,
) -> SklearnPredictor:
    """The predictor of an artefact for rows of ``features`` columns.

    ``trusted_types`` are the unknown types that may be built. With ``single_thread`` every
    ``n_jobs`` in the estimator is set to 1: joblib's threads add up a forest's trees in the order
    in which they finish, so that the same call gives other bits each time.

    Raises ``ModelUnsupported`` when the bytes are no such artefact.
    """
    skops_io = _skops()
    try:
        estimator = skops_io.loads(data, trusted=list(trusted_types))
    except Exception as error:
        raise _foreign(error) from error
    if not any(hasattr(estimator, method) for method in _METHODS):
        raise ModelUnsupported(
            f"the artefact holds a {type(estimator).__name__}, which predicts nothing",
            what=type(estimator).__name__,
            expected="a classifier or regressor",
            remedy="register the estimator that predicts, not a part of it",
        )
    if single_thread:
        for part in _estimators(estimator):
            if "n_jobs" in vars(part):
                part.n_jobs = 1
    width = getattr(estimator, "n_features_in_", features)
    if width != features:
        raise ModelUnsupported(
            f"{type(estimator).__name__} takes {width} columns, not {features}",
            what="features",
            expected=f"{width} feature names",
            remedy="name the columns that the model was trained with",
        )
    return SklearnPredictor(estimator, features)


class SklearnPredictor:
    """Answers with class probabilities, decision values or predictions: the first there is."""

    def __init__(self, estimator: Any, features: int) -> None:
        self.estimator = estimator
        self.method = next(name for name in _METHODS if hasattr(estimator, name))
        self._call: Callable[[Any], Any] = getattr(estimator, self.method)
        self._columns = self._prepare_columns()
        self._outputs = self._name_outputs(features)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The classes, or ``value`` (``value_0``, ``value_1``…) of a regression."""
        return self._outputs

    def predict(self, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Answer float64 rows (n, d) with an array (n, k)."""
        answer = np.asarray(self._call(rows if self._columns is None else self._frame(rows)))
        return answer.reshape(len(rows), -1)

    def _prepare_columns(self) -> tuple[str, ...] | None:
        """The column names that the estimator needs to see, or None when a matrix will do."""
        parts = list(_estimators(self.estimator))
        names = getattr(self.estimator, "feature_names_in_", None)
        if names is None:
            return None
        if any(type(part).__name__ == "ColumnTransformer" for part in parts):
            return tuple(map(str, names))
        # Serving checks the columns before it calls; an estimator that remembers their names would
        # warn at every matrix.
        for part in parts:
            vars(part).pop("feature_names_in_", None)
        return None

    def _frame(self, rows: np.ndarray[Any, Any]) -> Any:
        try:
            import pandas as pd
        except ImportError:
            raise FormatUnavailable(
                "the model selects its columns by name, which needs pandas",
                what="pandas",
                expected="pandas installed",
                remedy="pip install 'srds[demo]'",
            ) from None
        return pd.DataFrame(rows, columns=list(self._columns or ()), copy=False)

    def _name_outputs(self, features: int) -> tuple[str, ...]:
        if self.method == "predict_proba":
            classes = self.estimator.classes_
            if isinstance(classes, list):
                raise ModelUnsupported(
                    f"{type(self.estimator).__name__} predicts {len(classes)} outputs at once",
                    what=type(self.estimator).__name__,
                    expected="one output a model",
                    remedy="register one model for each output",
                )
            return tuple(map(str, classes))
        return value_names(self.predict(np.zeros((1, features))).shape[1])


def _estimators(root: Any) -> Iterator[Any]:
    """An estimator and all that it is made of, fitted parts included."""
    from sklearn.base import BaseEstimator

    seen: set[int] = set()
    waiting = [root]
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, (list, tuple)):
            waiting.extend(value)
        elif isinstance(value, np.ndarray):
            # The trees of a GradientBoostingClassifier stand in an array of objects.
            waiting.extend(value.ravel().tolist() if value.dtype.hasobject else ())
        elif isinstance(value, BaseEstimator) or type(value).__module__.startswith("sklearn."):
            if isinstance(value, BaseEstimator):
                yield value
            waiting.extend(getattr(value, "__dict__", {}).values())


def _canonical(data: bytes) -> bytes:
    """The same archive with objects numbered in their order and no time of day."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    numbers: dict[str, int] = {}

    def number(identity: object) -> int:
        return numbers.setdefault(str(identity), len(numbers) + 1)

    def rename(member: str) -> str:
        stem, dot, suffix = member.partition(".")
        return f"{number(stem)}{dot}{suffix}"

    def walk(node: Any) -> Any:
        if isinstance(node, list):
            return [walk(item) for item in node]
        if not isinstance(node, dict):
            return node
        renamed: dict[str, Any] = {}
        for key, value in node.items():
            if key == "__id__" and isinstance(value, int):
                renamed[key] = number(value)
            elif key == "file" and isinstance(value, str) and value in members:
                renamed[key] = rename(value)
            else:
                renamed[key] = walk(value)
        return renamed

    schema = json.dumps(walk(json.loads(members.pop(_SCHEMA))), separators=(",", ":"))
    parts = {rename(name): content for name, content in members.items()}
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(parts, key=lambda name: int(name.partition(".")[0])):
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), parts[name], zipfile.ZIP_DEFLATED)
        archive.writestr(zipfile.ZipInfo(_SCHEMA, _EPOCH), schema, zipfile.ZIP_DEFLATED)
    return written.getvalue()


def _skops() -> Any:
    try:
        import skops.io
    except ImportError:
        raise FormatUnavailable(
            "reading and writing scikit-learn models needs skops",
            what="skops",
            expected="skops installed",
            remedy="pip install srds",
        ) from None
    return skops.io


def _foreign(error: Exception) -> ModelUnsupported:
    return ModelUnsupported(
        f"the bytes are no scikit-learn artefact that can be read here: {error}",
        what="artefact",
        expected="a skops archive of types that are installed",
        remedy="check the model's format and install the libraries it was trained with",
    )
