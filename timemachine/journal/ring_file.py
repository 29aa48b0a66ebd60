"""Reads a log's shared-memory ring from outside: for recovery, and for readers of a live log.

The log's ``ring`` file names the ring and the boot of the machine that it belongs to: after a
restart the memory is gone, or, where the ring is an ordinary file, of unknown age. ``ring.h`` has
the layout. A ring is believed only when its token is the one in the ``ring`` file, because the
name may have been taken by somebody else since.
"""

from __future__ import annotations

import json
import os
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from timemachine.errors import JournalDamaged

__all__ = ["RingRecord", "RingSnapshot", "boot_id", "name_ring", "read_ring", "remove_ring"]

NAME = "ring"
MAGIC = b"SRDSRNG1"
VERSION = 1
WHOLE = 1

_HEADER = struct.Struct("<8sIIQ16s16s16s16sQ")
_RECORD = struct.Struct("<IIQ")
_U64 = struct.Struct("<Q")
_HEAD_AT, _TAIL_AT, _DURABLE_AT = 128, 192, 256


@dataclass(frozen=True)
class RingRecord:
    """An event in the ring: bytes 8 to 64 of its frame, its parents, its payload."""

    seq: int
    fixed: bytes
    parents: bytes
    payload: bytes


@dataclass(frozen=True)
class RingSnapshot:
    """What a ring held at one moment.

    ``state``: ``"none"``: the log has no ring; ``"read"``; ``"lost"``: it is gone, or from before
    a restart of the machine; ``"unreadable"``: this user may not read it. ``durable`` is the
    number of events that the writer knew to be on disk, ``run_id`` that of the writer.
    """

    state: Literal["none", "read", "lost", "unreadable"]
    records: tuple[RingRecord, ...] = ()
    durable: int = 0
    run_id: bytes = b""


def boot_id() -> bytes:
    """16 bytes that change with each start of the machine; zeros where it does not tell."""
    try:
        text = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8")
        return bytes.fromhex(text.strip().replace("-", ""))
    except (OSError, ValueError):
        return bytes(16)


def name_ring(directory: Path, ring: Path, token: bytes) -> None:
    """Write the log's ``ring`` file, durably and at once."""
    body = {
        "version": VERSION,
        "path": str(ring),
        "token": token.hex(),
        "boot": boot_id().hex(),
        "pid": os.getpid(),
    }
    unfinished = directory / f"{NAME}.new"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    file = os.open(unfinished, flags, 0o600)
    try:
        os.write(file, json.dumps(body).encode() + b"\n")
        os.fsync(file)
    finally:
        os.close(file)
    os.rename(unfinished, directory / NAME)


def remove_ring(directory: Path) -> None:
    """Remove the ring that the log names, and the name; what is not there is no error."""
    try:
        named = _named(directory)
    except JournalDamaged:
        named = None
    if named is not None and _is_ring(named[0], named[1]):
        named[0].unlink(missing_ok=True)
    (directory / NAME).unlink(missing_ok=True)


def read_ring(directory: Path) -> RingSnapshot:
    """The events in the log's ring, in order; the writer may be alive.

    Raises ``JournalDamaged`` when the ring of a log is not what a journal writes.
    """
    named = _named(directory)
    if named is None:
        return RingSnapshot("none")
    path, token, boot = named
    if boot != boot_id():
        return RingSnapshot("lost")
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        # A writer that closed meanwhile leaves neither; one that died leaves the name.
        return RingSnapshot("lost" if (directory / NAME).exists() else "none")
    except PermissionError:
        return RingSnapshot("unreadable")
    except OSError as error:
        raise _damaged(path, f"cannot be opened ({error.strerror})") from error
    try:
        return _read(file, path, token)
    finally:
        os.close(file)


def _named(directory: Path) -> tuple[Path, bytes, bytes] | None:
    try:
        body = json.loads((directory / NAME).read_bytes())
        if body["version"] != VERSION:
            raise _damaged(directory / NAME, f"has version {body['version']}, not {VERSION}")
        return Path(body["path"]), bytes.fromhex(body["token"]), bytes.fromhex(body["boot"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(directory / NAME, f"names no ring ({error!r})") from error


def _is_ring(path: Path, token: bytes) -> bool:
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        header = os.pread(file, _HEADER.size, 0)
        return len(header) == _HEADER.size and _HEADER.unpack(header)[6] == token
    finally:
        os.close(file)


def _read(file: int, path: Path, token: bytes) -> RingSnapshot:
    header = os.pread(file, _HEADER.size, 0)
    if len(header) < _HEADER.size or not stat.S_ISREG(os.fstat(file).st_mode):
        raise _damaged(path, "is no ring")
    magic, version, data_at, capacity, _log, run, found, _boot, _pid = _HEADER.unpack(header)
    if magic != MAGIC or found != token:
        raise _damaged(path, "is not the ring that this log names")
    if version != VERSION or capacity == 0 or capacity & (capacity - 1):
        raise _damaged(path, f"has version {version} and capacity {capacity}")

    def counter(offset: int) -> int:
        (value,) = _U64.unpack(os.pread(file, 8, offset))
        return int(value)

    first_tail = counter(_TAIL_AT)
    head = counter(_HEAD_AT)
    if not 0 <= head - first_tail <= capacity:
        # The writer went on between the two reads; what it drained is in the segments.
        first_tail = counter(_TAIL_AT)
        head = max(head, first_tail)
    data = _span(file, data_at, capacity, first_tail, head)
    # What lies before the tail as it is now may have been written over during the copy.
    durable = counter(_DURABLE_AT)
    tail = max(first_tail, counter(_TAIL_AT))
    records = _parse(data[tail - first_tail :], path) if tail < head else ()
    return RingSnapshot("read", records, durable, run)


def _span(file: int, data_at: int, capacity: int, tail: int, head: int) -> bytes:
    begin = tail & (capacity - 1)
    count = min(head - tail, capacity)
    first = min(count, capacity - begin)
    data = os.pread(file, first, data_at + begin)
    if count > first:
        data += os.pread(file, count - first, data_at)
    return data


def _parse(data: bytes, path: Path) -> tuple[RingRecord, ...]:
    records: list[RingRecord] = []
    at = 0
    while at + 64 <= len(data):
        size, state, seq = _RECORD.unpack_from(data, at)
        parents = int.from_bytes(data[at + 50 : at + 52], "little") * 16
        if state != WHOLE:
            # An event too large for the ring: not acknowledged until it is in a segment.
            break
        end = at + 64 + parents + size
        if end > len(data):
            break
        if records and seq != records[-1].seq + 1:
            raise _damaged(path, f"has event {seq} after event {records[-1].seq}")
        payload_at = end - size
        records.append(
            RingRecord(
                seq, data[at + 8 : at + 64], data[at + 64 : payload_at], data[payload_at:end]
            )
        )
        at = (end + 7) & ~7
    return tuple(records)


def _damaged(path: Path, reason: str) -> JournalDamaged:
    return JournalDamaged(
        f"{path} {reason}",
        what=str(path),
        expected="the shared-memory ring of this log's last writer",
        remedy=f"to give up the events that were not yet on disk, remove the log's file {NAME!r}",
    )
