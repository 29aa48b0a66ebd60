"""A replica: one loaded model that answers rows under conditions that a replay can have again.

Each call gets a fresh buffer on a 64-byte boundary and runs on one thread of BLAS and OpenMP.
Entering threadpoolctl's context at each call would cost 30 us, so a thread is pinned at its first
call and stays so: OpenBLAS then has one thread in the whole process, OpenMP in that thread. Train
before serving, or in another process, when that matters.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import threadpoolctl

from frameworks.serving.errors import ModelFailed, ModelNotExact, RowInvalid
from frameworks.serving.model import Model, Predictor
from timemachine.exactness import ExactnessClass, aligned

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Replica", "ReplicaSettings"]


@dataclass(frozen=True)
class ReplicaSettings:
    """How a replica runs.

    - ``audited``: refuse a model of class *unstable*.
    - ``warm_up``: batch sizes of the calls made before the first real one, each at least 1.
    """

    audited: bool = True
    warm_up: tuple[int, ...] = (1, 8, 64)

    def __post_init__(self) -> None:
        if any(size < 1 for size in self.warm_up):
            raise ValueError(f"warm_up must be batch sizes of at least 1, not {self.warm_up!r}")


class Replica:
    """One model in this process, warm and on one thread. May be called from several threads.

    Raises ``ModelNotExact`` for an unstable model when ``settings.audited``, and ``ModelFailed``
    when it fails on the rows of zeros that warm it up or its outputs are not as described.
    """

    threads = 1

    def __init__(
        self, model: Model, predictor: Predictor, settings: ReplicaSettings | None = None
    ) -> None:
        self.model = model
        self.predictor = predictor
        self.settings = settings or ReplicaSettings()
        self._libraries = threadpoolctl.ThreadpoolController()
        self._pinned = threading.local()
        self._positions = {name: index for index, name in enumerate(model.features)}
        if self.settings.audited and model.exactness == ExactnessClass.UNSTABLE:
            raise ModelNotExact(
                f"model {model.name!r} is unstable: the same call gives other bits each time",
                what=model.name,
                expected="a model of class invariant, shape-stable or batch-bound",
                remedy="register it to run on one thread, take away its randomness, "
                "or serve it with audited=False",
            )
        for size in self.settings.warm_up:
            self.predict(np.zeros((size, len(model.features))))

    def row(self, values: Mapping[str, Any] | Sequence[Any] | NDArray[Any]) -> NDArray[Any]:
        """Check one input and return it as float64 (d,).

        ``values`` are numbers by feature name, or in the order of the features. Raises
        ``RowInvalid`` and names the column that is missing, unknown, no number or not finite.
        """
        if isinstance(values, Mapping):
            values = self._in_order(values)
        width = len(self.model.features)
        if isinstance(values, np.ndarray):
            if values.ndim != 1:
                raise self._misshapen(values.shape, f"({width},)")
            matrix = self._matrix(values.reshape(1, -1))
            return matrix.reshape(-1)
        if isinstance(values, (str, bytes)) or not isinstance(values, Sequence):
            raise RowInvalid(
                f"a {type(values).__name__} is no input row",
                what="row",
                expected=f"a mapping or {width} numbers",
                remedy="pass the values by feature name",
            )
        if len(values) != width:
            raise self._misshapen((len(values),), f"({width},)")
        numbers = []
        for index, value in enumerate(values):
            try:
                if isinstance(value, (str, bytes)):
                    raise TypeError
                numbers.append(float(value))
            except (TypeError, ValueError, OverflowError):
                raise self._not_a_number(index, value) from None
        checked = np.array(numbers)
        self._require_finite(checked.reshape(1, -1))
        return checked

    def rows(self, values: NDArray[Any]) -> NDArray[Any]:
        """Check inputs (n, d) of any numeric type and return them as float64.

        Raises ``RowInvalid`` for another shape or type, or a value that is not finite.
        """
        return self._matrix(np.asarray(values))

    def predict(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Answer checked rows (n, d) with an array (n, k) that is the caller's own.

        Raises ``ModelFailed`` when the model raises, or answers with another shape or no numbers.
        """
        if not getattr(self._pinned, "done", False):
            self._pin()
        try:
            answer = self.predictor.predict(aligned(rows))
        except Exception as error:
            raise ModelFailed(
                f"model {self.model.name!r} failed on {len(rows)} row(s): "
                f"{type(error).__name__}: {error}",
                what=self.model.name,
                expected="an answer to each row",
                remedy="look at the cause; artefact " + self.model.digest[:12],
            ) from error
        expected = (len(rows), len(self.model.outputs))
        if (
            not isinstance(answer, np.ndarray)
            or answer.shape != expected
            or answer.dtype.kind not in "fiub"
        ):
            found = f"{getattr(answer, 'dtype', type(answer).__name__)}{np.shape(answer)}"
            raise ModelFailed(
                f"model {self.model.name!r} answered {len(rows)} row(s) with {found}",
                what=self.model.name,
                expected=f"numbers of shape {expected}",
                remedy="register the model again: its description does not fit",
            )
        # A model may hand out a buffer that it keeps, or its own input.
        return answer if answer.flags.owndata else answer.copy()

    def _pin(self) -> None:
        self._libraries.limit(limits=1)
        self._pinned.done = True

    def _in_order(self, values: Mapping[str, Any]) -> list[Any]:
        unknown = [name for name in values if name not in self._positions]
        missing = [name for name in self._positions if name not in values]
        if unknown or missing:
            name = str((missing or unknown)[0])
            raise RowInvalid(
                f"the row {'lacks' if missing else 'has'} the column {name!r}"
                + ("" if missing else f", which model {self.model.name!r} does not know"),
                what=name,
                expected="the columns " + ", ".join(self.model.features),
                remedy="pass each of the model's columns once and no others",
            )
        return [values[name] for name in self.model.features]

    def _matrix(self, values: NDArray[Any]) -> NDArray[Any]:
        width = len(self.model.features)
        if values.ndim != 2 or values.shape[1] != width or not len(values):
            raise self._misshapen(values.shape, f"(n, {width})")
        if values.dtype.kind not in "fiub":
            raise RowInvalid(
                f"the rows are of type {values.dtype}",
                what="rows",
                expected="numbers",
                remedy="convert texts and categories to numbers first",
            )
        rows = values.astype(np.float64)
        self._require_finite(rows)
        return rows

    def _require_finite(self, rows: NDArray[Any]) -> None:
        refused = np.isinf(rows) if self.model.missing else ~np.isfinite(rows)
        if not refused.any():
            return
        index, column = (int(where[0]) for where in np.nonzero(refused))
        name = self.model.features[column]
        raise RowInvalid(
            f"column {name!r} of row {index} is {rows[index, column]}",
            what=name,
            expected="a finite number" + (" or NaN" if self.model.missing else ""),
            remedy="leave the row out, or fill the value in",
        )

    def _not_a_number(self, index: int, value: object) -> RowInvalid:
        name = self.model.features[index]
        return RowInvalid(
            f"column {name!r} is a {type(value).__name__}",
            what=name,
            expected="a number",
            remedy="convert it to a number first",
        )

    def _misshapen(self, found: tuple[int, ...], expected: str) -> RowInvalid:
        return RowInvalid(
            f"model {self.model.name!r} got the shape {found}",
            what="row",
            expected=f"{expected}: " + ", ".join(self.model.features),
            remedy="pass the columns in this order, or by name",
        )
