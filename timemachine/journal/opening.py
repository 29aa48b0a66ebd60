"""Opens a store's journal for writing: a log that nobody writes, or a new one."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from enclave.keys import SigningKey
from timemachine.errors import JournalError, JournalLocked
from timemachine.journal.journal import Journal
from timemachine.journal.log_directory import log_directories
from timemachine.journal.settings import JournalSettings

__all__ = ["open_log"]


def open_log(
    directory: str | os.PathLike[str],
    key: SigningKey,
    *,
    settings: JournalSettings | None = None,
    fingerprint: Mapping[str, Any] | None = None,
) -> Journal:
    """Open a log of the store's journal in ``directory`` for writing.

    It is the first one that no other writer has, recovered where its writer died; when all are
    taken, or there is none, a new one. ``directory`` is made when it does not exist.

    Raises ``JournalDamaged`` when that log is not as it was written, and ``JournalError`` when the
    directory cannot be written.

    >>> from tempfile import TemporaryDirectory
    >>> from enclave.keys import SigningKey
    >>> from microkernel.events import INPUT
    >>> key = SigningKey.generate("example.org/store")
    >>> with TemporaryDirectory() as store, open_log(store, key) as journal:
    ...     journal.append_event(INPUT, b"what came in")
    0
    """
    path = Path(directory)
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise JournalError(
            f"the journal {path} cannot be made: {error.strerror}",
            what=str(path),
            expected="a directory that this user may write to",
            remedy="open the store elsewhere, or change the rights of the directory",
        ) from error
    for log in log_directories(path):
        try:
            return Journal.open(log, key, settings=settings, fingerprint=fingerprint)
        except JournalLocked:
            continue
    while True:
        log = path / secrets.token_hex(16)
        try:
            return Journal.open(log, key, settings=settings, fingerprint=fingerprint)
        except JournalLocked:
            # Another process saw the new directory before we had its lock, and took it.
            continue
