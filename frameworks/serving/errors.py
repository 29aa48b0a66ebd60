"""Serving's errors. Each says what was wrong, what was expected and what to do about it."""

from __future__ import annotations

__all__ = [
    "ArtefactCorrupt",
    "ArtefactMissing",
    "ArtefactRefused",
    "CalibrationError",
    "FormatUnavailable",
    "ModelFailed",
    "ModelNotExact",
    "ModelUnsupported",
    "RowInvalid",
    "ServingError",
]


class ServingError(Exception):
    """Root of the tree: ``what`` was wrong, what was ``expected``, and the ``remedy``."""

    def __init__(
        self, message: str, *, what: str = "", expected: str = "", remedy: str = ""
    ) -> None:
        super().__init__(message)
        self.what = what
        self.expected = expected
        self.remedy = remedy


class ArtefactMissing(ServingError):
    """There is no artefact of this digest in the store."""


class ArtefactCorrupt(ServingError):
    """The bytes of an artefact or of its signature are not the ones that were stored."""


class ArtefactRefused(ServingError):
    """An artefact needs a signature by a trusted key before it may be loaded, and has none."""


class FormatUnavailable(ServingError):
    """The library that reads a model format is not installed."""


class ModelUnsupported(ServingError):
    """A model, or what an artefact holds, is none that serving can run."""


class ModelNotExact(ServingError):
    """A model whose answers cannot be reproduced was to be served where audits need that."""


class RowInvalid(ServingError):
    """An input row has the wrong columns, type or value; ``what`` names the column."""


class ModelFailed(ServingError):
    """The model raised, or answered with something that is no answer to its rows."""


class CalibrationError(ServingError):
    """Predictions cannot be calibrated or combined: too few, of one class, or no probabilities."""
