"""How much memory objects may take by default: a share of what this machine, or container, has."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["default_capacity"]

SHARE = 0.3
LIMITS = (
    "/sys/fs/cgroup/memory.max",  # version 2 of control groups
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",  # version 1
)


def default_capacity() -> int:
    """30 % of the machine's memory, or of the container's limit where that is lower, in bytes."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in LIMITS:
        try:
            limit = Path(path).read_text().strip()
        except OSError:
            continue
        if limit.isdecimal():
            memory = min(memory, int(limit))
    return int(memory * SHARE)
