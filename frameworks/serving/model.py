"""What a model is to serving: a frozen description, and a predictor that computes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

from frameworks.serving.errors import ModelUnsupported

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Model", "Predictor", "value_names"]

_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Model:
    """The description of a registered model: all that is needed to find, load and replay it.

    - ``name``: the author's name for it, not empty.
    - ``digest``: SHA-256 of the artefact's bytes, 64 hex digits.
    - ``format``: ``sklearn``, ``onnx`` or ``torch``.
    - ``features``: the names of the input columns, in the order of a row.
    - ``outputs``: the names of the output columns, in the order of an answer.
    - ``exactness``: the measured class, a value of ``timemachine.exactness.ExactnessClass``.
    - ``single_thread``: whether the model's own ``n_jobs`` is held at 1.
    - ``missing``: whether a NaN in a row means a missing value that the model handles itself.

    Raises ``ModelUnsupported`` when a field breaks these rules.
    """

    name: str
    digest: str
    format: str
    features: tuple[str, ...]
    outputs: tuple[str, ...]
    exactness: str
    missing: bool = False
    single_thread: bool = True

    def __post_init__(self) -> None:
        for field in ("features", "outputs"):
            names = getattr(self, field)
            object.__setattr__(self, field, tuple(names))
            if not names or len(set(names)) != len(names):
                raise ModelUnsupported(
                    f"model {self.name!r} has the {field} {list(names)!r}",
                    what=field,
                    expected="one or more different names",
                    remedy=f"name each of the model's {field} once",
                )
        if not self.name:
            raise ModelUnsupported("a model has no name", what="name", expected="a name")
        if not _DIGEST.fullmatch(self.digest):
            raise ModelUnsupported(
                f"model {self.name!r} has the digest {self.digest!r}",
                what="digest",
                expected="64 lower-case hex digits",
                remedy="take the digest that storing the artefact returned",
            )

    def as_dict(self) -> dict[str, Any]:
        """The description as plain values, as ``from_dict`` reads them."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Model:
        """Read a description; raises ``ModelUnsupported`` when fields are missing or unknown."""
        try:
            return cls(**fields)
        except TypeError as error:
            raise ModelUnsupported(
                f"not the description of a model: {error}",
                what="model description",
                expected="the fields of Model",
                remedy="register the model again with this version",
            ) from None


class Predictor(Protocol):
    """A loaded model: rows in, answers out. May be called from several threads."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the output columns."""
        ...

    def predict(self, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Answer float64 rows (n, d) with an array (n, k); n is at least 1."""
        ...


def value_names(width: int) -> tuple[str, ...]:
    """Names for the ``width`` columns of an answer that has none: ``value``, or ``value_0``…"""
    return ("value",) if width == 1 else tuple(f"value_{index}" for index in range(width))
