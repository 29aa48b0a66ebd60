"""Reads one log: its segments, and what its writer has in the ring but not yet in a segment.

A reader takes no lock. It reads the ring first and the segments after it: an event that leaves the
ring in between is found in a segment, so whatever was acknowledged before ``refresh`` is seen.
"""

from __future__ import annotations

import bisect
import json
from collections.abc import Iterator
from pathlib import Path

from timemachine.errors import JournalDamaged
from timemachine.journal.frame import Event, decode_record
from timemachine.journal.header import SegmentHeader, read_header
from timemachine.journal.index import FrameIndex
from timemachine.journal.log_directory import segment_paths
from timemachine.journal.ring_file import RingRecord, read_ring
from timemachine.journal.segment_file import SegmentFile

__all__ = ["LogReader"]

KIND = "journal.kind"


class _Segment:
    """A segment as far as it was scanned: header, names of kinds, where its whole frames end."""

    def __init__(self, path: Path, header: SegmentHeader) -> None:
        self.path = path
        self.header = header
        self.kinds = dict(header.kinds)
        self.end = header.size

    def open(self) -> SegmentFile:
        header = self.header
        return SegmentFile(self.path, header.log_id, self.kinds, header.first_seq, header.size)


class LogReader:
    """The events of the log in ``directory``, as of the last ``refresh``. One thread at a time.

    Raises ``JournalDamaged`` or ``JournalFormatError`` when the log is not as it was written: a
    torn tail is not damage, it is what no writer has acknowledged as durable.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log_id = directory.name
        self._segments: list[_Segment] = []
        self._starts: list[int] = []
        self._index = FrameIndex()
        self._waiting: list[Event] = []
        self._file: SegmentFile | None = None
        self._file_at = -1

    @property
    def size(self) -> int:
        """The number of events seen."""
        return self._index.size + len(self._waiting)

    @property
    def headers(self) -> tuple[SegmentHeader, ...]:
        """The headers of the log's segments, in order."""
        return tuple(segment.header for segment in self._segments)

    def header_of(self, seq: int) -> SegmentHeader:
        """The header of the segment that holds event ``seq``, or will hold it."""
        return self._segments[bisect.bisect_right(self._starts, seq) - 1].header

    def refresh(self) -> None:
        """See what was appended since."""
        ring = read_ring(self.directory)
        paths = segment_paths(self.directory)
        self._forget_replaced(paths)
        for position in range(max(0, len(self._segments) - 1), len(paths)):
            if position == len(self._segments):
                self._add_segment(paths[position])
            self._scan(position, last=position == len(paths) - 1)
        self._waiting = self._events_of([r for r in ring.records if r.seq >= self._index.size])

    def event(self, seq: int, *, scanning: bool = False) -> Event:
        """The event number ``seq``; ``scanning`` says that its successors are asked for next."""
        if seq >= self._index.size:
            return self._waiting[seq - self._index.size]
        position = bisect.bisect_right(self._starts, seq) - 1
        if self._file is None or self._file_at != position:
            self._file = self._segments[position].open()
            self._file_at = position
        return self._file.event(self._index.offset(seq), scanning=scanning)

    def events(self) -> Iterator[Event]:
        """All events seen so far, in order."""
        # By number, because the ring's events are in a segment after another refresh.
        return (self.event(seq, scanning=True) for seq in range(self.size))

    def find(self, decision: bytes) -> list[int]:
        """The numbers of a decision's events, ascending."""
        found = self._index.find(decision)
        return found + [event.seq for event in self._waiting if event.decision == decision]

    def decisions(self) -> list[bytes]:
        """The ids of all decisions, in the order of their first events."""
        ids = dict.fromkeys(self._index.decisions())
        ids.update(dict.fromkeys(e.decision for e in self._waiting if e.decision is not None))
        return list(ids)

    def _forget_replaced(self, paths: list[Path]) -> None:
        """An empty last segment is replaced by the next opening's: read it anew."""
        if self._segments and self._segments[-1].end == self._segments[-1].header.size:
            if len(paths) < len(self._segments):
                raise self._damage(self._segments[-1], "the segment was removed")
            self._segments.pop()
            self._starts.pop()
            self._file = None

    def _add_segment(self, path: Path) -> None:
        header = read_header(path)
        segment = _Segment(path, header)
        if header.log_id != self.log_id:
            raise self._damage(segment, f"it belongs to log {header.log_id}")
        if header.first_seq != self._index.size:
            reason = f"it begins with event {header.first_seq} instead of {self._index.size}"
            raise self._damage(segment, reason)
        self._segments.append(segment)
        self._starts.append(header.first_seq)

    def _scan(self, position: int, *, last: bool) -> None:
        segment = self._segments[position]
        declaring = next((n for n, name in segment.header.kinds.items() if name == KIND), -1)
        while True:
            reached = segment.end
            file = segment.open()
            segment.end, declared = self._index.scan(file, reached, declaring)
            for offset in declared:
                body = json.loads(file.event(offset).payload)
                segment.kinds[int(body["number"])] = str(body["name"])
            file.refresh()
            problem = file.problem(segment.end)
            if problem is not None:
                if not problem:
                    return
                if last and file.find_whole(segment.end + 8, self._index.size) is None:
                    return
                if not last:
                    raise self._damage(segment, problem)
                # A live writer may have finished meanwhile what was half a frame.
                file.refresh()
                if file.problem(segment.end) is not None:
                    raise self._damage(segment, f"{problem}, and whole frames follow")
            elif segment.end == reached and self._is_misplaced(file, reached):
                raise self._damage(segment, "the frame is not the next one")

    def _is_misplaced(self, file: SegmentFile, offset: int) -> bool:
        head = file.head_at(offset)
        return head is not None and head[1] != self._index.size

    def _events_of(self, records: list[RingRecord]) -> list[Event]:
        if not records or not self._segments:
            return []
        if records[0].seq != self._index.size:
            reason = f"the next event in the writer's ring is {records[0].seq}"
            raise self._damage(self._segments[-1], reason)
        kinds = dict(self._segments[-1].kinds)
        found: list[Event] = []
        for record in records:
            event = decode_record(self.log_id, record.fixed, record.parents, record.payload, kinds)
            if event.kind == KIND:
                body = json.loads(event.payload)
                kinds[int(body["number"])] = str(body["name"])
            found.append(event)
        return found

    def _damage(self, segment: _Segment, reason: str) -> JournalDamaged:
        return JournalDamaged(
            f"{segment.path}, offset {segment.end}, event {self._index.size}: {reason}",
            what=f"{segment.path} at offset {segment.end}",
            expected="the segments as they were written",
            remedy="run `srds verify`, and restore the log from a copy",
            segment=segment.path.name,
            offset=segment.end,
            seq=self._index.size,
        )
