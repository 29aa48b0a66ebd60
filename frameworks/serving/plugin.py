"""Serving as a plug-in of the stack."""

from __future__ import annotations

from microkernel.framework import Framework

__all__ = ["framework"]

framework = Framework(
    name="serving",
    requires=("numpy", "onnxruntime", "sklearn", "skops", "threadpoolctl"),
    event_kinds=("serving.batch",),
)
