"""What the object store raises: each error says who asked for what, and what would help."""

from __future__ import annotations

import errno
import os

from microkernel.errors import KernelClosed, KernelError, ObjectLost, ObjectStoreFull

__all__ = [
    "closed",
    "failed",
    "forked",
    "gone",
    "no_room",
    "no_room_to_restore",
    "not_restorable",
    "not_sealed",
    "not_writable",
    "too_large",
    "wrong_capacity",
    "wrong_folder",
    "wrong_patience",
    "wrong_station",
]


def wrong_capacity(capacity: object) -> KernelError:
    return KernelError(
        f"an object arena of {capacity!r} bytes",
        what="object_memory",
        expected="a number of bytes up to 2**46; 0: 30 % of the memory",
        remedy="leave it out",
    )


def wrong_patience(patience: float) -> KernelError:
    return KernelError(
        f"a patience of {patience} s",
        what="patience",
        expected="0 or more seconds, less than 1e9",
        remedy="leave it out",
    )


def wrong_folder(folder: str) -> KernelError:
    return KernelError(
        f"nothing can be spilled to {folder!r}",
        what="spill_folder",
        expected="a folder that can be written to",
        remedy="make the folder, or name another",
    )


def wrong_station(station: int, expected: str) -> KernelError:
    return KernelError(
        f"station {station} cannot be that",
        what="station",
        expected=expected,
        remedy="0 is the process that made the arena, 1 to 63 are the others",
    )


def failed(error: int) -> KernelError:
    """The error of an errno that no caller knows better."""
    if error == errno.ENOSYS:
        return KernelError(
            "objects in shared memory need Linux",
            what="placement='process'",
            expected="Linux 5.0 or later with memfd_create",
            remedy="use placement='thread' or 'inline' on this system",
        )
    if error in (errno.EINVAL, errno.EBADF):
        return KernelError(
            "this is no object arena",
            what="file descriptor",
            expected="the fd of an ObjectStore",
            remedy="hand it on unchanged",
        )
    return KernelError(
        f"the object arena failed: {os.strerror(error)}",
        what=os.strerror(error),
        expected="memory to map",
        remedy="lower object_memory, or see the limits of this process (ulimit -v)",
    )


def closed() -> KernelClosed:
    return KernelClosed(
        "the object arena is closed",
        what="ObjectStore",
        expected="an open kernel",
        remedy="use objects before closing it",
    )


def forked() -> KernelClosed:
    return KernelClosed(
        "the object arena is that of the process this one was forked from",
        what="ObjectStore",
        expected="the process that opened it",
        remedy="open a kernel of its own in the child",
    )


def too_large(n: int, capacity: int) -> ObjectStoreFull:
    return ObjectStoreFull(
        f"an object of {n:,} bytes is more than all object memory",
        what=f"{n:,} bytes",
        expected=f"at most {capacity:,}",
        remedy="raise object_memory, or make the object in parts",
    )


def no_room(n: int, seconds: float, situation: str) -> ObjectStoreFull:
    return ObjectStoreFull(
        f"no room for an object of {n:,} bytes within {seconds:.1f} s: {situation}",
        what=f"{n:,} bytes",
        expected="room in the object memory",
        remedy="drop references and arrays that are no longer needed, raise object_memory, or name "
        "a spill_folder",
    )


def no_room_to_restore(n: int, situation: str) -> ObjectStoreFull:
    return ObjectStoreFull(
        f"no room to bring an object of {n:,} bytes back from disk: {situation}",
        what=f"{n:,} bytes",
        expected="room in the object memory",
        remedy="drop references and arrays that are no longer needed, or raise object_memory",
    )


def not_restorable(n: int, error: int) -> ObjectLost:
    return ObjectLost(
        f"an object of {n:,} bytes cannot be read back from disk: {os.strerror(error)}",
        what=f"{n:,} bytes",
        expected="a disk that can be read",
        remedy="check the disk",
    )


def gone(handle: int) -> ObjectLost:
    return ObjectLost(
        f"object {handle:#x} is gone",
        what=f"{handle:#x}",
        expected="an object that a process still holds",
        remedy="keep a reference to it until it is taken over",
    )


def not_sealed(handle: int) -> KernelError:
    return KernelError(
        f"object {handle:#x} is still being written",
        what=f"{handle:#x}",
        expected="a sealed object",
        remedy="seal it before sending it",
    )


def not_writable(block: object, at: int, n: int) -> KernelError:
    return KernelError(
        f"{n:,} bytes cannot be written at {at:,} of {block!r}",
        what="write",
        expected="a place within an object that is not sealed",
        remedy="allocate another object",
    )
