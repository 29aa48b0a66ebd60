"""The microkernel: tasks, decisions, the boundary they read through, and whoever watches."""

from microkernel import boundary, events, random
from microkernel.actors import ActorOptions, ActorRef
from microkernel.engine import Submitter
from microkernel.errors import (
    ActorBusy,
    ActorDied,
    DeadlineMissed,
    FlowEnded,
    GraphError,
    KernelClosed,
    KernelError,
    NotRebuilt,
    NotSendable,
    ObjectLost,
    ObjectStoreFull,
    RemoteError,
    ReplayDivergence,
    TaskCancelled,
    ValueNotRecordable,
    WorkerCrashed,
)
from microkernel.event_sink import EventSink, MemorySink
from microkernel.framework import Framework, find_frameworks
from microkernel.function import code_digest
from microkernel.instrument import Instrument
from microkernel.kernel import Decision, Kernel, current_kernel
from microkernel.pending import Pending
from microkernel.replaying import RecordedError, RecordedInput, Replaying, read_inputs
from microkernel.settings import KernelSettings, TaskOptions
from microkernel.streams import Stream
from microkernel.task import Ref, current_task

__all__ = [
    "ActorBusy",
    "ActorDied",
    "ActorOptions",
    "ActorRef",
    "DeadlineMissed",
    "Decision",
    "EventSink",
    "FlowEnded",
    "Framework",
    "GraphError",
    "Instrument",
    "Kernel",
    "KernelClosed",
    "KernelError",
    "KernelSettings",
    "MemorySink",
    "NotRebuilt",
    "NotSendable",
    "ObjectLost",
    "ObjectStoreFull",
    "Pending",
    "RecordedError",
    "RecordedInput",
    "Ref",
    "RemoteError",
    "ReplayDivergence",
    "Replaying",
    "Stream",
    "Submitter",
    "TaskCancelled",
    "TaskOptions",
    "ValueNotRecordable",
    "WorkerCrashed",
    "boundary",
    "code_digest",
    "current_kernel",
    "current_task",
    "events",
    "find_frameworks",
    "random",
    "read_inputs",
]
