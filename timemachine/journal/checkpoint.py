"""Signed heads of a log's tree: how one is made, kept and read.

A checkpoint is a C2SP signed note (``enclave.transparency``) of the origin
``srds/journal/<log id>``. One extension line, ``headers <count> <base64>``, signs the chain over
the headers of the segments that hold the frames: kinds, environment and run of a segment are no
leaves, and must not be open to change either.
"""

from __future__ import annotations

import binascii
import os
from base64 import b64decode, b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from enclave.errors import EnclaveError, NoteInvalid
from enclave.keys import SigningKey, VerifyKey
from enclave.transparency import Checkpoint, open_checkpoint, sign_checkpoint

__all__ = ["SignedHead", "log_origin", "open_head", "save_head", "sign_head", "stored_head"]

NAME = "checkpoint"


@dataclass(frozen=True)
class SignedHead:
    """The head of a log of ``size`` frames: its ``root``, and the chain ``headers`` over the
    headers of the ``segments`` that hold them."""

    size: int
    root: bytes
    segments: int
    headers: bytes


def log_origin(log_id: str) -> str:
    """The origin line of a log's checkpoints."""
    return f"srds/journal/{log_id}"


def sign_head(key: SigningKey, log_id: str, head: SignedHead) -> bytes:
    """The signed note over a head."""
    extension = f"headers {head.segments} {b64encode(head.headers).decode()}"
    return sign_checkpoint(Checkpoint(log_origin(log_id), head.size, head.root, (extension,)), key)


def open_head(note: bytes, trusted: Iterable[VerifyKey], log_id: str) -> SignedHead:
    """The head in a note, its signature verified; raises an ``EnclaveError`` that says why not."""
    checkpoint = open_checkpoint(note, trusted, origin=log_origin(log_id))
    try:
        (extension,) = checkpoint.extensions
        word, count, encoded = extension.split(" ")
        headers = b64decode(encoded, validate=True)
        if word != "headers" or len(headers) != 32:
            raise ValueError(word)
        return SignedHead(checkpoint.size, checkpoint.root, int(count), headers)
    except (ValueError, binascii.Error) as error:
        raise NoteInvalid(
            "the checkpoint has no line for the segment headers",
            what=log_origin(log_id),
            expected="one extension line: headers, count, base64",
            remedy="use the checkpoint that the journal wrote",
        ) from error


def save_head(directory: Path, note: bytes) -> None:
    """Replace a log's ``checkpoint`` file, durably and at once."""
    unfinished = directory / f"{NAME}.new"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    file = os.open(unfinished, flags, 0o600)
    try:
        os.write(file, note)
        os.fsync(file)
    finally:
        os.close(file)
    os.rename(unfinished, directory / NAME)
    folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def stored_head(
    directory: Path, trusted: Iterable[VerifyKey], log_id: str
) -> tuple[SignedHead | None, EnclaveError | None]:
    """The head in a log's ``checkpoint`` file, or why it cannot be trusted; both None: no file."""
    try:
        note = (directory / NAME).read_bytes()
    except FileNotFoundError:
        return None, None
    try:
        return open_head(note, trusted, log_id), None
    except EnclaveError as error:
        return None, error
