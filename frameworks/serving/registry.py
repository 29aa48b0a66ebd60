"""Registration: from a fitted model to an artefact, a measured exactness class and a replica.

What is measured and served is always the model as loaded back from its artefact, so that the class
and the answers are those of the bytes that a replay will load.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from frameworks.serving import onnx_format, sklearn_format, torch_format
from frameworks.serving.errors import ModelUnsupported
from frameworks.serving.model import Model, Predictor
from frameworks.serving.replica import Replica, ReplicaSettings
from timemachine.exactness import ExactnessReport, ExactnessSettings, classify

if TYPE_CHECKING:
    from enclave.keys import KeyRing, SigningKey
    from frameworks.serving.artefact import ArtefactStore

__all__ = ["Registration", "load_predictor", "load_replica", "register"]


@dataclass(frozen=True)
class Registration:
    """A registered model, and how its exactness class was found."""

    model: Model
    report: ExactnessReport


def register(
    store: ArtefactStore,
    name: str,
    source: Any,
    *,
    features: Sequence[str],
    sample: Any,
    key: SigningKey,
    missing: bool = False,
    single_thread: bool = True,
    settings: ExactnessSettings | None = None,
) -> Registration:
    """Store a model, sign it with ``key``, and measure its exactness class.

    ``source`` is a fitted scikit-learn estimator, a torch module, or the bytes of an ONNX model.
    ``features`` names the columns; ``sample`` (n, d) are real rows, best 1,024 of them, for the
    self-test, which takes about ``settings.budget_s``. ``missing`` says that the model handles NaN
    itself. ``single_thread=False`` keeps a scikit-learn model's own ``n_jobs``: the class is then
    measured with it, and is *unstable* for a forest.

    Raises ``ModelUnsupported`` when the model cannot be stored or does not fit ``features``.
    """
    model_format, data = _dump(source, len(features))
    # The caller's own model needs nobody's signature; it is stored once it is known to load.
    predictor = _build(data, model_format, len(features), single_thread, lambda reason: None)
    rows = np.asarray(sample, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] != len(features):
        raise ModelUnsupported(
            f"the sample has the shape {rows.shape}",
            what="sample",
            expected=f"(n, {len(features)})",
            remedy="pass rows with one column for each feature",
        )
    report = classify(predictor.predict, rows, settings=settings)
    digest = store.write(data)
    store.sign(digest, model_format, key)
    model = Model(
        name=name,
        digest=digest,
        format=model_format,
        features=tuple(features),
        outputs=predictor.outputs,
        exactness=report.exactness.value,
        missing=missing,
        single_thread=single_thread,
    )
    return Registration(model, report)


def load_predictor(store: ArtefactStore, model: Model, trusted: KeyRing | None = None) -> Predictor:
    """The predictor of a registered model.

    Raises ``ArtefactMissing``, ``ArtefactCorrupt``, ``ArtefactRefused`` when a signature by one of
    the ``trusted`` keys is needed and missing, and ``ModelUnsupported`` when the artefact is not
    what the description says.
    """
    predictor = _build(
        store.read(model.digest),
        model.format,
        len(model.features),
        model.single_thread,
        lambda reason: store.require_signer(model.digest, model.format, trusted, reason),
    )
    if predictor.outputs != model.outputs:
        raise ModelUnsupported(
            f"the artefact {model.digest} answers {list(predictor.outputs)!r}",
            what=model.name,
            expected=f"the outputs {list(model.outputs)!r}",
            remedy="register the model again",
        )
    return predictor


def load_replica(
    store: ArtefactStore,
    model: Model,
    trusted: KeyRing | None = None,
    settings: ReplicaSettings | None = None,
) -> Replica:
    """Load a registered model as a warm replica.

    Raises what ``load_predictor`` and ``Replica`` do.
    """
    return Replica(model, load_predictor(store, model, trusted), settings)


def _dump(source: Any, features: int) -> tuple[str, bytes]:
    if isinstance(source, (bytes, bytearray, memoryview)):
        return onnx_format.FORMAT, bytes(source)
    ancestors = {f"{cls.__module__}.{cls.__qualname__}" for cls in type(source).__mro__}
    if "torch.nn.modules.module.Module" in ancestors:
        return torch_format.FORMAT, torch_format.dump(source, features)
    if "sklearn.base.BaseEstimator" in ancestors:
        return sklearn_format.FORMAT, sklearn_format.dump(source)
    if hasattr(source, "SerializeToString"):
        return onnx_format.FORMAT, bytes(source.SerializeToString())
    raise ModelUnsupported(
        f"a {type(source).__name__} is no model that serving knows",
        what=type(source).__name__,
        expected="a scikit-learn estimator, a torch module or an ONNX model",
        remedy="convert the model to ONNX",
    )


def _build(
    data: bytes,
    model_format: str,
    features: int,
    single_thread: bool,
    require_signer: Callable[[str], object],
) -> Predictor:
    """The predictor of an artefact; ``require_signer`` is asked before anything could run code."""
    if model_format == sklearn_format.FORMAT:
        unknown = sklearn_format.unknown_types(data)
        if unknown:
            require_signer("it holds " + ", ".join(unknown))
        return sklearn_format.load(
            data, features, trusted_types=unknown, single_thread=single_thread
        )
    if model_format == onnx_format.FORMAT:
        return onnx_format.load(data, features)
    if model_format == torch_format.FORMAT:
        require_signer("a TorchScript program can write files")
        return torch_format.load(data, features)
    raise ModelUnsupported(
        f"there is no model format {model_format!r}",
        what=model_format,
        expected="sklearn, onnx or torch",
        remedy="use the version that registered the model",
    )
