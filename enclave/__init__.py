"""Protection of data and of the record: transparency, keys, authority.

The parts are imported by their own names: ``enclave.transparency``, ``enclave.keys``,
``enclave.authority``. Here stand the errors that all of them raise.
"""

from enclave.errors import (
    AccessDenied,
    EnclaveError,
    KeyFileDamaged,
    KeyFileError,
    KeyFileUnsafe,
    KeyInvalid,
    KeyNotFound,
    NoteInvalid,
    ProofInvalid,
    SignatureInvalid,
    SignerNotTrusted,
)

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
