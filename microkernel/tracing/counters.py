"""What a kernel has done and is doing, as numbers: for programs, for Prometheus, for ``srds top``.

The numbers are kept where the work is done, as plain additions to memory that other processes of
the same user may read; nothing is sampled and no thread gathers them. The text form is Prometheus'
exposition format 0.0.4.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from microkernel.tracing.trace import CONTROL_BYTES, read_control

__all__ = [
    "KernelCounters",
    "PlaceCounters",
    "WorkerCounters",
    "counters_from",
    "prometheus_text",
]


@dataclass(frozen=True, slots=True)
class PlaceCounters:
    """The tasks and decisions that were to run in one kind of place.

    ``submitted`` are all; ``finished``, ``failed``, ``cancelled`` and ``missed`` (their deadline)
    are those that ended, ``running`` those in the middle of it. ``retried`` counts attempts beyond
    the first.
    """

    submitted: int
    finished: int
    failed: int
    cancelled: int
    missed: int
    retried: int
    running: int

    @property
    def ended(self) -> int:
        """How many have ended, in whichever way."""
        return self.finished + self.failed + self.cancelled + self.missed

    @property
    def queued(self) -> int:
        """How many wait: for what they depend on, or for a place to run."""
        return max(0, self.submitted - self.ended - self.running)


@dataclass(frozen=True, slots=True)
class WorkerCounters:
    """A thread that has run tasks, or a worker process (``station`` is not 0)."""

    name: str
    process: int
    station: int
    tasks: int
    busy_seconds: float
    running: str | None
    running_seconds: float


@dataclass(frozen=True, slots=True)
class KernelCounters:
    """A moment of a kernel; see ``docs/watching.md``.

    ``places`` are by placement. ``waiting`` holds what the waiting of processes for each other
    counts (sleeps, spins, spin_hits, stolen, nested), ``objects`` the object arena (used,
    capacity, objects, spilled, spilled_bytes); both are empty without worker processes.
    ``trace_lost`` entries were refused by the disk, ``trace_overwritten`` had to make room.
    """

    process: int
    program: str
    placement: str
    run_id: bytes
    opened: float
    age_seconds: float
    places: Mapping[str, PlaceCounters]
    workers: tuple[WorkerCounters, ...]
    trace_lost: int
    trace_overwritten: int
    waiting: Mapping[str, int] = field(default_factory=dict)
    objects: Mapping[str, int] = field(default_factory=dict)
    crashes: int = 0

    @property
    def submitted(self) -> int:
        """Tasks of all placements."""
        return sum(one.submitted for one in self.places.values())

    @property
    def ended(self) -> int:
        """Tasks of all placements that have ended."""
        return sum(one.ended for one in self.places.values())

    @property
    def running(self) -> int:
        """Tasks of all placements that run."""
        return sum(one.running for one in self.places.values())

    @property
    def queued(self) -> int:
        """Tasks of all placements that wait."""
        return sum(one.queued for one in self.places.values())


def counters_from(statistics: Mapping[str, Any], remote: Any = None) -> KernelCounters:
    """The counters in what ``trace.read_statistics`` returned, and in the kernel's ``remote``."""
    waiting: dict[str, int] = {}
    if remote is not None:
        with contextlib.suppress(OSError):
            waiting = read_control(os.pread(remote.control_fd, CONTROL_BYTES, 0))
    return KernelCounters(
        process=statistics["process"],
        program=statistics["program"],
        placement=statistics["placement"],
        run_id=statistics["run_id"],
        opened=statistics["opened"],
        age_seconds=statistics["age"],
        places={
            place: PlaceCounters(
                submitted=max(one["submitted"], _ended(one)),
                finished=one["finished"],
                failed=one["failed"],
                cancelled=one["cancelled"],
                missed=one["missed"],
                retried=one["retried"],
                running=max(0, one["begun"] - one["left"]),
            )
            for place, one in statistics["places"].items()
        },
        workers=tuple(
            WorkerCounters(
                name=row["name"],
                process=row["process"],
                station=row["station"],
                tasks=row["tasks"],
                busy_seconds=row["busy"] + row["since"],
                running=row["running"],
                running_seconds=row["since"],
            )
            for row in statistics["workers"]
        ),
        trace_lost=statistics["trace_lost"],
        trace_overwritten=statistics["trace_overwritten"],
        waiting=waiting,
        objects=_objects(remote),
        crashes=getattr(remote, "crashes", 0),
    )


def _ended(one: Mapping[str, int]) -> int:
    return one["finished"] + one["failed"] + one["cancelled"] + one["missed"]


