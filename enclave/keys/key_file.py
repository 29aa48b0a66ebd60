"""Reading and creating one key file under the rules that keep it one user's.

As OpenSSH does with private keys: a file that others could have read is refused instead of used,
because its secret may be out already. The checks are made on the opened descriptor, not on the
path, so that nothing can be swapped in between.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from enclave.errors import KeyFileDamaged, KeyFileError, KeyFileUnsafe, KeyNotFound

__all__ = ["create_key_file", "read_key_file", "require_folder"]

MAX_BYTES = 1_000_000

_OTHERS = 0o077
_OTHERS_WRITE = 0o022


def read_key_file(path: Path, *, secret: bool) -> str:
    """The text of a key file.

    A ``secret`` file must be this user's and closed to all others; a public one may be read by
    others and may belong to root, but only its owner may write it. Raises ``KeyNotFound``,
    ``KeyFileUnsafe``, ``KeyFileDamaged`` or, when the system refuses, ``KeyFileError``.
    """
    try:
        # O_NONBLOCK: a FIFO put in the place of the file must not hang the opening.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise KeyNotFound(
            f"there is no key file {path}",
            what=str(path),
            expected="an existing key file",
            remedy="create the key first, or name the right directory",
        ) from None
    except OSError as error:
        raise _refused(path, error) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _unsafe(path, "is not a regular file", "put a key file there")
        _require_owner(path, status, or_root=not secret)
        _require_closed(path, status, secret=secret, mode="600" if secret else "644")
        with open(descriptor, "rb", closefd=False) as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise _refused(path, error) from error
    finally:
        os.close(descriptor)
    try:
        if len(data) > MAX_BYTES:
            raise ValueError
        return data.decode("ascii" if secret else "utf-8")
    except ValueError:
        raise KeyFileDamaged(
            f"{path} is no key file: it is not a short text",
            what=str(path),
            expected=f"text of at most {MAX_BYTES} bytes",
            remedy="restore the file from a copy",
        ) from None


def create_key_file(path: Path, text: str, *, secret: bool) -> bool:
    """Create ``path`` whole and synced, or leave it as it is: False when there was one already.

    Of several processes that create the same file, exactly one gets True; none ever sees a part
    of it. Raises ``KeyFileError`` when the system refuses.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(draft, flags, 0o600 if secret else 0o644)
        try:
            with open(descriptor, "wb") as file:
                file.write(text.encode())
                file.flush()
                os.fsync(descriptor)
            # A link, unlike a rename, never replaces the file of whoever was quicker.
            os.link(draft, path)
        except FileExistsError:
            return False
        finally:
            os.unlink(draft)
        _sync_folder(path.parent)
    except OSError as error:
        raise _refused(path, error) from error
    return True


def require_folder(folder: Path, *, secret: bool, create: bool = False) -> None:
    """Check who may use ``folder``; ``create`` makes it, with mode 0700, when it is missing.

    A ``secret`` folder must be this user's and closed to all others; one of public keys may be
    read by others and may belong to root, but only its owner may write it. Raises
    ``KeyNotFound`` when it is missing, ``KeyFileUnsafe`` or ``KeyFileError``.
    """
    try:
        if create:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = os.lstat(folder)
    except FileNotFoundError:
        raise KeyNotFound(
            f"there is no key directory {folder}",
            what=str(folder),
            expected="an existing key directory",
            remedy="create a key first, or name the right directory",
        ) from None
    except FileExistsError:
        raise _no_directory(folder) from None
    except OSError as error:
        raise _refused(folder, error) from error
    if not stat.S_ISDIR(status.st_mode):
        raise _no_directory(folder)
    _require_owner(folder, status, or_root=not secret)
    _require_closed(folder, status, secret=secret, mode="700" if secret else "755")


def _no_directory(folder: Path) -> KeyFileUnsafe:
    return _unsafe(folder, "is not a directory", "name a directory, not a link or a file")


def _require_closed(path: Path, status: os.stat_result, *, secret: bool, mode: str) -> None:
    if status.st_mode & (_OTHERS if secret else _OTHERS_WRITE):
        raise _unsafe(
            path,
            f"has mode {stat.S_IMODE(status.st_mode):03o}, which lets other users "
            + ("use it" if secret else "change it"),
            f"chmod {mode} it after making sure that nobody did; if in doubt, make a new key",
        )


def _require_owner(path: Path, status: os.stat_result, *, or_root: bool) -> None:
    user = os.geteuid()
    if status.st_uid != user and not (or_root and status.st_uid == 0):
        raise _unsafe(
            path,
            f"belongs to user {status.st_uid}, and this process runs as user {user}",
            "run as the owner of the key, or make a key of your own",
        )


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unsafe(path: Path, reason: str, remedy: str) -> KeyFileUnsafe:
    return KeyFileUnsafe(
        f"{path} {reason}",
        what=str(path),
        expected="secrets in files of mode 600 in a directory of mode 700, both this user's",
        remedy=remedy,
    )


def _refused(path: Path, error: OSError) -> KeyFileError:
    return KeyFileError(
        f"{path} cannot be used: {error.strerror or error}",
        what=str(path),
        expected="a place that this user can read and write, that has hard links, and no link",
        remedy="check the path and the rights on it",
    )
