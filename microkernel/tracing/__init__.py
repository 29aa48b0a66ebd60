"""Seeing what a kernel does: its trace and timeline, its counters, its progress."""

from microkernel.tracing.counters import (
    KernelCounters,
    PlaceCounters,
    WorkerCounters,
    prometheus_text,
)
from microkernel.tracing.entries import TraceEntry
from microkernel.tracing.running import RunningKernel, running_kernels

__all__ = [
    "KernelCounters",
    "PlaceCounters",
    "RunningKernel",
    "TraceEntry",
    "WorkerCounters",
    "prometheus_text",
    "running_kernels",
]
