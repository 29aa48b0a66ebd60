"""Checkpoints: the signed head of a log's tree.

Follows C2SP tlog-checkpoint (https://c2sp.org/tlog-checkpoint): the text of a signed note that
holds the log's origin, the number of leaves and the root. Signing both together is what makes a
proof against them mean something (see ``enclave.transparency.proofs``).
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode, b64encode
from collections.abc import Iterable
from dataclasses import dataclass

from enclave.errors import NoteInvalid
from enclave.keys.signing_key import SigningKey
from enclave.keys.verify_key import VerifyKey
from enclave.transparency.notes import SignedNote, sign_note
from enclave.transparency.tree import EMPTY_ROOT, HASH_SIZE

__all__ = ["Checkpoint", "open_checkpoint", "sign_checkpoint"]

MAX_SIZE = 2**64 - 1

_DECIMAL = re.compile(r"0|[1-9][0-9]{0,19}")


@dataclass(frozen=True)
class Checkpoint:
    """A tree's head: ``origin`` names the log, ``size`` counts its leaves, ``root`` is 32 bytes.

    ``extensions`` are further lines that are signed along; the specification advises against any.
    Raises ``NoteInvalid`` when a field cannot stand in a checkpoint.
    """

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for line in (self.origin, *self.extensions):
            if not line or "\n" in line:
                raise _invalid("an origin or extension is empty or has more than one line")
        if not 0 <= self.size <= MAX_SIZE:
            raise _invalid(f"its size {self.size} is not from 0 to 2^64 - 1")
        if len(self.root) != HASH_SIZE:
            raise _invalid(f"its root has {len(self.root)} bytes, not {HASH_SIZE}")
        if self.size == 0 and self.root != EMPTY_ROOT:
            raise _invalid("its size is 0, but its root is not that of the empty tree")

    @property
    def text(self) -> str:
        """The text of the note, with the final newline."""
        lines = (self.origin, str(self.size), b64encode(self.root).decode(), *self.extensions)
        return "".join(f"{line}\n" for line in lines)

    @classmethod
    def from_text(cls, text: str) -> Checkpoint:
        """Read the text of a note; raises ``NoteInvalid`` when it is no checkpoint."""
        lines = text.split("\n")
        if len(lines) < 4 or lines.pop() or not all(lines):
            raise _invalid("it has not at least three lines, all non-empty and ended by a newline")
        origin, size, root, *extensions = lines
        if not _DECIMAL.fullmatch(size):
            raise _invalid(f"its size {size[:24]!r} is not a decimal number without leading zeros")
        try:
            decoded = b64decode(root, validate=True)
        except (binascii.Error, ValueError):
            raise _invalid("its root is not base64") from None
        if b64encode(decoded).decode() != root:
            raise _invalid("its root is not canonical base64")
        return cls(origin, int(size), decoded, tuple(extensions))


def sign_checkpoint(checkpoint: Checkpoint, *keys: SigningKey) -> bytes:
    """The signed note over ``checkpoint``, in its written form.

    A log must sign no two checkpoints of which one does not continue the other; that is for the
    caller to keep.
    """
    return bytes(sign_note(checkpoint.text, *keys))


def open_checkpoint(data: bytes, trusted: Iterable[VerifyKey], *, origin: str) -> Checkpoint:
    """The checkpoint in a signed note, after its signature by a trusted key was verified.

    ``origin`` is the log that it must be of: a genuine checkpoint of another log is refused.
    Raises ``NoteInvalid``, ``SignatureInvalid`` or ``SignerNotTrusted``.

    >>> from enclave.keys import SigningKey
    >>> from enclave.transparency import EMPTY_ROOT
    >>> key = SigningKey.generate("example.org/log")
    >>> data = sign_checkpoint(Checkpoint("example.org/log", 0, EMPTY_ROOT), key)
    >>> open_checkpoint(data, [key.public], origin="example.org/log").size
    0
    """
    note = SignedNote.parse(data)
    note.verify(trusted)
    checkpoint = Checkpoint.from_text(note.text)
    if checkpoint.origin != origin:
        raise NoteInvalid(
            f"the checkpoint is of the log {checkpoint.origin!r}, not of {origin!r}",
            what=checkpoint.origin,
            expected=origin,
            remedy="use the checkpoint that belongs to this log",
        )
    return checkpoint


def _invalid(reason: str) -> NoteInvalid:
    return NoteInvalid(
        f"not a checkpoint: {reason}",
        what=reason,
        expected="origin, size and root lines as in c2sp.org/tlog-checkpoint",
        remedy="get the checkpoint again from the log",
    )
