"""Reads a store's journal: all its logs as one stream of events, or one decision's events."""

from __future__ import annotations

import heapq
import os
from collections.abc import Collection, Iterator
from pathlib import Path

from timemachine.errors import JournalError
from timemachine.journal.frame import Event
from timemachine.journal.header import SegmentHeader
from timemachine.journal.log_directory import log_directories
from timemachine.journal.log_reader import LogReader

__all__ = ["Reader"]


class Reader:
    """The events in a store's journal directory, or in the directory of one log.

    It needs no right to write, takes no lock, and sees every event that was acknowledged before
    the call: also those of a running or killed writer that are in no segment yet (as far as this
    user may read the writer's shared memory). One thread at a time.

    Raises ``JournalError`` when there is no journal, ``JournalDamaged`` or ``JournalFormatError``
    when a log cannot be read as it was written.

    >>> from tempfile import TemporaryDirectory
    >>> from enclave.keys import SigningKey
    >>> from microkernel.events import INPUT
    >>> from timemachine.journal import open_log
    >>> key = SigningKey.generate("example.org/store")
    >>> with TemporaryDirectory() as store, open_log(store, key) as journal:
    ...     seq = journal.append_event(INPUT, b"what came in", decision=bytes(range(16)))
    ...     [(event.kind, event.payload) for event in Reader(store).events()]
    [('input', b'what came in')]
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self._directory = Path(directory)
        self._logs: dict[str, LogReader] = {}
        log_directories(self._directory)

    def refresh(self) -> None:
        """See what was appended since; ``events`` and ``decisions`` do it by themselves."""
        for directory in log_directories(self._directory):
            log = self._logs.get(directory.name)
            if log is None:
                # The absolute path: the reader must not follow a change of working directory.
                log = self._logs[directory.name] = LogReader(Path(os.path.abspath(directory)))
            log.refresh()

    @property
    def logs(self) -> tuple[str, ...]:
        """The ids of the logs, as of the last refresh."""
        return tuple(self._logs)

    def headers(self, log: str) -> tuple[SegmentHeader, ...]:
        """The headers of a log's segments, in order; raises ``JournalError`` for an unknown log."""
        return self._log(log).headers

    def header_of(self, event: Event) -> SegmentHeader:
        """The header of the segment that holds an event: its run, environment and kinds."""
        return self._log(event.log).header_of(event.seq)

    def events(
        self, decision: bytes | None = None, kinds: Collection[str] | None = None
    ) -> Iterator[Event]:
        """The events appended so far, of one decision or all, of some kinds or all.

        Those of one log come in its order; those of several logs are merged by Lamport time, so
        that causes come before effects wherever the logs know of each other.
        """
        self.refresh()
        streams = [
            log.events() if decision is None else map(log.event, log.find(decision))
            for log in self._logs.values()
        ]
        merged = iter(streams[0]) if len(streams) == 1 else heapq.merge(*streams, key=_order)
        if kinds is None:
            return merged
        wanted = frozenset(kinds)
        return (event for event in merged if event.kind in wanted)

    def decisions(self) -> list[bytes]:
        """The ids of all decisions (16 bytes each), each log's in the order of first events."""
        self.refresh()
        ids: dict[bytes, None] = {}
        for log in self._logs.values():
            ids.update(dict.fromkeys(log.decisions()))
        return list(ids)

    def __len__(self) -> int:
        """The number of events, as of the last refresh."""
        return sum(log.size for log in self._logs.values())

    def _log(self, log: str) -> LogReader:
        try:
            return self._logs[log]
        except KeyError:
            raise JournalError(
                f"the journal {self._directory} has no log {log}",
                what=log,
                expected="one of " + (", ".join(self._logs) or "no logs"),
                remedy="refresh the reader, or check the id",
            ) from None


def _order(event: Event) -> tuple[int, str]:
    return event.lamport, event.log
