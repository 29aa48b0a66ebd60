"""Brings a log whose writer died back to a state that can be written on.

Two things may be left behind: a torn tail, the beginning of a batch that was never synced, and
events in the ring that were acknowledged but not yet written. The first is cut off (and kept in a
``.torn`` file), the second are written after the last whole frame. Whatever else is found is
damage, and damage is reported and never repaired by cutting: bytes count as a torn tail only when
no whole frame follows them and nothing that was signed, or known to be durable, would go.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from enclave.keys import VerifyKey
from timemachine.errors import JournalDamaged, JournalError
from timemachine.journal.checkpoint import SignedHead, stored_head
from timemachine.journal.digest import sha256
from timemachine.journal.frontier import LeafFrontier
from timemachine.journal.header import SegmentHeader, read_header
from timemachine.journal.log_directory import segment_paths
from timemachine.journal.ring_file import RingRecord, RingSnapshot, read_ring
from timemachine.journal.segment_file import SegmentFile
from timemachine.journal.segment_writer import SegmentWriter

__all__ = ["LogState", "Recovery", "recover"]


@dataclass(frozen=True)
class Recovery:
    """What an opening found: bytes of a torn tail that it cut off, events that it took from the
    ring, and whether there was a ring (``"lost"``: it is gone with a restart of the machine, and
    with it the events that were acknowledged but not yet durable)."""

    torn_bytes: int = 0
    ring_events: int = 0
    ring: Literal["none", "recovered", "lost"] = "none"


@dataclass(frozen=True)
class LogState:
    """A log that can be continued: the tree over its frames, the chain over its segment headers,
    and the Lamport time of its last event."""

    tree: LeafFrontier
    segments: int = 0
    headers: bytes = bytes(32)
    lamport: int = 0
    signed: SignedHead | None = None
    recovery: Recovery = Recovery()


def recover(directory: Path, trusted: Sequence[VerifyKey]) -> LogState:
    """Recover the log in ``directory``; the caller holds its lock.

    Raises ``JournalDamaged`` with segment, offset and seq when the log is not a prefix of what was
    written, and ``JournalFormatError`` for a foreign file or a newer format.
    """
    for unfinished in directory.glob("*.new"):
        unfinished.unlink()
    signed, untrusted = stored_head(directory, trusted, directory.name)
    if untrusted is not None:
        raise JournalDamaged(
            f"the checkpoint of {directory} cannot be trusted: {untrusted}",
            what=str(directory / "checkpoint"),
            expected="a checkpoint of this log, signed by the store's key",
            remedy="open the log with the key that signed it, or restore the file from a copy",
        ) from untrusted
    paths = segment_paths(directory)
    ring = read_ring(directory)
    if ring.state == "unreadable":
        raise JournalError(
            f"the ring of the log {directory} belongs to another user",
            what=str(directory / "ring"),
            expected="the user who wrote the log last",
            remedy="open the store as that user once, to recover what it did not write",
        )
    if not paths:
        _require_size(directory, 0, signed, ring, "", 0)
        return LogState(LeafFrontier(), signed=signed)
    return _recover_last(paths[-1], signed, ring)


def _recover_last(path: Path, signed: SignedHead | None, ring: RingSnapshot) -> LogState:
    header = read_header(path)
    if header.log_id != path.parent.name:
        raise _damaged(path, 0, header.first_seq, f"it belongs to log {header.log_id}")
    try:
        tree = LeafFrontier(header.previous.size, header.previous.frontier)
    except ValueError as error:
        raise _damaged(path, 0, header.first_seq, str(error)) from error
    leaves_path = path.with_suffix(".leaves")
    sidecar = leaves_path.read_bytes() if leaves_path.exists() else b""
    file = SegmentFile(path, header.log_id, dict(header.kinds), header.first_seq, header.size)
    leaves = bytearray()
    end, size, state = file.audit(header.size, header.first_seq, leaves, sidecar, -1)
    if state not in ("end", "frame"):
        raise _damaged(path, end, size, f"the frame fails its {state}")
    if state == "frame":
        follower = file.find_whole(end + 8, size)
        if follower is not None:
            reason = f"{file.problem(end)}, and a whole frame follows at offset {follower}"
            raise _damaged(path, end, size, reason)
    _require_size(path.parent, size, signed, ring, path.name, end)
    _require_root(path, header, tree, bytes(leaves), signed)
    torn = _cut(path, end) if state == "frame" else 0
    if len(sidecar) != len(leaves):
        _rewrite(leaves_path, bytes(leaves))
    tree.extend(leaves)
    previous = header.previous
    chained = sha256(previous.headers, header.block)
    begun = size > header.first_seq
    writer = SegmentWriter(
        path,
        header.first_seq,
        end,
        tree,
        previous.segments + begun,
        chained if begun else previous.headers,
        chained,
        _lamport_of(file.frame_at(file.last)) if begun else header.lamport,
    )
    taken = _take(writer, path, header, size, end, ring)
    return LogState(
        tree=writer.tree,
        segments=writer.segments,
        headers=writer.headers,
        lamport=writer.lamport,
        signed=signed,
        recovery=Recovery(torn, taken, "recovered" if ring.state == "read" else _ring_state(ring)),
    )


def _ring_state(ring: RingSnapshot) -> Literal["none", "lost"]:
    return "none" if ring.state == "none" else "lost"


def _take(
    writer: SegmentWriter,
    path: Path,
    header: SegmentHeader,
    size: int,
    end: int,
    ring: RingSnapshot,
) -> int:
    """Write the ring's events that are in no segment yet; returns how many."""
    missing: list[RingRecord] = [record for record in ring.records if record.seq >= size]
    if not missing:
        return 0
    if missing[0].seq != size or ring.run_id != header.run_id:
        reason = f"the ring goes on with event {missing[0].seq} of run {ring.run_id.hex()}"
        raise _damaged(path, end, size, reason)
    for record in missing:
        writer.add(record.fixed, record.parents, record.payload)
    writer.commit()
    return len(missing)


