"""The header block of a segment: what makes one file readable without the rest of the store.

It names the log and the run, the kinds of event and their columns, the environment, and the tree
over all frames before it (size and frontier) together with a chain over the headers before it.
Checkpoints sign that chain, so a header cannot be altered unnoticed although it is no leaf. The
flusher writes the block itself, from a prefix that ``header_prefix`` renders, because a new
segment must not wait for the interpreter.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from microkernel.events import EventKind
from timemachine.errors import JournalDamaged, JournalError, JournalFormatError
from timemachine.journal.digest import crc32c

__all__ = ["FORMAT_VERSION", "PreviousTree", "SegmentHeader", "header_prefix", "read_header"]

FORMAT_VERSION = 1
MAGIC = b"SRDSJRN1"
MAX_BODY = 16 << 20

_HEAD = struct.Struct("<8sIIII")


@dataclass(frozen=True)
class PreviousTree:
    """The log before this segment: ``size`` frames, their ``frontier`` (32-byte hashes, largest
    subtree first), and the chain ``headers`` over the ``segments`` that hold them."""

    size: int
    frontier: tuple[bytes, ...]
    segments: int
    headers: bytes


@dataclass(frozen=True)
class SegmentHeader:
    """A segment's header; ``kinds`` maps kind numbers to names, ``block`` is its written form."""

    log_id: str
    run_id: bytes
    first_seq: int
    created: int
    lamport: int
    kinds: Mapping[int, str]
    columns: Mapping[str, tuple[tuple[str, str], ...]]
    fingerprint: Mapping[str, Any]
    previous: PreviousTree
    block: bytes = field(repr=False)

    @property
    def size(self) -> int:
        """Bytes of the block: the offset of the first frame."""
        return len(self.block)


def header_prefix(
    log_id: str,
    run_id: bytes,
    kinds: Iterable[EventKind],
    fingerprint: Mapping[str, Any],
    signer: str,
) -> bytes:
    """The part of a header that is known before its segment begins: JSON without its last brace.

    Raises ``JournalError`` when the fingerprint cannot be written as JSON.
    """
    body = {
        "log_id": log_id,
        "run_id": run_id.hex(),
        "signer": signer,
        "keys": {},
        "kinds": {
            kind.name: {"number": kind.number, "columns": [list(c) for c in kind.columns]}
            for kind in kinds
        },
        "fingerprint": fingerprint,
    }
    try:
        text = json.dumps(body, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise JournalError(
            f"the environment's fingerprint is no JSON: {error}",
            what="fingerprint",
            expected="strings, finite numbers, booleans, None, lists and dicts with string keys",
            remedy="give the values in their written form",
        ) from error
    return (text[:-1] + ",").encode()


def read_header(path: Path) -> SegmentHeader:
    """Read a segment's header.

    Raises ``JournalFormatError`` when the file is no segment or of a newer format, and
    ``JournalDamaged`` when the header was altered or cut.
    """
    with open(path, "rb") as file:
        head = file.read(_HEAD.size)
        if head[:8] != MAGIC:
            raise JournalFormatError(
                f"{path} is not a journal segment",
                what=str(path),
                expected=f"a file that begins with {MAGIC.decode()}",
                remedy="remove the file from the journal's directory",
            )
        if len(head) < _HEAD.size:
            raise _damaged(path, "is cut")
        _, version, length, crc, zero = _HEAD.unpack(head)
        if version > FORMAT_VERSION or version < 1:
            raise JournalFormatError(
                f"{path} has journal format version {version}; this program reads version "
                f"{FORMAT_VERSION}",
                what=f"format version {version}",
                expected=f"format version {FORMAT_VERSION}",
                remedy="read it with the release that wrote it, or a newer one",
            )
        if length > MAX_BODY or length % 8 or zero:
            raise _damaged(path, f"announces an impossible length of {length} bytes")
        body = file.read(length)
    if len(body) < length:
        raise _damaged(path, "is cut")
    if crc32c(body) != crc:
        raise _damaged(path, "fails its checksum")
    try:
        header = _parse(head + body, json.loads(body))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, f"does not hold what it should ({error!r})") from error
    named = int(path.name.partition(".")[0]) if path.name[:20].isdigit() else -1
    if named != header.first_seq:
        raise _damaged(path, f"says that the first frame is {header.first_seq}, unlike the name")
    return header


def _parse(block: bytes, body: dict[str, Any]) -> SegmentHeader:
    previous = body["previous"]
    return SegmentHeader(
        log_id=str(body["log_id"]),
        run_id=bytes.fromhex(body["run_id"]),
        first_seq=int(body["first_seq"]),
        created=int(body["created"]),
        lamport=int(body["lamport"]),
        kinds={int(kind["number"]): str(name) for name, kind in body["kinds"].items()},
        columns={
            str(name): tuple((str(a), str(b)) for a, b in kind["columns"])
            for name, kind in body["kinds"].items()
        },
        fingerprint=dict(body["fingerprint"]),
        previous=PreviousTree(
            size=int(previous["size"]),
            frontier=tuple(bytes.fromhex(value) for value in previous["frontier"]),
            segments=int(previous["segments"]),
            headers=bytes.fromhex(previous["headers"]),
        ),
        block=block,
    )


def _damaged(path: Path, reason: str) -> JournalDamaged:
    return JournalDamaged(
        f"the header of {path} {reason}",
        what=os.fspath(path),
        expected="a header as it was written",
        remedy="restore the file from a copy; `srds verify` shows what else is damaged",
        segment=path.name,
        offset=0,
    )
