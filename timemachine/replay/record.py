"""One decision as the journal holds it, and the journal as a list of decisions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from microkernel import RecordedInput, read_inputs
from microkernel.values import decode, decode_all
from timemachine.errors import DecisionNotFound, JournalDamaged
from timemachine.journal import Event, Reader
from timemachine.replay.outcome import Outcome

__all__ = ["DecisionRecord", "Records", "TaskRecord"]

SHORTEST_PREFIX = 4


@dataclass(frozen=True)
class TaskRecord:
    """A task that a decision ran: its id and its parent's (16 bytes each as hexadecimal text),
    its function and the digest of that one's code, and how long it ran (0: it never began)."""

    id: str
    parent: str
    name: str
    code: bytes
    ok: bool
    nanoseconds: int


@dataclass(frozen=True)
class DecisionRecord:
    """A decision: what was asked, under which code and catalogue versions, and what came out.

    ``id`` is 16 bytes as hexadecimal text. ``name`` is ``module:function``, ``code`` the digest of
    the function's own code. ``outcome`` is None when the decision was never closed: its process
    died, or it is still running.
    """

    id: str
    log: str
    name: str
    code: bytes
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    subject: Any
    policy: Any
    versions: tuple[str, ...]
    outcome: Outcome | None
    events: tuple[Event, ...] = field(repr=False)

    @property
    def raw_id(self) -> bytes:
        """The 16 bytes of the id."""
        return bytes.fromhex(self.id)

    @property
    def opened_ns(self) -> int:
        """When it was opened: nanoseconds since 1970, by the clock of the machine."""
        return self.events[0].wall_ns

    @property
    def nanoseconds(self) -> int:
        """From its first event to its last."""
        return self.events[-1].wall_ns - self.events[0].wall_ns

    @cached_property
    def inputs(self) -> tuple[RecordedInput, ...]:
        """Everything that the decision and its tasks read, in order."""
        return tuple(
            one
            for event in self.events
            if event.kind == "input"
            for one in read_inputs(event.payload, event.seq)
        )

    @cached_property
    def tasks(self) -> tuple[TaskRecord, ...]:
        """The tasks that it ran, in the order in which they ended."""
        return tuple(
            task for event in self.events if event.kind == "tasks" for task in _tasks(event)
        )

    def payloads(self) -> list[tuple[int, bytes]]:
        """The inputs as a replay takes them: number and bytes of each event."""
        return [(event.seq, event.payload) for event in self.events if event.kind == "input"]


class Records:
    """The decisions in a journal.

    >>> Records(reader).find("3f2a")        # doctest: +SKIP
    """

    def __init__(self, reader: Reader) -> None:
        self.reader = reader

    def ids(self) -> list[str]:
        """The ids of all decisions, each log's in the order in which they were opened."""
        return [raw.hex() for raw in self.reader.decisions()]

    def __iter__(self) -> Iterator[DecisionRecord]:
        for raw in self.reader.decisions():
            record = self.read(raw)
            if record is not None:
                yield record

    def find(self, prefix: str) -> DecisionRecord:
        """The decision whose id begins so (at least 4 hexadecimal digits).

        Raises ``DecisionNotFound`` when there is none, or more than one.
        """
        wanted = prefix.strip().lower()
        if len(wanted) < SHORTEST_PREFIX or not all(c in "0123456789abcdef" for c in wanted):
            raise DecisionNotFound(
                f"{prefix!r} is no decision id",
                what=prefix,
                expected=f"at least {SHORTEST_PREFIX} hexadecimal digits",
                remedy="srds log lists the ids",
            )
        found = [raw for raw in self.reader.decisions() if raw.hex().startswith(wanted)]
        if len(found) > 1:
            raise DecisionNotFound(
                f"{len(found)} decisions begin with {prefix}",
                what=prefix,
                expected="the beginning of one id: " + ", ".join(raw.hex() for raw in found[:4]),
                remedy="give more digits",
            )
        record = self.read(found[0]) if found else None
        if record is None:
            raise DecisionNotFound(
                f"no decision begins with {prefix}",
                what=prefix,
                expected="the id of a recorded decision",
                remedy="srds log lists the ids",
            )
        return record

    def read(self, raw: bytes) -> DecisionRecord | None:
        """The decision with this id (16 bytes); None when the journal has not its beginning."""
        events = tuple(self.reader.events(decision=raw))
        opened = next((event for event in events if event.kind == "decision.opened"), None)
        if opened is None:
            return None
        closed = next((event for event in events if event.kind == "decision.closed"), None)
        name, code, args, kwargs, subject, policy, versions = _fields(opened, 7)
        outcome = None if closed is None else Outcome(*_fields(closed, 2))
        return DecisionRecord(
            id=raw.hex(),
            log=opened.log,
            name=name,
            code=code,
            args=tuple(args),
            kwargs=kwargs,
            subject=subject,
            policy=policy,
            versions=tuple(versions),
            outcome=outcome,
            events=events,
        )


def _fields(event: Event, count: int) -> list[Any]:
    try:
        return _checked(decode(event.payload), count)
    except ValueError as error:
        raise _unreadable(event, count, error) from error


def _tasks(event: Event) -> Iterator[TaskRecord]:
    try:
        for entry in decode_all(event.payload):
            task, parent, name, code, ok, _, nanoseconds = _checked(entry, 7)
            yield TaskRecord(task.hex(), parent.hex(), name, code, ok, nanoseconds)
    except ValueError as error:
        raise _unreadable(event, 7, error) from error


def _checked(fields: object, count: int) -> list[Any]:
    if not isinstance(fields, list) or len(fields) != count:
        raise ValueError(f"it has not {count} fields")
    return fields


def _unreadable(event: Event, count: int, error: ValueError) -> JournalDamaged:
    return JournalDamaged(
        f"event {event.seq} ({event.kind}) cannot be read: {error}",
        what=f"event {event.seq} of log {event.log}",
        expected=f"a recorded array of {count}",
        remedy="srds verify tells whether the journal was altered",
        seq=event.seq,
    )
