"""Key names and key ids, as C2SP signed-note defines them (https://c2sp.org/signed-note)."""

from __future__ import annotations

from hashlib import sha256

from enclave.errors import KeyInvalid

__all__ = ["ED25519", "PUBLIC_KEY_SIZE", "is_key_name", "key_id", "require_key_name"]

ED25519 = b"\x01"
"""The signature type byte of Ed25519: it stands before the key in every written form."""

PUBLIC_KEY_SIZE = 32
"""Bytes in an Ed25519 public key, and in the seed of a private one."""


def is_key_name(name: str) -> bool:
    """Whether ``name`` may name a key: not empty, no plus, no space or control character."""
    return bool(name) and not any(
        character == "+" or character.isspace() or character < " " for character in name
    )


def require_key_name(name: str) -> None:
    """Raise ``KeyInvalid`` unless ``name`` may name a key."""
    if not is_key_name(name) or name != name.encode(errors="replace").decode():
        raise KeyInvalid(
            f"{name!r} cannot name a key",
            what=name,
            expected="a non-empty name without plus, space or control character",
            remedy="use an address without its scheme, like example.org/log",
        )


def key_id(name: str, public: bytes) -> int:
    """The 32-bit id of an Ed25519 public key (32 bytes) under a name."""
    return int.from_bytes(sha256(name.encode() + b"\n" + ED25519 + public).digest()[:4], "big")
