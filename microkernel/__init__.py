"""The microkernel: tasks, decisions, the boundary they read through, and whoever watches."""

from microkernel import boundary, events, random
from microkernel.engine import Submitter
from microkernel.errors import (
    DeadlineMissed,
    KernelClosed,
    KernelError,
    ReplayDivergence,
    TaskCancelled,
    ValueNotRecordable,
)
from microkernel.event_sink import EventSink, MemorySink
from microkernel.framework import Framework, find_frameworks
from microkernel.function import code_digest
from microkernel.instrument import Instrument
from microkernel.kernel import Decision, Kernel
from microkernel.pending import Pending
from microkernel.replaying import RecordedError, RecordedInput, Replaying, read_inputs
from microkernel.settings import KernelSettings, TaskOptions
from microkernel.task import Ref, current_task

__all__ = [
    "DeadlineMissed",
    "Decision",
    "EventSink",
    "Framework",
    "Instrument",
    "Kernel",
    "KernelClosed",
    "KernelError",
    "KernelSettings",
    "MemorySink",
    "Pending",
    "RecordedError",
    "RecordedInput",
    "Ref",
    "ReplayDivergence",
    "Replaying",
    "Submitter",
    "TaskCancelled",
    "TaskOptions",
    "ValueNotRecordable",
    "boundary",
    "code_digest",
    "current_task",
    "events",
    "find_frameworks",
    "random",
    "read_inputs",
]
