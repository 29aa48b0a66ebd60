"""torch modules as TorchScript archives, on one thread of the CPU.

Of torch's two formats this is the one whose reader runs no foreign Python: ``torch.export.load``
unpickles tensors without restriction and evaluates symbolic expressions as Python, the TorchScript
reader builds only its own types. A TorchScript program may still open and write files, so its
artefacts are loaded only under a trusted signature. Deprecated by torch in favour of
``torch.export`` and gone with Python 3.14: there, convert to ONNX.
"""

from __future__ import annotations

import io
import threading
import warnings
from typing import Any

import numpy as np

from frameworks.serving.errors import FormatUnavailable, ModelUnsupported
from frameworks.serving.model import value_names

__all__ = ["FORMAT", "TorchPredictor", "dump", "load"]

FORMAT = "torch"


def dump(module: Any, features: int) -> bytes:
    """The artefact of a module that maps rows (n, ``features``) to (n,) or (n, k).

    The module is traced in evaluation mode with two rows in the type of its parameters. Raises
    ``ModelUnsupported`` when it cannot be traced.
    """
    torch = _torch()
    example = torch.zeros(2, features, dtype=_type_of(module))
    training = module.training
    try:
        module.eval()
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            traced = torch.jit.trace(module, example)
            written = io.BytesIO()
            torch.jit.save(traced, written)
    except Exception as error:
        raise ModelUnsupported(
            f"{type(module).__name__} cannot be stored: {error}",
            what=type(module).__name__,
            expected="a module that takes one matrix and has no control flow on its values",
            remedy="check the number of features, or convert it to ONNX",
        ) from error
    finally:
        module.train(training)
    return written.getvalue()


def load(data: bytes, features: int) -> TorchPredictor:
    """The predictor of an artefact for rows of ``features`` columns.

    Raises ``ModelUnsupported`` when the bytes are none.
    """
    torch = _torch()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            module = torch.jit.load(io.BytesIO(data), map_location="cpu")
    except Exception as error:
        raise ModelUnsupported(
            f"the bytes are no TorchScript archive that can be read here: {error}",
            what="artefact",
            expected="a TorchScript archive",
            remedy="store the module again with this version of torch",
        ) from error
    module.eval()
    return TorchPredictor(torch, module, features)


class TorchPredictor:
    """Answers in the module's own floating-point type."""

    def __init__(self, torch: Any, module: Any, features: int) -> None:
        self._torch = torch
        self._module = module
        self._type = _type_of(module)
        self._pinned = threading.local()
        try:
            self._outputs = value_names(self.predict(np.zeros((1, features))).shape[1])
        except Exception as error:
            raise ModelUnsupported(
                f"the torch model does not answer a row of {features} zeros: {error}",
                what="features",
                expected="a model that answers a row of finite numbers",
                remedy="check the number of features",
            ) from error

    @property
    def outputs(self) -> tuple[str, ...]:
        """``value``, or ``value_0``, ``value_1``… when there are several columns."""
        return self._outputs

    def predict(self, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Answer float64 rows (n, d), rounded to the module's type, with an array (n, k)."""
        if not getattr(self._pinned, "done", False):
            # torch counts its threads per calling thread, and MKL inside it is out of
            # threadpoolctl's sight.
            self._torch.set_num_threads(1)
            self._pinned.done = True
        with self._torch.inference_mode():
            answer = self._module(self._torch.from_numpy(rows).to(self._type)).numpy()
        return np.asarray(answer.reshape(len(rows), -1))


def _type_of(module: Any) -> Any:
    torch = _torch()
    for parameter in module.parameters():
        if parameter.is_floating_point():
            return parameter.dtype
    return torch.float32


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        raise FormatUnavailable(
            "torch models need torch",
            what="torch",
            expected="torch installed",
            remedy="pip install 'srds[torch]'",
        ) from None
    return torch
