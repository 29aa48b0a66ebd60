"""Starting the processes of a kernel.

``WorkerLauncher`` is what the kernel needs: something that makes a process which takes a given
place in the control arena. ``ForkServer`` is the one that comes with it; an enclave has its own,
and its workers are workers like any other on the same rings.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import struct
import sys
from typing import Protocol

from microkernel.errors import KernelError

__all__ = ["ForkServer", "WorkerLauncher"]

STACK_BYTES = 256 << 20  # of a worker's main thread, used as far as it is needed

_SERVE = (
    "import sys; from json import loads; sys.path[:] = loads(sys.argv[2]); "
    "from microkernel.processes.fork_server import serve; serve(sys.argv[1])"
)


class WorkerLauncher(Protocol):
    """Makes the processes of a kernel."""

    def launch(self, station: int) -> int:
        """Start the process of this station and return its number.

        The process calls ``microkernel.processes.worker.work``. It is not reaped before ``reap``.
        """

    def reap(self, pid: int) -> None:
        """The kernel watches the process now, or has seen its end: forget it when it is gone."""

    def close(self) -> None:
        """Start no more; returns when all processes are gone."""


class ForkServer:
    """A process that has imported what workers need and has one thread, so that it may fork.

    ``preload`` names modules to import once for all workers. Raises ``KernelError`` from ``launch``
    when it does not come up.
    """

    def __init__(
        self,
        control: int,
        objects: int,
        preload: tuple[str, ...] = (),
        trace: tuple[int, int] = (-1, -1),
    ) -> None:
        theirs_in, self._commands = os.pipe()
        self._replies, theirs_out = os.pipe()
        self._pid = 0
        options = json.dumps(
            {"control": control, "objects": objects, "commands": theirs_in, "replies": theirs_out,
             "trace": trace, "preload": preload, "main": _main_path()}
        )  # fmt: skip
        inherited = [fd for fd in (control, objects, *trace, theirs_in, theirs_out) if fd >= 0]
        path = [entry or os.getcwd() for entry in sys.path]
        soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
        try:
            # Deep nesting is run on one stack: a process has the limit that it is started under.
            resource.setrlimit(resource.RLIMIT_STACK, (_at_most(STACK_BYTES, hard), hard))
            self._pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-c", _SERVE, options, json.dumps(path)],
                os.environ,
                # Onto itself: what makes a descriptor of ours one of theirs.
                file_actions=[(os.POSIX_SPAWN_DUP2, fd, fd) for fd in inherited],
            )
        except OSError as error:
            os.close(self._commands)
            os.close(self._replies)
            raise _did_not_start(f"{sys.executable}: {error}") from error
        finally:
            resource.setrlimit(resource.RLIMIT_STACK, (soft, hard))
            os.close(theirs_in)
            os.close(theirs_out)

    def launch(self, station: int) -> int:
        """See ``WorkerLauncher``."""
        try:
            os.write(self._commands, struct.pack("<cI", b"F", station))
            reply = os.read(self._replies, 4)
        except OSError as error:
            raise _did_not_start(str(error)) from error
        if len(reply) != 4:
            raise _did_not_start("it ended; its message is on standard error")
        pid: int = struct.unpack("<i", reply)[0]
        if pid < 0:
            raise _did_not_start(os.strerror(-pid))
        return pid

    def reap(self, pid: int) -> None:
        """See ``WorkerLauncher``."""
        with contextlib.suppress(OSError):  # the server is gone, and its children with it
            os.write(self._commands, struct.pack("<cI", b"R", pid))

    def close(self) -> None:
        """See ``WorkerLauncher``."""
        os.close(self._commands)
        os.close(self._replies)
        with contextlib.suppress(ChildProcessError):  # the program reaps every child
            os.waitpid(self._pid, 0)


def _at_most(wanted: int, hard: int) -> int:
    return wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)


def _main_path() -> str | None:
    """Where the program's own file is, so that a worker finds what stands beside it."""
    return getattr(sys.modules.get("__main__"), "__file__", None)


def _did_not_start(why: str) -> KernelError:
    return KernelError(
        f"no worker process could be started: {why}",
        what="processes",
        expected="a running fork server",
        remedy="look at its message, or place tasks inline or in threads",
    )
