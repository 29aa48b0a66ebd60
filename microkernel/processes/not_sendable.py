"""Which part of a value keeps it from being sent: "cannot pickle '_thread.lock' object" is no help.

The value is taken apart the way pickle would (variables, globals and defaults of a function,
attributes, items), each part is tried, and the first that fails is followed down to the one that
fails by itself. That takes as long as pickling it some ten times, and is done only after it failed.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from microkernel.errors import NotSendable
from microkernel.processes.pickling import sendable

__all__ = ["explain"]

_DEEPEST = 20
_SHOWN = 8
_WIDEST = 2_000


def explain(value: object, error: Exception) -> NotSendable:
    """The error that names the part of ``value`` because of which pickling it raised ``error``."""
    path: list[str] = []
    met = {id(value)}
    part = value
    while len(path) < _DEEPEST:
        culprit = next(
            (
                each
                for each in islice(_parts(part), _WIDEST)
                if id(each[1]) not in met and not sendable(each[1])
            ),
            None,
        )
        if culprit is None:
            break
        label, part = culprit
        met.add(id(part))
        path.append(label)
    kind = type(part)
    place = " of ".join(reversed(path if len(path) <= _SHOWN else [*path[:2], "…", *path[-2:]]))
    subject = f"{place} is a {kind.__module__}.{kind.__qualname__}: " if path else ""
    return NotSendable(
        f"{_named(value)} cannot be sent to another process: {subject}{error}",
        what=place or _named(value),
        expected="what can be pickled, or made again on the other side",
        remedy="make it inside the task, leave it out of the object's state (__getstate__), or "
        'run the task in this process (placement="thread")',
    )


def _named(value: object) -> str:
    name = getattr(value, "__qualname__", None)
    kind = type(value).__qualname__
    return f"{kind} {name}" if isinstance(name, str) else f"a {kind}"


def _parts(value: object) -> Iterator[tuple[str, object]]:
    """The parts of a value, each with how to call it."""
    if isinstance(value, types.FunctionType):
        yield from _parts_of_function(value)
    elif isinstance(value, types.MethodType):
        yield "its object", value.__self__
        yield "its function", value.__func__
    elif isinstance(value, functools.partial):
        yield "its function", value.func
        yield from _items(value.args)
        yield from _entries(value.keywords)
    elif isinstance(value, dict):
        yield from _entries(value)
    elif isinstance(value, list | tuple | set | frozenset):
        yield from _items(value)
    elif isinstance(value, type):
        for base in value.__bases__:
            yield f"base {base.__qualname__}", base
        for name, member in list(vars(value).items()):
            yield f"attribute {name!r}", getattr(member, "__func__", member)
    else:
        yield from _attributes(value)


def _parts_of_function(function: types.FunctionType) -> Iterator[tuple[str, object]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f"variable {name!r}", cell.cell_contents
        except ValueError:  # not set yet
            continue
    for name in sorted(_global_names(function.__code__)):
        if name in function.__globals__:
            yield f"global {name!r}", function.__globals__[name]
    for default in function.__defaults__ or ():
        yield "a default", default
    for name, default in (function.__kwdefaults__ or {}).items():
        yield f"default {name!r}", default
    for name, member in function.__dict__.items():
        yield f"attribute {name!r}", member


def _global_names(code: types.CodeType) -> set[str]:
    inner = [_global_names(each) for each in code.co_consts if isinstance(each, types.CodeType)]
    return set(code.co_names).union(*inner)


def _entries(entries: Mapping[Any, object]) -> Iterator[tuple[str, object]]:
    for key, member in list(entries.items()):
        yield f"key {key!r:.100}", key
        yield f"entry {key!r:.100}", member


def _items(items: Iterable[object]) -> Iterator[tuple[str, object]]:
    for i, member in enumerate(items):
        yield f"item {i}", member


def _attributes(value: object) -> Iterator[tuple[str, object]]:
    """What pickle would write of an object: its state, else its attributes."""
    state: object
    try:
        state = value.__getstate__()
    except Exception:
        state = getattr(value, "__dict__", None)
    for each in state if isinstance(state, tuple) else (state,):
        if isinstance(each, dict):
            for name, member in list(each.items()):
                yield f"attribute {name!r}", member
