"""The enclave's errors. Each says what was wrong, what was expected and what to do about it.

No message ever holds a private key, a seed or any other secret: a key is named by its name and id.
"""

from __future__ import annotations

__all__ = [
    "AccessDenied",
    "EnclaveError",
    "KeyFileDamaged",
    "KeyFileError",
    "KeyFileUnsafe",
    "KeyInvalid",
    "KeyNotFound",
    "NoteInvalid",
    "ProofInvalid",
    "SignatureInvalid",
    "SignerNotTrusted",
]


class EnclaveError(Exception):
    """Root of the enclave's errors: ``what`` was wrong, what was ``expected``, the ``remedy``."""

    def __init__(
        self, message: str, *, what: str = "", expected: str = "", remedy: str = ""
    ) -> None:
        super().__init__(message)
        self.what = what
        self.expected = expected
        self.remedy = remedy


class ProofInvalid(EnclaveError):
    """A Merkle proof does not show what it claims, or was asked for something that no tree has."""


class NoteInvalid(EnclaveError):
    """Bytes are no signed note, or a note's text is no checkpoint."""


class SignatureInvalid(EnclaveError):
    """What claims to be signed by a known key is not: text or signature was altered."""


class SignerNotTrusted(EnclaveError):
    """None of a note's signatures is by a key that the reader trusts."""


class KeyInvalid(EnclaveError):
    """A key, its name or its written form breaks the rules of the signed-note specification."""


class KeyFileError(EnclaveError):
    """A key file cannot be used; the subclasses say why."""


class KeyNotFound(KeyFileError):
    """There is no key file of that label."""


class KeyFileUnsafe(KeyFileError):
    """A key file or its directory is open to other users, or belongs to one."""


class KeyFileDamaged(KeyFileError):
    """A key file does not hold what a key file holds: truncated, altered, or never one."""


class AccessDenied(EnclaveError):
    """A principal may not do what it asked for; ``what`` names the three, ``expected`` the rule."""
