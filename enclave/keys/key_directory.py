"""The directory that holds a store's keys.

``<label>.key`` is a private key, ``trusted/*.vkey`` are the public keys of others. They are plain
files that only the rights of the file system protect: root, and whoever runs as the same user, can
read them.
"""

from __future__ import annotations

import re
from pathlib import Path

from enclave.errors import KeyFileDamaged, KeyFileError, KeyInvalid, KeyNotFound
from enclave.keys.key_file import create_key_file, read_key_file, require_folder
from enclave.keys.key_ring import SUFFIX, KeyRing
from enclave.keys.signing_key import SigningKey
from enclave.keys.verify_key import VerifyKey

__all__ = ["KeyDirectory"]

_LABEL = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


class KeyDirectory:
    """The keys under ``path``; nothing is read or made before a method asks for it.

    Directories are made with mode 0700 and private key files with 0600. Whatever is open to
    another user, or belongs to one, is refused with ``KeyFileUnsafe``. Several processes may
    create keys at once.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     keys = KeyDirectory(Path(folder) / "keys")
    ...     made = keys.load_or_create("signing", "example.org/log")
    ...     keys.load("signing").public == made.public
    True
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    @property
    def trusted_folder(self) -> Path:
        """The folder of the public keys of others."""
        return self.path / "trusted"

    def create(self, label: str, name: str) -> SigningKey:
        """Make the key ``label``, which signs as ``name``.

        ``label`` has 1 to 64 lower-case letters, digits, dots, dashes or underlines. Raises
        ``KeyFileError`` when there is such a key already, ``KeyInvalid`` for a bad label or name.
        """
        path = self._path_of(label)
        key = self._create(path, name)
        if key is None:
            raise KeyFileError(
                f"there is a key {path} already",
                what=str(path),
                expected="a new label",
                remedy="load the key, or choose another label",
            )
        return key

    def load(self, label: str) -> SigningKey:
        """Read the key ``label``.

        Raises ``KeyNotFound``, ``KeyFileUnsafe`` when others could have read it, and
        ``KeyFileDamaged`` when the file was truncated or altered.
        """
        path = self._path_of(label)
        require_folder(self.path, secret=True)
        return self._load(path)

    def load_or_create(self, label: str, name: str) -> SigningKey:
        """Read the key ``label``, or make it; an existing key keeps the name it was made with.

        Processes that do so at once all get the same key. Raises what ``load`` and ``create`` do.
        """
        path = self._path_of(label)
        require_folder(self.path, secret=True, create=True)
        try:
            return self._load(path)
        except KeyNotFound:
            return self._create(path, name) or self._load(path)

    def trust(self, key: VerifyKey) -> None:
        """Add a public key to those that ``ring`` gives; to add it again changes nothing."""
        require_folder(self.path, secret=True, create=True)
        require_folder(self.trusted_folder, secret=False, create=True)
        # Named after the whole key: two keys may share the 32-bit id.
        path = self.trusted_folder / f"{key.key_id:08x}-{key.raw.hex()}{SUFFIX}"
        create_key_file(path, f"{key}\n", secret=False)

    def ring(self) -> KeyRing:
        """The public halves of the keys in this directory, and those in ``trusted/``.

        Raises what ``load`` and ``KeyRing.load`` do.
        """
        require_folder(self.path, secret=True)
        own = [self._load(path).public for path in sorted(self.path.glob("[!.]*.key"))]
        others = KeyRing.load(self.trusted_folder) if self.trusted_folder.exists() else ()
        return KeyRing([*own, *others])

    def _path_of(self, label: str) -> Path:
        if not _LABEL.fullmatch(label):
            raise KeyInvalid(
                f"{label!r} cannot be the label of a key file",
                what=label,
                expected="1 to 64 of a-z, 0-9, dot, dash and underline, a letter or digit first",
                remedy="choose a short plain label, like signing",
            )
        return self.path / f"{label}.key"

    def _create(self, path: Path, name: str) -> SigningKey | None:
        key = SigningKey.generate(name)
        require_folder(self.path, secret=True, create=True)
        return key if create_key_file(path, f"{key._written()}\n", secret=True) else None

    def _load(self, path: Path) -> SigningKey:
        text = read_key_file(path, secret=True)
        try:
            if not text.endswith("\n"):
                raise KeyInvalid("its line does not end", expected="one line")
            return SigningKey.parse(text[:-1])
        except KeyInvalid as error:
            raise KeyFileDamaged(
                f"{path} is damaged: {error}",
                what=str(path),
                expected=error.expected,
                remedy="restore the file from a copy, or make a new key and tell your readers",
            ) from None
