"""The directories of a store's journal: one for each log, named by its id."""

from __future__ import annotations

import re
from pathlib import Path

from timemachine.errors import JournalDamaged, JournalError

__all__ = ["is_log_id", "log_directories", "require_log_id", "segment_paths"]

_LOG_ID = re.compile(r"[0-9a-f]{32}")
_SEGMENT = re.compile(r"[0-9]{20}\.seg")


def is_log_id(name: str) -> bool:
    """Whether ``name`` is a log's id: 32 lower-case hexadecimal digits."""
    return _LOG_ID.fullmatch(name) is not None


def require_log_id(directory: Path) -> str:
    """The id of the log in ``directory``; raises ``JournalError`` when its name is none."""
    if not is_log_id(directory.name):
        raise JournalError(
            f"{directory} is not the directory of a log",
            what=directory.name,
            expected="a directory named by 32 hexadecimal digits",
            remedy="name a directory within the store's journal directory",
        )
    return directory.name


def log_directories(directory: Path) -> list[Path]:
    """The logs in a store's journal directory, or ``directory`` itself when it is one log's.

    Raises ``JournalError`` when there is no such directory.
    """
    if not directory.is_dir():
        raise JournalError(
            f"there is no journal at {directory}",
            what=str(directory),
            expected="a store's journal directory",
            remedy="check the path of the store",
        )
    if is_log_id(directory.name):
        return [directory]
    return sorted(path for path in directory.iterdir() if is_log_id(path.name) and path.is_dir())


def segment_paths(directory: Path) -> list[Path]:
    """The segment files of a log, in order; raises ``JournalDamaged`` for a name out of pattern."""
    paths = sorted(directory.glob("*.seg"))
    for path in paths:
        if not _SEGMENT.fullmatch(path.name):
            raise JournalDamaged(
                f"{path} is not named like a segment",
                what=path.name,
                expected="the number of the first frame in 20 digits",
                remedy="remove the file from the journal's directory",
                segment=path.name,
            )
    return paths
