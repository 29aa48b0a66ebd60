"""An Ed25519 key that signs, and never shows itself.

Its written form is the one of Go's ``sumdb/note`` (``PRIVATE+KEY+name+hex id+base64``): one line
that other tools read, and whose id is derived from the public half, so that an altered line is
noticed.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from typing import TYPE_CHECKING, NoReturn

from enclave.errors import KeyInvalid
from enclave.keys.names import ED25519, PUBLIC_KEY_SIZE, require_key_name
from enclave.keys.verify_key import VerifyKey

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = ["SigningKey"]

_PREFIX = "PRIVATE+KEY+"


class SigningKey:
    """A private Ed25519 key under a name; made by ``generate`` or by a ``KeyDirectory``.

    It is not printed, compared by value, pickled or copied. May be used from several threads.

    >>> key = SigningKey.generate("example.org/log")
    >>> key.public.verifies(key.sign(b"message"), b"message")
    True
    """

    __slots__ = ("_private", "_public")

    def __init__(self, name: str, private: Ed25519PrivateKey) -> None:
        self._private = private
        self._public = VerifyKey(name, private.public_key().public_bytes_raw())

    @classmethod
    def generate(cls, name: str) -> SigningKey:
        """A new key from the system's randomness; raises ``KeyInvalid`` for a bad name."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        require_key_name(name)
        return cls(name, Ed25519PrivateKey.generate())

    @classmethod
    def parse(cls, line: str) -> SigningKey:
        """Read the written form; raises ``KeyInvalid``, which never quotes it, if it is none."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        name, _, rest = line.removeprefix(_PREFIX).partition("+")
        _, _, encoded = rest.partition("+")
        try:
            payload = b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            payload = b""
        if len(payload) != 1 + PUBLIC_KEY_SIZE or payload[:1] != ED25519:
            raise _not_a_key("it does not hold an Ed25519 key")
        key = cls(name, Ed25519PrivateKey.from_private_bytes(payload[1:]))
        if key._written() != line:
            raise _not_a_key("its id does not belong to its name and key")
        return key

    @property
    def name(self) -> str:
        """The name under which the key signs."""
        return self._public.name

    @property
    def key_id(self) -> int:
        """The 32-bit id of the public half."""
        return self._public.key_id

    @property
    def public(self) -> VerifyKey:
        """The public half: what a reader needs to verify."""
        return self._public

    def sign(self, message: bytes) -> bytes:
        """The signature (64 bytes, RFC 8032) of ``message``: always the same for the same."""
        return self._private.sign(message)

    def _written(self) -> str:
        """The secret line that a key file holds; it goes nowhere else."""
        payload = ED25519 + self._private.private_bytes_raw()
        return f"{_PREFIX}{self.name}+{self.key_id:08x}+{b64encode(payload).decode()}"

    def __repr__(self) -> str:
        return f"SigningKey({self.name!r}, key_id={self.key_id:08x})"

    def __reduce__(self) -> NoReturn:
        raise KeyInvalid(
            f"the private key {self.name} is not to be copied or pickled",
            what=self.name,
            expected="the key used where it was loaded",
            remedy="pass the public half, or load the key from its directory there",
        )


def _not_a_key(reason: str) -> KeyInvalid:
    return KeyInvalid(
        f"not a private key line: {reason}",
        what="private key line",
        expected="PRIVATE+KEY+name+hex id+base64 on one line",
        remedy="restore the key from a copy, or make a new one and tell your readers",
    )
