"""Clock functions whose answer is a compound value, or that read the clock only without arguments.

Within a recorded task, what they read becomes an input in a form that the codec keeps, taken before
any subclass or time zone comes in: ``datetime.now`` of a subclass, or with any ``tzinfo``, works as
outside. The local time is recorded as such, so a replay under another ``TZ`` gives the same. Each
handler takes the task, the real call, its owner and its arguments.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, tzinfo
from typing import Any

from microkernel.boundary import exchange

__all__ = ["asctime", "ctime", "gmtime", "localtime", "now", "strftime", "utcnow"]

Original = Callable[[], Any]


def now(task: object, original: Original, owner: type[datetime], args: tuple[Any, ...]) -> Any:
    """``datetime.now``: local time, or the recorded instant in the zone given."""
    zone = args[0] if args else None
    if zone is None:
        local = exchange("time", "datetime.now", None, lambda: _plain(original()))
        return _of(owner, local)
    if not isinstance(zone, tzinfo):
        return original()
    instant = exchange("time", "datetime.now", "UTC", lambda: datetime.now(UTC))
    return _of(owner, instant.astimezone(zone))


def utcnow(task: object, original: Original, owner: type[datetime], args: tuple[Any, ...]) -> Any:
    """``datetime.utcnow`` of the recorded instant."""
    instant = exchange("time", "datetime.now", "UTC", lambda: datetime.now(UTC))
    return _of(owner, instant.replace(tzinfo=None))


def _plain(moment: datetime) -> datetime:
    return _of(datetime, moment)


def _of(owner: type[datetime], moment: datetime) -> datetime:
    if type(moment) is owner:
        return moment
    return owner(
        moment.year,
        moment.month,
        moment.day,
        moment.hour,
        moment.minute,
        moment.second,
        moment.microsecond,
        moment.tzinfo,
        fold=moment.fold,
    )


def localtime(task: object, original: Original, owner: object, args: tuple[Any, ...]) -> Any:
    """``time.localtime`` of the recorded time and zone."""
    if args and args[0] is not None:
        return original()
    fields = exchange("time", "time.localtime", None, lambda: _fields(original()))
    return time.struct_time(fields)


def _fields(local: time.struct_time) -> tuple[Any, ...]:
    return (*local, local.tm_zone, local.tm_gmtoff)


def gmtime(task: object, original: Original, owner: object, args: tuple[Any, ...]) -> Any:
    """``time.gmtime`` of the recorded time."""
    return original() if args and args[0] is not None else time.gmtime(time.time())


def ctime(task: object, original: Original, owner: object, args: tuple[Any, ...]) -> Any:
    """``time.ctime`` of the recorded time."""
    return original() if args and args[0] is not None else time.asctime(time.localtime())


def asctime(task: object, original: Original, owner: object, args: tuple[Any, ...]) -> Any:
    """``time.asctime`` of the recorded time."""
    return original() if args else time.asctime(time.localtime())


def strftime(task: object, original: Original, owner: object, args: tuple[Any, ...]) -> Any:
    """``time.strftime`` of the recorded time."""
    return original() if len(args) != 1 else time.strftime(args[0], time.localtime())