def _lamport_of(frame: bytes) -> int:
    return int.from_bytes(frame[16:24], "little")


def _require_size(
    directory: Path,
    size: int,
    signed: SignedHead | None,
    ring: RingSnapshot,
    segment: str,
    offset: int,
) -> None:
    known = [(ring.durable, "durable")]
    if signed is not None:
        known.append((signed.size, "signed"))
    for count, what in known:
        if count > size:
            reason = f"{size} frames are left of {count} {what} ones"
            raise _damaged(directory / segment, offset, size, reason)


def _require_root(
    path: Path,
    header: SegmentHeader,
    before: LeafFrontier,
    leaves: bytes,
    signed: SignedHead | None,
) -> None:
    """Compare with the signed head where it falls into this segment; ``srds verify`` checks all."""
    if signed is None or signed.size < header.first_seq:
        return
    tree = before.copy()
    tree.extend(leaves[: 32 * (signed.size - header.first_seq)])
    if tree.root != signed.root:
        raise _damaged(
            path,
            header.size,
            header.first_seq,
            f"its frames up to {signed.size} are not those that were signed",
        )


def _cut(path: Path, end: int) -> int:
    """Cut the torn tail off, after keeping what is not zero beside the segment; its size."""
    file = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        count = os.fstat(file).st_size - end
        tail = os.pread(file, count, end)
        if any(tail):
            _rewrite(path.with_name(f"{path.stem}.{end}.torn"), tail)
        os.ftruncate(file, end)
        os.fsync(file)
    finally:
        os.close(file)
    return count


def _rewrite(path: Path, data: bytes) -> None:
    unfinished = path.with_name(f"{path.name}.new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    file = os.open(unfinished, flags, 0o600)
    try:
        with open(file, "wb", closefd=False) as stream:
            stream.write(data)
        os.fsync(file)
    finally:
        os.close(file)
    os.rename(unfinished, path)


def _damaged(path: Path, offset: int, seq: int, reason: str) -> JournalDamaged:
    return JournalDamaged(
        f"the log is damaged at {path}, offset {offset}, event {seq}: {reason}",
        what=f"{path} at offset {offset}",
        expected="a prefix of what the journal wrote",
        remedy="run `srds verify`, restore the log from a copy; or move its directory out of the "
        "store, and a new log is begun",
        segment=path.name,
        offset=offset,
        seq=seq,
    )
