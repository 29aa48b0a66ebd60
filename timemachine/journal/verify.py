"""Checks that a journal is as it was written, frame by frame, and names what is not.

A CRC only finds accidents. Against a forger stand the commitment in each frame, the leaf hash of
each frame in the sidecar, and the signed heads of the tree over the leaves. Where a frame and its
sidecar disagree, the signed root tells which of the two was altered: the tree is computed once from
the frames and once from the sidecar, and the one that fits the signature is genuine.

What it cannot see: that a log was put back, as a whole, to an older state with an older genuine
checkpoint, that a whole log was removed, or what a holder of the signing key wrote.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

from enclave.errors import EnclaveError
from enclave.keys import VerifyKey
from timemachine.errors import JournalDamaged, JournalFormatError
from timemachine.journal.checkpoint import SignedHead, open_head, stored_head
from timemachine.journal.digest import sha256
from timemachine.journal.header import SegmentHeader, read_header
from timemachine.journal.leaf_tally import LeafTally
from timemachine.journal.log_directory import log_directories, segment_paths
from timemachine.journal.report import Finding, LogReport, VerifyReport
from timemachine.journal.segment_file import SegmentFile

__all__ = ["verify"]

CHECKPOINT_KIND = "journal.checkpoint"


def verify(directory: str | os.PathLike[str], public_keys: Iterable[VerifyKey]) -> VerifyReport:
    """Verify all logs in a store's journal directory, or the one log that it is.

    ``public_keys`` are those whose signatures count. The journal may be written meanwhile; events
    that are in no segment yet are not looked at. Raises ``JournalError`` when there is no journal,
    and ``JournalFormatError`` when it is of a newer format.

    >>> from tempfile import TemporaryDirectory
    >>> from enclave.keys import SigningKey
    >>> from microkernel.events import INPUT
    >>> from timemachine.journal import open_log
    >>> key = SigningKey.generate("example.org/store")
    >>> with TemporaryDirectory() as store:
    ...     with open_log(store, key) as journal:
    ...         seq = journal.append_event(INPUT, b"what came in")
    ...     verify(store, [key.public]).ok
    True
    """
    trusted = tuple(public_keys)
    return VerifyReport(
        tuple(_LogVerification(log, trusted).run() for log in log_directories(Path(directory)))
    )


class _LogVerification:
    """One pass over the log in ``directory``; ``seq`` is the number of the next frame."""

    def __init__(self, directory: Path, trusted: tuple[VerifyKey, ...]) -> None:
        self.directory = directory
        self.log = directory.resolve().name
        self.trusted = trusted
        self.findings: list[Finding] = []
        self.tally = LeafTally()
        self.seq = 0
        self.frames = 0
        self.signed = 0
        self.checkpoints = 0
        self.chain = bytes(32)
        # For each segment: its first frame, the number of segments and the header chain with it.
        self.chains: list[tuple[int, int, bytes]] = []
        self.disputed: list[Finding] = []

    def run(self) -> LogReport:
        # The checkpoint file first: a live log may grow meanwhile, but never below it.
        head, untrusted = stored_head(self.directory, self.trusted, self.log)
        try:
            paths = segment_paths(self.directory)
        except JournalDamaged as error:
            self.add(str(error), segment=error.segment)
            paths = sorted(self.directory.glob("[0-9]*.seg"))
        for position, path in enumerate(paths):
            self.read_segment(path, last=position == len(paths) - 1)
        if untrusted is not None:
            self.add(f"the checkpoint cannot be trusted: {untrusted}")
        elif head is None:
            self.add("the log has no checkpoint")
        else:
            if head.size < self.signed:
                self.add(
                    f"the checkpoint is of {head.size} frames, older than one in the log, of "
                    f"{self.signed}"
                )
            self.compare(head)
        self.settle_disputes(
            self.seq,
            "the frame and its leaf hash disagree, and nothing signed tells which was altered",
        )
        return LogReport(
            self.log, len(paths), self.frames, self.signed, self.checkpoints, tuple(self.findings)
        )

    def add(
        self,
        message: str,
        *,
        segment: str = "",
        offset: int | None = None,
        seq: int | None = None,
        decision: bytes | None = None,
        severity: Literal["damage", "notice"] = "damage",
    ) -> None:
        self.findings.append(Finding(severity, self.log, message, segment, offset, seq, decision))

    def read_segment(self, path: Path, *, last: bool) -> None:
        try:
            header = read_header(path)
        except JournalFormatError as error:
            if error.what.startswith("format version"):
                raise
            self.add(str(error), segment=path.name, offset=0)
            return
        except JournalDamaged as error:
            seq = int(path.stem) if path.stem.isdigit() else None
            self.add(str(error), segment=path.name, offset=0, seq=seq)
            return
        self.check_header(path.name, header)
        leaves = path.with_suffix(".leaves")
        sidecar = leaves.read_bytes() if leaves.exists() else b""
        segment = _Segment(path, header, sidecar[: len(sidecar) // 32 * 32], last)
        self.read_frames(segment)
        missing = self.seq - header.first_seq - segment.written
        if missing > 0:
            self.add(
                f"the leaf sidecar lacks the hashes of {missing} frames",
                segment=path.name,
                severity="notice" if last else "damage",
            )

    def check_header(self, name: str, header: SegmentHeader) -> None:
        first, previous = header.first_seq, header.previous
        if header.log_id != self.log:
            self.add(f"the segment belongs to log {header.log_id}", segment=name, offset=0)
        if first == self.seq:
            if previous.size != first or not self.tally.has_frontier(previous.frontier):
                message = "its header does not go on from the frames before it"
                self.add(message, segment=name, offset=0, seq=first)
            if previous.headers != self.chain:
                message = "this segment's header or one before it was altered"
                self.add(message, segment=name, offset=0, seq=first)
        else:
            if first > self.seq:
                message = f"frames {self.seq} to {first - 1} are missing before this segment"
            else:
                message = f"the segment begins with frame {first}, which was there already"
            self.add(message, segment=name, offset=0, seq=min(first, self.seq))
            self.settle_disputes(self.seq, "the frame and its leaf hash disagree")
            # What is between is lost: go on from what this header says; a signed root will tell
            # whether that is genuine.
            self.seq = first
            try:
                self.tally.restart(previous.size, previous.frontier)
            except ValueError as error:
                self.add(f"its header holds no frontier: {error}", segment=name, offset=0)
        self.chain = sha256(previous.headers, header.block)
        self.chains.append((first, previous.segments + 1, self.chain))

    def read_frames(self, segment: _Segment) -> None:
        offset: int | None = segment.header.size
        while offset is not None:
            leaves = bytearray()
            before = self.seq
            offset, self.seq, why = segment.file.audit(
                offset, self.seq, leaves, segment.sidecar, segment.checkpoint_kind
            )
            self.frames += self.seq - before
            self.tally.extend(leaves)
            if why == "end":
                self.finish(segment, offset)
                return
            if why == "kind":
                self.read_note(segment)
            elif why in ("commitment", "leaf"):
                offset = self.pass_altered(segment, offset, why)
            elif why == "seq":
                offset = self.pass_misplaced(segment, offset)
            else:
                offset = self.pass_broken(segment, offset)

    def finish(self, segment: _Segment, offset: int) -> None:
        lost = segment.header.first_seq + segment.written - self.seq
        if lost > 0:
            self.add(
                f"the segment ends here, but its leaf sidecar names {lost} more frames",
                segment=segment.name,
                offset=offset,
                seq=self.seq,
                severity="notice" if segment.last else "damage",
            )
            if not segment.last:
                self.skip(segment, self.seq + lost)

    def read_note(self, segment: _Segment) -> None:
        event = segment.file.event(segment.file.last, scanning=True)
        try:
            head = open_head(event.payload, self.trusted, self.log)
        except EnclaveError as error:
            self.add(
                f"the checkpoint in this frame cannot be trusted: {error}",
                segment=segment.name,
                offset=segment.file.last,
                seq=event.seq,
            )
            return
        self.compare(head)

    def pass_altered(self, segment: _Segment, offset: int, why: str) -> int:
        """A whole frame in its place, which does not hold what was written there."""
        span, _, decision, _ = segment.head(offset)
        leaf = segment.file.leaf_at(offset)
        written = segment.leaf(self.seq) or leaf
        finding = partial(
            Finding,
            "damage",
            self.log,
            segment=segment.name,
            offset=offset,
            seq=self.seq,
            decision=decision,
        )
        if why == "commitment":
            message = "the frame was altered: its payload does not fit its commitment"
            self.findings.append(finding(message=message))
        else:
            self.disputed.append(finding(message=""))
        self.tally.append(leaf, written)
        self.seq += 1
        self.frames += 1
        return offset + span

    def pass_misplaced(self, segment: _Segment, offset: int) -> int:
        """A whole frame with another number than its place has."""
        span, found, decision, _ = segment.head(offset)
        after = segment.file.head_at(offset + span)
        follows = after[1] if after is not None else None
        finding = partial(
            Finding, "damage", self.log, segment=segment.name, offset=offset, decision=decision
        )
        if follows != self.seq + 1 and found > self.seq and follows in (None, found + 1):
            lost = _range(self.seq, found)
            message = f"{lost} missing here; frame {found} follows"
            self.add(message, segment=segment.name, offset=offset, seq=self.seq)
            self.skip(segment, found)
            return offset
        if found < self.seq and follows == self.seq:
            message = f"frame {found} stands here again"
            self.findings.append(finding(message=message, seq=found))
            return offset + span
        message = f"frame {found} stands in the place of frame {self.seq}"
        self.findings.append(finding(message=message, seq=self.seq))
        self.skip(segment, self.seq + 1)
        self.frames += 1
        return offset + span

    def pass_broken(self, segment: _Segment, offset: int) -> int | None:
        """No whole frame; where the next one begins, or None when there is none."""
        file = segment.file
        reason = file.problem(offset)
        head = file.head_at(offset)
        decision = head[2] if head is not None and head[1] == self.seq else None
        try:
            follower = file.find_whole(offset + 8, self.seq)
        except JournalDamaged as error:
            self.add(str(error), segment=segment.name, offset=offset, seq=self.seq)
            follower = None
        file.refresh()
        if segment.last and file.problem(offset) is None:
            # A live writer has finished what was half a frame.
            return offset
        if follower is None:
            known = segment.header.first_seq + segment.written
            if segment.last and known <= self.seq:
                message = "an unfinished batch: opening the log for writing cuts it off"
                self.add(message, segment=segment.name, offset=offset, severity="notice")
                return None
            lost = _range(self.seq, max(known, self.seq + 1))
            self.add(
                f"{reason}, and no whole frame follows: {lost} lost",
                segment=segment.name,
                offset=offset,
                seq=self.seq,
                decision=decision,
            )
            if not segment.last:
                self.skip(segment, known)
            return None
        resumed = segment.head(follower)[1]
        if resumed == self.seq:
            message = f"{follower - offset} bytes belong to no frame"
        elif resumed == self.seq + 1:
            message = f"the frame was altered: {reason}"
        else:
            message = f"{reason}: {_range(self.seq, resumed)} unreadable"
        self.add(message, segment=segment.name, offset=offset, seq=self.seq, decision=decision)
        self.skip(segment, resumed)
        return follower

    def skip(self, segment: _Segment, seq: int) -> None:
        """Take the leaves of lost frames from the sidecar, up to frame ``seq``."""
        while self.seq < seq:
            written = segment.leaf(self.seq)
            if written is None:
                self.tally.lose()
                self.seq = seq
                return
            self.tally.append(written, written)
            self.seq += 1

    def compare(self, head: SignedHead) -> None:
        """Hold what was read against a signed head."""
        self.checkpoints += 1
        if head.size > self.seq:
            self.add(
                f"{head.size} frames were signed, but the log ends after {self.seq}", seq=self.seq
            )
            return
        self.signed = max(self.signed, head.size)
        begin = self.tally.settled_size
        result = self.tally.settle(head.size, head.root)
        if result == "frames":
            message = "the leaf hash of this frame was altered in the sidecar; the frame is genuine"
        elif result == "sidecar":
            message = "the frame was altered: it does not fit its leaf hash, which is signed for"
        else:
            message = "the frame and its leaf hash disagree"
        self.settle_disputes(head.size, message)
        if result == "neither":
            self.add(
                f"{_range(begin, head.size)} not what was signed: the root is another", seq=begin
            )
        covered = [entry for entry in self.chains if entry[0] < head.size]
        count, chain = covered[-1][1:] if covered else (0, bytes(32))
        if (count, chain) != (head.segments, head.headers):
            self.add(
                f"the segment headers up to frame {head.size} are not those that were signed",
                segment=f"{covered[-1][0]:020}.seg" if covered else "",
                offset=0,
            )

    def settle_disputes(self, size: int, message: str) -> None:
        settled = [f for f in self.disputed if f.seq is not None and f.seq < size]
        self.disputed = [f for f in self.disputed if f not in settled]
        self.findings.extend(replace(finding, message=message) for finding in settled)


class _Segment:
    """A segment under verification, its file and its sidecar."""

    def __init__(self, path: Path, header: SegmentHeader, sidecar: bytes, last: bool) -> None:
        self.name = path.name
        self.header = header
        self.sidecar = sidecar
        self.written = len(sidecar) // 32
        self.last = last
        self.file = SegmentFile(
            path, header.log_id, dict(header.kinds), header.first_seq, header.size
        )
        kinds = header.kinds.items()
        self.checkpoint_kind = next((n for n, kind in kinds if kind == CHECKPOINT_KIND), -1)

    def leaf(self, seq: int) -> bytes | None:
        """The leaf hash of frame ``seq`` as the sidecar has it."""
        index = seq - self.header.first_seq
        return self.sidecar[32 * index : 32 * index + 32] if index < self.written else None

    def head(self, offset: int) -> tuple[int, int, bytes | None, int]:
        """Span, seq, decision and kind of the whole frame at ``offset``."""
        head = self.file.head_at(offset)
        if head is None:
            raise AssertionError(f"{self.name} has no frame at {offset}")
        return head


def _range(begin: int, end: int) -> str:
    return f"frame {begin} is" if end == begin + 1 else f"frames {begin} to {end - 1} are"
