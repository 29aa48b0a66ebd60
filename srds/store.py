"""The store: one directory that holds everything an app leaves behind.

``store.json`` says that it is one and of which format; ``journal/`` is the truth; ``ground.db`` the
catalogue; ``objects/`` models and large values by their digest; ``keys/`` the keys. The directory
is its owner's alone (mode 0700).
"""

from __future__ import annotations

import json
import os
import pwd
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from srds.errors import StoreError

if TYPE_CHECKING:
    from enclave.keys import KeyRing, SigningKey
    from frameworks.serving.artefact import ArtefactStore
    from ground import Ground
    from timemachine.journal import Reader

__all__ = ["FORMAT", "Store", "default_path"]

FORMAT = 1
_MARK = "store.json"
_ID = re.compile(r"[0-9a-f]{16}")


def default_path() -> Path:
    """``$SRDS_STORE``, or ``.srds`` in the working directory."""
    return Path(os.environ.get("SRDS_STORE") or ".srds")


@dataclass(frozen=True)
class Store:
    """A store's directory and its id (16 hexadecimal digits, drawn when it was made)."""

    path: Path
    id: str

    @classmethod
    def open(cls, path: str | os.PathLike[str] | None = None) -> Store:
        """The store at ``path`` (default: ``default_path()``).

        Raises ``StoreError`` when there is none, or it is of a newer format, or unreadable.
        """
        path = Path(path) if path is not None else default_path()
        try:
            text = (path / _MARK).read_text()
        except FileNotFoundError:
            raise StoreError(
                f"there is no store at {path}",
                what=str(path),
                expected=f"a directory with {_MARK}",
                remedy="make one with srds demo, or name another with --store or $SRDS_STORE",
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise StoreError(
                f"the store at {path} cannot be read: {error}",
                what=str(path / _MARK),
                expected="a file that this user may read",
                remedy="run as the user who made the store",
            ) from error
        return cls(path, _checked_id(path, text))

    @classmethod
    def make(cls, path: str | os.PathLike[str] | None = None) -> Store:
        """The store at ``path``, made there if there is none.

        Raises ``StoreError`` when the directory holds something else, or cannot be written.
        """
        path = Path(path) if path is not None else default_path()
        if (path / _MARK).exists():
            return cls.open(path)
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Another process may be making the same store: its drafts are no foreign files.
            foreign = any(not one.name.startswith(f".{_MARK}.") for one in path.iterdir())
            if foreign and not (path / _MARK).exists():
                raise StoreError(
                    f"{path} is not empty, and no store",
                    what=str(path),
                    expected="an empty or missing directory, or a store",
                    remedy="name another directory",
                )
            mark = path / _MARK
            draft = path / f".{_MARK}.{secrets.token_hex(4)}"
            draft.write_text(json.dumps({"format": FORMAT, "id": secrets.token_hex(8)}) + "\n")
            try:
                os.link(draft, mark)  # fails where another process was first
            except FileExistsError:
                pass
            finally:
                draft.unlink()
        except OSError as error:
            raise StoreError(
                f"no store can be made at {path}: {error.strerror}",
                what=str(path),
                expected="a directory that this user may write to",
                remedy="name another directory with --store or $SRDS_STORE",
            ) from error
        return cls.open(path)

    @property
    def journal(self) -> Path:
        """The directory of the logs."""
        return self.path / "journal"

    @property
    def ground(self) -> Path:
        """The catalogue's database."""
        return self.path / "ground.db"

    @property
    def keys(self) -> Path:
        """The directory of the keys."""
        return self.path / "keys"

    def artefacts(self) -> ArtefactStore:
        """Models and other large objects, by digest."""
        from frameworks.serving.artefact import ArtefactStore

        return ArtefactStore(self.path / "objects")

    def reader(self) -> Reader:
        """A reader of the whole journal."""
        from timemachine.journal import Reader

        return Reader(self.journal)

    def catalogue(self, append: Callable[[int, bytes], object] | None = None) -> Ground:
        """The catalogue, for the user who runs the program; only to be read without ``append``,
        which journals each change."""
        from enclave.authority import Principal
        from ground import Ground

        return Ground.open(self.ground, append=append, principal=Principal(_user()))

    def signing_key(self) -> SigningKey:
        """The key that signs the journal's tree heads and the models; made on first use."""
        from enclave.keys import KeyDirectory

        return KeyDirectory(self.keys).load_or_create("journal", f"srds/{self.id}")

    def trusted(self) -> KeyRing:
        """The keys whose signatures this store's user trusts: its own and those in ``trusted/``."""
        from enclave.keys import KeyDirectory

        return KeyDirectory(self.keys).ring()


def _user() -> str:
    """Who runs the program, by the system's own word: ``$USER`` is anybody's."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a uid without an entry, as in containers
        return f"uid:{os.getuid()}"


def _checked_id(path: Path, text: str) -> str:
    try:
        mark = json.loads(text)
        version, identity = mark["format"], mark.get("id")
        if type(version) is not int or version < 1:
            raise TypeError("format is no number from 1")
        # What else a newer format says, and how, is not for this version to judge.
        if version <= FORMAT and not (isinstance(identity, str) and _ID.fullmatch(identity)):
            raise TypeError("id is not 16 hexadecimal digits")
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{path / _MARK} does not describe a store: {error}",
            what=str(path / _MARK),
            expected='{"format": 1, "id": "..."}',
            remedy="name the right directory with --store; a damaged mark can be written anew",
        ) from error
    if version > FORMAT:
        raise StoreError(
            f"the store at {path} has format {version}; this program knows up to {FORMAT}",
            what=f"format {version}",
            expected=f"at most {FORMAT}",
            remedy="use the version of srds that wrote it, or a newer one",
        )
    return str(identity)
