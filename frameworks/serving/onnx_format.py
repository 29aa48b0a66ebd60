"""ONNX models by ONNX Runtime, on one thread of the CPU.

An ONNX file is data: a graph of known operators and their weights. It needs no signature to be
loaded. What would reach outside it is refused: weights in other files, operators of libraries.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from frameworks.serving.errors import FormatUnavailable, ModelUnsupported
from frameworks.serving.model import value_names

__all__ = ["FORMAT", "OnnxPredictor", "load"]

FORMAT = "onnx"

_INPUT_TYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64}
# There is no such directory, so a reference to a file beside the model cannot be followed.
_NOWHERE = "/nonexistent"
_FOLDER_OF_WEIGHTS = "session.model_external_initializers_file_folder_path"


def load(data: bytes, features: int) -> OnnxPredictor:
    """The predictor of a serialised ONNX model with one input matrix of ``features`` columns.

    Raises ``ModelUnsupported`` when the bytes are none, and names what does not fit.
    """
    try:
        import onnxruntime
    except ImportError:
        raise FormatUnavailable(
            "running ONNX models needs onnxruntime",
            what="onnxruntime",
            expected="onnxruntime installed",
            remedy="pip install srds",
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.use_deterministic_compute = True
    options.log_severity_level = 4
    options.add_session_config_entry(_FOLDER_OF_WEIGHTS, _NOWHERE)
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ModelUnsupported(
            f"the bytes are no ONNX model that can be run here: {error}",
            what="artefact",
            expected="one self-contained ONNX model of standard operators",
            remedy="export the model again, with its weights inside the file",
        ) from error
    return OnnxPredictor(session, features)


class OnnxPredictor:
    """Answers with the tensor named ``probabilities``, or else the last floating-point output."""

    def __init__(self, session: Any, features: int) -> None:
        self._session = session
        inputs = session.get_inputs()
        if len(inputs) != 1 or inputs[0].type not in _INPUT_TYPES or len(inputs[0].shape) != 2:
            found = ", ".join(f"{node.name}: {node.type}{node.shape}" for node in inputs)
            raise ModelUnsupported(
                f"the ONNX model takes ({found})",
                what="input",
                expected="one matrix of floats or doubles",
                remedy="export it with one input of shape (rows, features)",
            )
        self._input = inputs[0].name
        self._type = _INPUT_TYPES[inputs[0].type]
        self._output = self._choose(session.get_outputs())
        width = inputs[0].shape[1]
        if isinstance(width, int) and width != features:
            raise ModelUnsupported(
                f"the ONNX model takes {width} columns, not {features}",
                what="features",
                expected=f"{width} feature names",
                remedy="name the columns that the model was trained with",
            )
        try:
            self._outputs = value_names(self.predict(np.zeros((1, features))).shape[1])
        except Exception as error:
            raise ModelUnsupported(
                f"the ONNX model does not answer a row of {features} zeros: {error}",
                what="features",
                expected="a model that answers a row of finite numbers",
                remedy="check the number of features and the operators of the model",
            ) from error

    @property
    def outputs(self) -> tuple[str, ...]:
        """``value``, or ``value_0``, ``value_1``… when there are several columns."""
        return self._outputs

    def predict(self, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Answer float64 rows (n, d), rounded to the model's input type, with an array (n, k)."""
        (answer,) = self._session.run(
            [self._output], {self._input: rows.astype(self._type, copy=False)}
        )
        return np.asarray(answer).reshape(len(rows), -1)

    @staticmethod
    def _choose(outputs: Any) -> str:
        floating = [node.name for node in outputs if node.type in _INPUT_TYPES]
        if "probabilities" in floating:
            return "probabilities"
        if not floating:
            found = ", ".join(f"{node.name}: {node.type}" for node in outputs)
            raise ModelUnsupported(
                f"the ONNX model answers ({found})",
                what="output",
                expected="a tensor of floats or doubles",
                remedy="convert scikit-learn models with options={'zipmap': False}",
            )
        return str(floating[-1])
