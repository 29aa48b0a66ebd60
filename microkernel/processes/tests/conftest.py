"""What tests ask the system about a kernel's processes: which there are, and when they are gone."""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from pathlib import Path

import pytest


def _children(pid: int) -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue  # it ended meanwhile
        if int(parent) == pid and state != "Z":
            found.append(int(folder.name))
    return found


@pytest.fixture
def children() -> Callable[[int], list[int]]:
    """The living children of a process."""
    return _children


@pytest.fixture
def workers() -> Callable[[], list[int]]:
    """The living worker processes of the kernels of this process: its children's children."""
    return lambda: [worker for server in _children(os.getpid()) for worker in _children(server)]


@pytest.fixture
def await_end() -> Callable[[int, float], bool]:
    """Whether a process that is nobody's child of ours is gone within so many seconds."""

    def gone(pid: int, within: float) -> bool:
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            return True
        try:
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            return bool(poll.poll(within * 1000))
        finally:
            os.close(fd)

    return gone
