"""What a program's processes use, read from ``/proc``: Linux only.

A kernel, and each peer, is a tree of processes. What a task costs is what all of them spend on it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

__all__ = [
    "children",
    "cpu_seconds",
    "descendants",
    "memory_bytes",
    "parent",
    "private_bytes",
    "tree",
    "with_variable",
]

PROC = Path("/proc")
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
# Fields of /proc/<pid>/stat, counted from behind the name, which may hold blanks and brackets.
STATE, PARENT, TIMES = 0, 1, slice(11, 15)


def descendants(root: int) -> list[int]:
    """The living processes that ``root`` started, and those that they started."""
    children: dict[int, list[int]] = {}
    for process in _processes():
        fields = _stat(process)
        if fields and fields[STATE] != "Z":
            children.setdefault(int(fields[PARENT]), []).append(process)
    found, unread = [], [root]
    while unread:
        born = children.get(unread.pop(), [])
        found += born
        unread += born
    return sorted(found)


def children(process: int) -> set[int]:
    """The processes that ``process`` has started and that are still there."""
    found: set[int] = set()
    with suppress(OSError):
        for thread in (PROC / str(process) / "task").iterdir():
            found.update(map(int, (thread / "children").read_text("utf-8").split()))
    return found


def parent(process: int) -> int:
    """The process that started ``process``, or adopted it; 0 when it is gone."""
    fields = _stat(process)
    return int(fields[PARENT]) if fields else 0


def tree(root: int | None = None) -> list[int]:
    """``root``, this process by default, and its descendants."""
    root = os.getpid() if root is None else root
    return [root, *descendants(root)]


def cpu_seconds(processes: Iterable[int]) -> float:
    """User and system time of the processes, and of their children that have ended."""
    ticks = 0
    for process in processes:
        ticks += sum(map(int, _stat(process)[TIMES]))
    return ticks / TICKS_PER_SECOND


def private_bytes(process: int) -> int:
    """The memory that the process shares with no other: what one more of it costs."""
    return _from_smaps(process, ("Private_Clean:", "Private_Dirty:"))


def memory_bytes(processes: Iterable[int]) -> int:
    """The memory that all the processes occupy together: shared pages count once in the sum."""
    return sum(_from_smaps(process, ("Pss:",)) for process in processes)


def with_variable(name: str, value: str) -> list[int]:
    """The processes that were started with this environment variable, except this one."""
    wanted = f"{name}={value}".encode()
    found = []
    for process in _processes():
        with suppress(OSError):
            if wanted in (PROC / str(process) / "environ").read_bytes().split(b"\0"):
                found.append(process)
    return [process for process in found if process != os.getpid()]


def _processes() -> list[int]:
    return [int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit()]


def _stat(process: int) -> list[str]:
    try:
        text = (PROC / str(process) / "stat").read_text("utf-8", "replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def _from_smaps(process: int, fields: tuple[str, ...]) -> int:
    lines = (PROC / str(process) / "smaps_rollup").read_text("utf-8").splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(fields))
