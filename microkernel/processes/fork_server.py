"""The process that workers are forked from.

It imports what every worker needs, once, has no threads, and so may fork at any time; a worker
comes up in a millisecond and shares its memory. It ends when its pipe is closed, which the end of
the driver does, however it came about, and takes the workers with it.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import struct
import sys
import threading

__all__ = ["serve"]

RECURSION_LIMIT = 100_000  # the stack of a worker's main thread is made for it
THREAD_STACK_BYTES = 8 << 20

_COMMAND = struct.Struct("<cI")


def serve(options: str) -> None:
    """The whole life of the server; ``options`` is what ``ForkServer`` wrote."""
    from microkernel.processes import worker

    given = json.loads(options)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the driver, which ends us
    for name in given["preload"]:
        importlib.import_module(name)
    sys.argv = [given["main"] or ""]
    threading.stack_size(THREAD_STACK_BYTES)
    sys.setrecursionlimit(RECURSION_LIMIT)
    gc.collect()
    gc.freeze()
    commands, replies, driver = given["commands"], given["replies"], os.getppid()
    os.set_inheritable(commands, False)
    os.set_inheritable(replies, False)
    children = _Children()
    watched = os.pidfd_open(driver)
    poll = select.poll()
    poll.register(commands, select.POLLIN)
    poll.register(watched, select.POLLIN)
    while True:
        ready = [fd for fd, _ in poll.poll()]
        command = b"" if watched in ready else os.read(commands, _COMMAND.size)
        if len(command) < _COMMAND.size:
            break
        what, number = _COMMAND.unpack(command)
        if what == b"R":
            children.reap(number)
            continue
        try:
            pid = os.fork()
        except OSError as error:
            os.write(replies, struct.pack("<i", -(error.errno or 1)))
            continue
        if pid == 0:
            for fd in (commands, replies, watched):
                os.close(fd)
            worker.work(
                given["control"], given["objects"], number, *given["trace"]
            )  # does not return
        children.alive.add(pid)
        os.write(replies, struct.pack("<i", pid))
    # A driver that closes has seen its workers end before. One that is gone has left them here, and
    # its pipe may be closed before its end shows.
    for pid in children.alive:
        _kill(pid)
    for pid in children.alive:
        _wait(pid)


class _Children:
    """The processes that were forked and not yet reaped."""

    def __init__(self) -> None:
        self.alive: set[int] = set()
        self._to_reap: set[int] = set()

    def reap(self, pid: int) -> None:
        """Forget a child as soon as it has ended; so far its number stays its own."""
        self._to_reap.add(pid)
        for child in list(self._to_reap & self.alive):
            try:
                done, _ = os.waitpid(child, os.WNOHANG)
            except ChildProcessError:
                done = child
            if done:
                self.alive.discard(child)
                self._to_reap.discard(child)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _wait(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)
