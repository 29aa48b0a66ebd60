"""The hashes of a Merkle tree.

Follows RFC 6962 section 2.1 with SHA-256. A leaf and an inner node are hashed under different
prefixes, so that neither can be passed off as the other.
"""

from __future__ import annotations

from hashlib import sha256

from enclave.errors import ProofInvalid

__all__ = ["EMPTY_ROOT", "HASH_SIZE", "leaf_hash", "node_hash"]

HASH_SIZE = 32
"""Bytes in a hash of the tree."""

EMPTY_ROOT = sha256(b"").digest()
"""The root of the tree that has no leaves."""


def leaf_hash(entry: bytes) -> bytes:
    """The hash of a leaf that holds ``entry`` (any length): ``SHA-256(0x00 || entry)``.

    >>> leaf_hash(b"").hex()[:16]
    '6e340b9cffb37a98'
    """
    return sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of the node over two subtrees of 32 bytes: ``SHA-256(0x01 || left || right)``."""
    return sha256(b"\x01" + left + right).digest()


def require_hash(value: bytes, what: str) -> None:
    """Raise ``ProofInvalid`` unless ``value`` is the 32 bytes that ``what`` has to be."""
    if len(value) != HASH_SIZE:
        raise ProofInvalid(
            f"{what} has {len(value)} bytes, not {HASH_SIZE}",
            what=what,
            expected=f"a SHA-256 hash of {HASH_SIZE} bytes",
            remedy="take it unchanged from the log or from the signed checkpoint",
        )
