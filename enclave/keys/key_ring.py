"""The public keys that a reader trusts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from enclave.errors import KeyFileDamaged, KeyInvalid
from enclave.keys.key_file import read_key_file, require_folder
from enclave.keys.verify_key import VerifyKey

__all__ = ["KeyRing"]

SUFFIX = ".vkey"


class KeyRing:
    """An unchanging collection of trusted ``VerifyKey``, each found by its name and id.

    Raises ``KeyInvalid`` when two different keys share both: a signature line could mean either.

    >>> from enclave.keys import SigningKey
    >>> key = SigningKey.generate("example.org/log").public
    >>> ring = KeyRing([key])
    >>> ring.find(key.name, key.key_id) == key, len(ring)
    (True, 1)
    """

    __slots__ = ("_keys",)

    def __init__(self, keys: Iterable[VerifyKey] = ()) -> None:
        self._keys: dict[tuple[str, int], VerifyKey] = {}
        for key in keys:
            if self._keys.setdefault((key.name, key.key_id), key) != key:
                raise KeyInvalid(
                    f"two different keys are both {key.name}+{key.key_id:08x}",
                    what=f"{key.name}+{key.key_id:08x}",
                    expected="one key for each name and id",
                    remedy="find out which of the two is genuine and remove the other",
                )

    @classmethod
    def parse(cls, text: str) -> KeyRing:
        """Read verifier key lines; empty lines and those that begin with ``#`` are skipped.

        Raises ``KeyInvalid`` and names the line that is none.
        """
        lines = (line.strip() for line in text.splitlines())
        return cls(VerifyKey.parse(line) for line in lines if line and not line.startswith("#"))

    @classmethod
    def load(cls, folder: Path) -> KeyRing:
        """All keys in the ``*.vkey`` files of ``folder``.

        Raises ``KeyNotFound`` when there is no such folder, ``KeyFileUnsafe`` when another user
        could have added or changed a key, and ``KeyFileDamaged`` when a file holds anything else
        than keys.
        """
        require_folder(folder, secret=False)
        keys: list[VerifyKey] = []
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            try:
                keys.extend(cls.parse(read_key_file(path, secret=False)))
            except KeyInvalid as error:
                raise KeyFileDamaged(
                    f"{path}: {error}", what=str(path), expected=error.expected, remedy=error.remedy
                ) from error
        return cls(keys)

    def find(self, name: str, key_id: int) -> VerifyKey | None:
        """The trusted key of this name and id, or None."""
        return self._keys.get((name, key_id))

    def __iter__(self) -> Iterator[VerifyKey]:
        return iter(self._keys.values())

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, VerifyKey) and self.find(key.name, key.key_id) == key

    def __repr__(self) -> str:
        return f"KeyRing({', '.join(map(str, self))})"
