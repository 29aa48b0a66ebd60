"""The writer's lock on a log's directory.

``flock`` is let go by the system when its holder dies, so no lock is ever stale. A forked child
inherits the open file and would keep the lock after its parent's death: it closes it at birth.
"""

from __future__ import annotations

import fcntl
import os
import threading
import weakref
from pathlib import Path

from timemachine.errors import JournalError, JournalLocked

__all__ = ["LogLock"]

_held: weakref.WeakSet[LogLock] = weakref.WeakSet()
_once = threading.Lock()
_watching = False


class LogLock:
    """The right to write to a log, held until ``release`` or the death of the process.

    Raises ``JournalLocked`` with the writer's process id when another writer holds it.
    """

    def __init__(self, directory: Path) -> None:
        path = directory / "lock"
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._file = os.open(path, flags, 0o600)
        except OSError as error:
            raise JournalError(
                f"{directory} cannot be opened for writing: {error.strerror}",
                what=str(path),
                expected="a directory that this user may write to",
                remedy="open the store elsewhere, or change the rights of the directory",
            ) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            pid = os.pread(self._file, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._file)
            self._file = -1
            raise JournalLocked(
                f"{directory} is being written by process {pid}",
                what=f"process {pid}",
                expected="a log without a writer",
                remedy="close that process, or write to another log",
                pid=int(pid) if pid.isdigit() else None,
            ) from error
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)
        _watch_forks()
        _held.add(self)

    def release(self) -> None:
        """Let the next writer in; to release twice does nothing."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __del__(self) -> None:
        if getattr(self, "_file", -1) >= 0:
            self.release()


def _watch_forks() -> None:
    global _watching
    with _once:
        if not _watching:
            os.register_at_fork(after_in_child=_let_go)
            _watching = True


def _let_go() -> None:
    # Closing leaves the parent's lock alone: it belongs to the open file, which the parent has too.
    for lock in list(_held):
        lock.release()
