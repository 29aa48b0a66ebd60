"""The kernels that run on this machine, found without their help.

A kernel keeps its counters in a memory file named ``srds-trace``; whoever may look into a process
(the same user) finds it among the process's open files and reads it there. So nothing is published,
nothing is left behind by a killed program, and being looked at costs a kernel nothing. Linux only.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from microkernel.errors import KernelError
from microkernel.tracing.counters import KernelCounters, WorkerCounters, counters_from
from microkernel.tracing.trace import STATISTICS_BYTES, read_statistics

__all__ = ["RunningKernel", "running_kernels"]

TRACE = "/memfd:srds-trace"
OBJECTS = "/memfd:srds-objects"


@dataclass(frozen=True, slots=True)
class RunningKernel:
    """A kernel of some process: its counters, and bytes of memory.

    ``memory`` is the resident memory of each process of the kernel by its number, ``objects`` what
    the object arenas of the program take.
    """

    counters: KernelCounters
    memory: dict[int, int]
    objects: int

    @property
    def workers(self) -> tuple[WorkerCounters, ...]:
        """The threads and those worker processes that are alive."""
        return tuple(one for one in self.counters.workers if one.process in self.memory)


def running_kernels(process: int | None = None) -> list[RunningKernel]:
    """The open kernels of this user's processes, or of one; the oldest first.

    Processes that end meanwhile, or may not be looked into, are left out. Raises ``KernelError``
    where there is no ``/proc``, or no process of this number.
    """
    if not os.path.isdir("/proc/self/fd"):
        raise KernelError(
            "running kernels are found through /proc, which is not here",
            what="/proc",
            expected="Linux",
            remedy="use kernel.counters() or kernel.serve_metrics() in the program",
        )
    if process is None:
        processes = [int(name) for name in os.listdir("/proc") if name.isdecimal()]
    elif os.path.isdir(f"/proc/{process}"):
        processes = [process]
    else:
        raise KernelError(
            f"there is no process {process}",
            what=str(process),
            expected="the number of a running process",
            remedy="leave it out to see all kernels",
        )
    found = [kernel for one in processes for kernel in _kernels_of(one)]
    return sorted(found, key=lambda kernel: kernel.counters.opened)


def _kernels_of(process: int) -> Iterator[RunningKernel]:
    folder = f"/proc/{process}/fd"
    pages: list[bytes] = []
    objects = 0
    try:
        if os.stat(f"/proc/{process}").st_uid != os.geteuid():
            return
        for name in os.listdir(folder):
            path = f"{folder}/{name}"
            try:
                kind = os.readlink(path)
                if kind.startswith(OBJECTS):
                    objects += os.stat(path).st_blocks * 512
                elif kind.startswith(TRACE):
                    page = _read(path)
                    if page not in pages:
                        pages.append(page)
            except OSError:
                continue  # closed meanwhile
    except OSError:
        return
    for page in pages:
        statistics = read_statistics(page)
        # A worker has the memory of the program's kernel open, too.
        if statistics is None or statistics["closed"] or statistics["process"] != process:
            continue
        counters = counters_from(statistics)
        memory = {
            one: size
            for one in {process, *(row.process for row in counters.workers)}
            if (size := _resident(one)) is not None
        }
        yield RunningKernel(counters, memory, objects)


def _read(path: str) -> bytes:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if os.fstat(file).st_uid != os.geteuid():
            return b""
        return os.pread(file, STATISTICS_BYTES, 0)
    finally:
        os.close(file)


def _resident(process: int) -> int | None:
    try:
        with open(f"/proc/{process}/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return None
