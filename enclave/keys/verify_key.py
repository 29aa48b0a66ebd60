"""The public half of a signing key, and the line of text in which it is handed on."""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from dataclasses import dataclass

from enclave.errors import KeyInvalid
from enclave.keys.names import ED25519, PUBLIC_KEY_SIZE, key_id, require_key_name

__all__ = ["VerifyKey"]


@dataclass(frozen=True)
class VerifyKey:
    """An Ed25519 public key (``raw``: 32 bytes) and the ``name`` under which it signs.

    ``str(key)`` is the line ``name+hex id+base64`` of C2SP signed-note and Go's ``sumdb/note``.
    Raises ``KeyInvalid`` when the name or the length breaks the rules.

    >>> line = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"
    >>> key = VerifyKey.parse(line)
    >>> key.name, f"{key.key_id:08x}"
    ('sum.golang.org', '033de0ae')
    """

    name: str
    raw: bytes

    def __post_init__(self) -> None:
        require_key_name(self.name)
        if len(self.raw) != PUBLIC_KEY_SIZE:
            raise KeyInvalid(
                f"the public key of {self.name} has {len(self.raw)} bytes, not {PUBLIC_KEY_SIZE}",
                what=self.name,
                expected=f"an Ed25519 public key of {PUBLIC_KEY_SIZE} bytes",
                remedy="copy the verifier key line again from its source",
            )

    @property
    def key_id(self) -> int:
        """The 32-bit id, from name and key: it tells keys apart, it does not authenticate one."""
        return key_id(self.name, self.raw)

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether ``signature`` (64 bytes) is one of ``message`` by this key."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True

    @classmethod
    def parse(cls, line: str) -> VerifyKey:
        """Read a verifier key line; raises ``KeyInvalid`` when it is none or has a wrong id."""
        name, _, rest = line.partition("+")
        _, _, encoded = rest.partition("+")
        try:
            payload = b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            payload = b""
        if payload[:1] != ED25519:
            raise _not_a_key(line, "no Ed25519 key in base64 stands after the second plus")
        key = cls(name, payload[1:])
        if str(key) != line:
            raise _not_a_key(line, f"the id of this name and key is {key.key_id:08x}")
        return key

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id:08x}+{b64encode(ED25519 + self.raw).decode()}"


def _not_a_key(line: str, reason: str) -> KeyInvalid:
    # A private key pasted in the wrong place must not end up in a log file.
    shown = "a private key" if line.startswith("PRIVATE+KEY+") else repr(line[:120])
    return KeyInvalid(
        f"{shown} is no verifier key: {reason}",
        what=shown,
        expected="name+hex id+base64, as in c2sp.org/signed-note",
        remedy="copy the line again from its source",
    )
