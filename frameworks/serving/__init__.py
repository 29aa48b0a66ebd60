"""Prediction serving: models as replicas, calls as batches, answers that replay bit for bit.

Names are loaded when they are first used, so that importing the package costs no NumPy.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from frameworks.serving.artefact import ArtefactStore
    from frameworks.serving.batch import SERVING_BATCH, Batch
    from frameworks.serving.batcher import Batcher
    from frameworks.serving.errors import (
        ArtefactCorrupt,
        ArtefactMissing,
        ArtefactRefused,
        FormatUnavailable,
        ModelFailed,
        ModelNotExact,
        ModelUnsupported,
        RowInvalid,
        ServingError,
    )
    from frameworks.serving.model import Model, Predictor
    from frameworks.serving.recording import (
        BatchSource,
        PredictionDifference,
        Predictions,
        batches_in,
    )
    from frameworks.serving.registry import Registration, load_predictor, load_replica, register
    from frameworks.serving.replica import Replica, ReplicaSettings

__all__ = [
    "SERVING_BATCH",
    "ArtefactCorrupt",
    "ArtefactMissing",
    "ArtefactRefused",
    "ArtefactStore",
    "Batch",
    "BatchSource",
    "Batcher",
    "FormatUnavailable",
    "Model",
    "ModelFailed",
    "ModelNotExact",
    "ModelUnsupported",
    "PredictionDifference",
    "Predictions",
    "Predictor",
    "Registration",
    "Replica",
    "ReplicaSettings",
    "RowInvalid",
    "ServingError",
    "batches_in",
    "load_predictor",
    "load_replica",
    "register",
]

_MODULES = {
    "artefact": ("ArtefactStore",),
    "batch": ("SERVING_BATCH", "Batch"),
    "batcher": ("Batcher",),
    "errors": (
        "ArtefactCorrupt",
        "ArtefactMissing",
        "ArtefactRefused",
        "FormatUnavailable",
        "ModelFailed",
        "ModelNotExact",
        "ModelUnsupported",
        "RowInvalid",
        "ServingError",
    ),
    "model": ("Model", "Predictor"),
    "recording": ("BatchSource", "PredictionDifference", "Predictions", "batches_in"),
    "registry": ("Registration", "load_predictor", "load_replica", "register"),
    "replica": ("Replica", "ReplicaSettings"),
}


def __getattr__(name: str) -> object:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
