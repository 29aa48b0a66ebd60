"""Functions of ``time`` that read the clock only when they are given no time.

Within a watched task they are given the time that ``time.time`` answers, which is recorded; what
remains is a conversion. Each handler takes the task, the real call, its owner and its arguments.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

__all__ = ["asctime", "ctime", "gmtime", "localtime", "strftime"]


def ctime(task: object, original: Callable[[], Any], owner: object, args: tuple[Any, ...]) -> Any:
    """``time.ctime`` of the recorded time."""
    return original() if args and args[0] is not None else time.ctime(time.time())


def localtime(
    task: object, original: Callable[[], Any], owner: object, args: tuple[Any, ...]
) -> Any:
    """``time.localtime`` of the recorded time."""
    return original() if args and args[0] is not None else time.localtime(time.time())


def gmtime(task: object, original: Callable[[], Any], owner: object, args: tuple[Any, ...]) -> Any:
    """``time.gmtime`` of the recorded time."""
    return original() if args and args[0] is not None else time.gmtime(time.time())


def asctime(task: object, original: Callable[[], Any], owner: object, args: tuple[Any, ...]) -> Any:
    """``time.asctime`` of the recorded time."""
    return original() if args else time.asctime(time.localtime())


def strftime(
    task: object, original: Callable[[], Any], owner: object, args: tuple[Any, ...]
) -> Any:
    """``time.strftime`` of the recorded time."""
    return original() if len(args) != 1 else time.strftime(args[0], time.localtime())