def _objects(remote: Any) -> dict[str, int]:
    store = getattr(remote, "objects", None)
    if store is None:
        return {}
    found = store.statistics()
    names = ("used", "capacity", "objects", "spilled", "spilled_bytes")
    return {name: int(getattr(found, name)) for name in names}


Sample = tuple[str, Mapping[str, str], float]


def prometheus_text(counters: KernelCounters) -> str:
    """The counters in Prometheus' text format 0.0.4.

    >>> from microkernel import Kernel
    >>> with Kernel() as kernel:
    ...     _ = kernel.get(kernel.submit(int))
    ...     print(prometheus_text(kernel.counters()).splitlines()[2])
    srds_tasks_submitted_total{placement="inline"} 1
    """
    lines = []
    for name, kind, text, samples in _families(counters):
        lines.append(f"# HELP {name} {text}")
        lines.append(f"# TYPE {name} {kind}")
        for suffix, labels, value in samples:
            inner = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
            shown = f"{value:d}" if isinstance(value, int) else repr(value)
            lines.append(f"{name}{suffix}{{{inner}}} {shown}" if inner else f"{name} {shown}")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _families(counters: KernelCounters) -> Iterator[tuple[str, str, str, Iterable[Sample]]]:
    places = counters.places.items()
    yield (
        "srds_tasks_submitted_total",
        "counter",
        "Tasks and decisions handed to the kernel.",
        [("", {"placement": place}, one.submitted) for place, one in places],
    )
    yield (
        "srds_tasks_ended_total",
        "counter",
        "Tasks and decisions that ended, by how.",
        [
            ("", {"placement": place, "status": status}, getattr(one, status))
            for place, one in places
            for status in ("finished", "failed", "cancelled", "missed")
        ],
    )
    yield (
        "srds_task_retries_total",
        "counter",
        "Attempts beyond the first.",
        [("", {"placement": place}, one.retried) for place, one in places],
    )
    yield (
        "srds_tasks_running",
        "gauge",
        "Tasks and decisions in the middle of running.",
        [("", {"placement": place}, one.running) for place, one in places],
    )
    yield (
        "srds_tasks_queued",
        "gauge",
        "Tasks that wait for what they depend on, or for a place to run.",
        [("", {"placement": place}, one.queued) for place, one in places],
    )
    workers = [(_labels(one), one) for one in counters.workers]
    yield (
        "srds_worker_tasks_total",
        "counter",
        "Tasks run by a thread or worker process.",
        [("", labels, one.tasks) for labels, one in workers],
    )
    yield (
        "srds_worker_busy_seconds_total",
        "counter",
        "Time that a thread or worker process has spent in tasks.",
        [("", labels, one.busy_seconds) for labels, one in workers],
    )
    yield (
        "srds_worker_crashes_total",
        "counter",
        "Worker processes that died without being told to.",
        [("", {}, counters.crashes)],
    )
    for name, value in sorted(counters.waiting.items()):
        yield (
            f"srds_worker_{name}_total",
            "counter",
            WAITING_HELP.get(name, name),
            [("", {}, value)],
        )
    for name, value in sorted(counters.objects.items()):
        yield f"srds_objects_{name}", "gauge", OBJECTS_HELP.get(name, name), [("", {}, value)]
    yield (
        "srds_trace_lost_total",
        "counter",
        "Trace entries that the disk refused or was too slow for.",
        [("", {}, counters.trace_lost)],
    )
    yield (
        "srds_trace_overwritten_total",
        "counter",
        "Trace entries that made room for later ones.",
        [("", {}, counters.trace_overwritten)],
    )
    yield (
        "srds_kernel_age_seconds",
        "gauge",
        "Time since the kernel was opened.",
        [("", {"program": counters.program}, counters.age_seconds)],
    )


WAITING_HELP = {
    "sleeps": "Times that a worker process went to sleep for want of work.",
    "spins": "Times that a worker process looked for work for a while before it slept.",
    "spin_hits": "Times that such looking found some.",
    "stolen": "Nested tasks that a worker process took from another.",
    "nested": "Nested tasks that a worker process ran itself.",
}

OBJECTS_HELP = {
    "used": "Bytes of the object arena in use.",
    "capacity": "Bytes that the object arena may grow to.",
    "objects": "Objects in the arena, spilled ones included.",
    "spilled": "Objects that are on disk.",
    "spilled_bytes": "Bytes of objects that are on disk.",
}


def _labels(one: WorkerCounters) -> dict[str, str]:
    return {"worker": one.name, "process": str(one.process)}
