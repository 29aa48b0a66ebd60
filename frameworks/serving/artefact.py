"""The content-addressed store of model artefacts: ``objects/ab/cdef…``, as in Git's.

The name of an artefact is the SHA-256 of its bytes, so it is checked whenever it is read. Who
vouches for it stands beside it in ``objects/ab/cdef….sig``: lines of ``name+key id`` and an Ed25519
signature over the format and the digest. A signature is what allows a loader to build types that
could run code; the digest alone only says that the bytes are the ones that were asked for.
"""

from __future__ import annotations

import binascii
import contextlib
import hashlib
import os
import re
import secrets
from base64 import b64decode, b64encode
from pathlib import Path
from typing import TYPE_CHECKING

from frameworks.serving.errors import ArtefactCorrupt, ArtefactMissing, ArtefactRefused

if TYPE_CHECKING:
    from enclave.keys import KeyRing, SigningKey

__all__ = ["ArtefactStore"]

_DIGEST = re.compile(r"[0-9a-f]{64}")
_SIGNATURE_LINE = re.compile(r"(?P<name>\S+)\+(?P<id>[0-9a-f]{8}) (?P<signature>[A-Za-z0-9+/=]+)")


class ArtefactStore:
    """The artefacts under one directory, which is made when the first one is stored.

    Several threads and processes may store at once: a file appears whole or not at all.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     store = ArtefactStore(Path(folder) / "objects")
    ...     store.read(store.write(b"weights"))
    b'weights'
    """

    def __init__(self, directory: Path | str) -> None:
        self.directory = Path(directory)

    def path(self, digest: str) -> Path:
        """Where the artefact of this digest is kept; raises ``ArtefactMissing`` for no digest."""
        if not _DIGEST.fullmatch(digest):
            raise ArtefactMissing(
                f"{digest[:80]!r} is no digest",
                what=digest[:80],
                expected="64 lower-case hex digits",
                remedy="take the digest from the model's description",
            )
        return self.directory / digest[:2] / digest[2:]

    def __contains__(self, digest: str) -> bool:
        return self.path(digest).is_file()

    def write(self, data: bytes) -> str:
        """Store ``data`` durably and return its digest; storing it again changes nothing."""
        digest = hashlib.sha256(data).hexdigest()
        path = self.path(digest)
        if not self._holds(path, digest):
            _replace(path, data)
        return digest

    def read(self, digest: str) -> bytes:
        """The bytes of this digest.

        Raises ``ArtefactMissing`` when there are none and ``ArtefactCorrupt`` when they do not
        have it.
        """
        path = self.path(digest)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise ArtefactMissing(
                f"there is no artefact {digest} in {self.directory}",
                what=digest,
                expected=str(path),
                remedy="copy the file from the store where the model was registered, "
                "or train and register the model again",
            ) from None
        found = hashlib.sha256(data).hexdigest()
        if found != digest:
            raise ArtefactCorrupt(
                f"the artefact {digest} in {self.directory} is damaged: its bytes have the digest "
                f"{found}",
                what=digest,
                expected=f"bytes whose SHA-256 is {digest}",
                remedy=f"restore {path} from a copy, or train and register the model again",
            )
        return data

    def sign(self, digest: str, model_format: str, key: SigningKey) -> None:
        """Add the signature of ``key`` over this artefact, which is read and checked first."""
        self.read(digest)
        signature = b64encode(key.sign(_statement(digest, model_format))).decode()
        line = f"{key.name}+{key.key_id:08x} {signature}"
        path = self._signatures(digest)
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        if line not in lines:
            _replace(path, "".join(f"{known}\n" for known in [*lines, line]).encode())

    def signer(self, digest: str, model_format: str, trusted: KeyRing) -> str | None:
        """The name of a trusted key that signed this artefact, or None when none did.

        Signatures by unknown keys are passed over. Raises ``ArtefactCorrupt`` when the file of
        signatures holds anything else, or a trusted key's signature is not over this artefact.
        """
        path = self._signatures(digest)
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except UnicodeDecodeError:
            raise _bad_signature(path, digest, "it is no text") from None
        for line in text.splitlines():
            match = _SIGNATURE_LINE.fullmatch(line)
            if match is None:
                raise _bad_signature(path, digest, "a line is no signature")
            key = trusted.find(match["name"], int(match["id"], 16))
            if key is None:
                continue
            try:
                signature = b64decode(match["signature"], validate=True)
            except binascii.Error:
                raise _bad_signature(path, digest, f"that of {key.name} is no base64") from None
            if not key.verifies(signature, _statement(digest, model_format)):
                raise _bad_signature(path, digest, f"that of {key.name} is over something else")
            return key.name
        return None

    def require_signer(
        self, digest: str, model_format: str, trusted: KeyRing | None, reason: str
    ) -> str:
        """The name of a trusted key that signed; raises ``ArtefactRefused`` when there is none.

        ``reason`` says why one is needed.
        """
        signer = None if trusted is None else self.signer(digest, model_format, trusted)
        if signer is None:
            raise ArtefactRefused(
                f"the {model_format} artefact {digest} is not loaded: {reason}, "
                "and no trusted key has signed it",
                what=digest,
                expected="a signature by a trusted key",
                remedy="trust the public key of whoever registered it, "
                "or register the model again in this store",
            )
        return signer

    def _signatures(self, digest: str) -> Path:
        path = self.path(digest)
        return path.with_name(f"{path.name}.sig")

    @staticmethod
    def _holds(path: Path, digest: str) -> bool:
        try:
            return hashlib.sha256(path.read_bytes()).hexdigest() == digest
        except FileNotFoundError:
            return False


def _statement(digest: str, model_format: str) -> bytes:
    # The format is signed too: bytes that are harmless to one loader may be code to another.
    return f"srds model artefact v1\n{model_format}\n{digest}\n".encode()


def _bad_signature(path: Path, digest: str, reason: str) -> ArtefactCorrupt:
    return ArtefactCorrupt(
        f"the signature of artefact {digest} does not hold: {reason}",
        what=str(path),
        expected="lines of name+key id and a signature over this artefact",
        remedy="restore the file from a copy, or register the model again",
    )


def _replace(path: Path, data: bytes) -> None:
    """Write a file so that a reader, or a crash, meets it whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
