"""Exceptions that cross a process boundary and look afterwards as if they had not.

Pickle rebuilds an exception by calling its type with ``args``, which fails for every type whose
``__init__`` takes something else, and forgets cause, context and traceback. So an exception is
taken apart here, and put together without its ``__init__``: type, ``args``, attributes and notes,
cause, context and the members of a group, and the traceback. The traceback consists of frames
without variables that bear the original file, function and columns (the way of the package tblib,
with exact positions), so that whatever prints tracebacks shows the lines of the other process.

Nothing here fails because of the exception: what of it cannot be sent is replaced by its text, and
a type that cannot be found on the other side by ``RemoteError``.
"""

from __future__ import annotations

import ast
import functools
import traceback
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from microkernel.errors import RemoteError

__all__ = ["assemble", "dismantle"]

Dumps = Callable[[object], bytes]
Loads = Callable[[bytes], Any]
Frame = tuple[str, str, str, int, int, int, int]
Part = dict[str, Any]

_MOST_LINKED = 100  # exceptions of one chain or group
_MOST_FRAMES = 200  # of one exception; of a deep recursion the two ends are kept
_LONGEST_TEXT = 10_000
_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: the type was made by Python code


def dismantle(error: BaseException, dumps: Dumps) -> list[Part]:
    """The exception and all that it is linked to, in parts that are text, numbers and bytes."""
    found: list[BaseException] = [error]
    index: dict[int, int] = {id(error): 0}

    def number(other: BaseException | None) -> int | None:
        if other is None or (id(other) not in index and len(found) >= _MOST_LINKED):
            return None
        if id(other) not in index:
            index[id(other)] = len(found)
            found.append(other)
        return index[id(other)]

    parts: list[Part] = []
    for one in found:  # grows meanwhile
        part = _dismantle_one(one, dumps)
        part["cause"] = number(one.__cause__)
        part["context"] = number(one.__context__)
        part["suppress"] = one.__suppress_context__
        if isinstance(one, BaseExceptionGroup):
            part["members"] = [number(member) for member in one.exceptions]
        parts.append(part)
    return parts


def _dismantle_one(error: BaseException, dumps: Dumps) -> Part:
    kind = type(error)
    part: Part = {
        "name": f"{kind.__module__}.{kind.__qualname__}",
        "text": _safe(str, error),
        "frames": _frames(error.__traceback__),
        "notes": [],
    }
    try:
        part["type"] = dumps(kind)
        reduced = error.__reduce_ex__(4)
    except Exception:
        part.setdefault("type", None)
        reduced = (kind, error.args)
    if _has_own_way(kind):
        try:
            part["whole"] = dumps(error)
        except Exception:
            part["notes"].append("what the exception held could not be sent from its process")
    args = reduced[1] if isinstance(reduced, tuple) and reduced[0] is kind else error.args
    if isinstance(error, BaseExceptionGroup):
        args = (error.message,)
    part["args"] = [_dumped(value, dumps, part, f"args[{i}]") for i, value in enumerate(args)]
    state = reduced[2] if isinstance(reduced, tuple) and len(reduced) > 2 else None
    if not isinstance(state, dict):
        state = getattr(error, "__dict__", {})
    part["state"] = {
        name: _dumped(value, dumps, part, name)
        for name, value in state.items()
        if type(name) is str
    }
    return part


def _dumped(value: object, dumps: Dumps, part: Part, name: str) -> bytes:
    try:
        return dumps(value)
    except Exception:
        part["notes"].append(f"{name} could not be sent from its process: its text stands for it")
        return dumps(_safe(repr, value))


def _safe(show: Callable[[object], str], value: object) -> str:
    try:
        text = show(value)[:_LONGEST_TEXT]
        text.encode()
    except Exception:
        return f"<{type(value).__qualname__}, which cannot be printed>"
    return str(text)


def _has_own_way(kind: type) -> bool:
    """Whether Python code says how the type is pickled."""
    for name in ("__reduce_ex__", "__reduce__", "__getstate__", "__setstate__"):
        owner = next((base for base in kind.__mro__ if name in vars(base)), object)
        if owner.__flags__ & _HEAP_TYPE:
            return True
    return False


def _frames(trace: TracebackType | None) -> list[Frame]:
    frames: list[Frame] = []
    while trace is not None:
        code = trace.tb_frame.f_code
        # The kernel's own lines say nothing about the error.
        if not (code.co_filename.endswith(".pyx") and "microkernel" in code.co_filename):
            line = trace.tb_lineno or 1
            place = list(code.co_positions())[trace.tb_lasti // 2 : trace.tb_lasti // 2 + 1]
            start, end, column, end_column = place[0] if place else (None, None, None, None)
            if start != line or end is None or column is None or end_column is None:
                end, column, end_column = line, 0, 0
            module = trace.tb_frame.f_globals.get("__name__", "")
            module = module if type(module) is str else ""
            frames.append((code.co_filename, code.co_name, module, line, end, column, end_column))
        trace = trace.tb_next
    if len(frames) > _MOST_FRAMES:
        return frames[: _MOST_FRAMES // 2] + frames[-_MOST_FRAMES // 2 :]
    return frames


def assemble(parts: list[Part], loads: Loads) -> BaseException:
    """The exception of these parts, linked as it was, with its traceback."""
    errors: list[BaseException | None] = [None] * len(parts)
    # A group is made of its members, and they are found after it.
    for i in reversed(range(len(parts))):
        errors[i] = _assemble_one(parts[i], loads, errors)
    for part, error in zip(parts, errors, strict=True):
        assert error is not None
        error.__cause__ = _linked(errors, part["cause"])
        error.__context__ = _linked(errors, part["context"])
        error.__suppress_context__ = part["suppress"]
    first = errors[0]
    assert first is not None
    return first


def _linked(errors: list[BaseException | None], index: int | None) -> BaseException | None:
    return None if index is None else errors[index]


def _assemble_one(part: Part, loads: Loads, errors: list[BaseException | None]) -> BaseException:
    trace = _traceback(part["frames"])
    error: BaseException
    try:
        error = _rebuilt(part, loads, errors)
    except Exception as trouble:
        error = RemoteError(
            f"{part['name']}: {part['text']}",
            what=part["name"],
            expected="a type of exception that can be imported here",
            remedy=f"see its text; its type could not be rebuilt: {trouble}",
            text="".join(traceback.format_tb(trace)) + f"{part['name']}: {part['text']}",
        )
    for note in part["notes"]:
        error.add_note(note)
    return error.with_traceback(trace)


def _rebuilt(part: Part, loads: Loads, errors: list[BaseException | None]) -> BaseException:
    if part["type"] is None:
        raise TypeError("it could not be sent")
    kind = loads(part["type"])
    if "whole" in part:
        try:
            whole: BaseException | None = loads(part["whole"])
        except Exception:
            whole = None
        if whole is not None and type(whole) is kind:
            return whole
    args = [loads(value) for value in part["args"]]
    if "members" in part:
        members = [None if i is None else errors[i] for i in part["members"]]
        args.append([member for member in members if member is not None])
    # The constructor of the built-in type below, which sets what C code keeps; not the type's own,
    # which may take something else.
    builtin = next(base for base in kind.__mro__ if not base.__flags__ & _HEAP_TYPE)
    error: BaseException = builtin.__new__(kind, *args)
    if "members" not in part:
        try:
            builtin.__init__(error, *args)
        except Exception:
            error.args = tuple(args)
    for name, value in part["state"].items():
        try:
            setattr(error, name, loads(value))
        except Exception as trouble:
            error.add_note(f"{name} could not be rebuilt: {trouble}")
    return error


def _traceback(frames: list[Frame]) -> TracebackType | None:
    trace: TracebackType | None = None
    for place in reversed(frames):
        try:
            frame, instruction = _frame(*place)
        except Exception:  # noqa: S112 - a position that the compiler does not take
            continue
        trace = TracebackType(trace, frame, instruction, place[3])
    return trace


@functools.lru_cache(maxsize=1024)
def _frame(
    file: str, name: str, module: str, line: int, end: int, column: int, end_column: int
) -> tuple[FrameType, int]:
    """A frame that ended by raising at this place, and the instruction that raised."""
    tree = ast.parse("raise stop")
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt | ast.expr):
            node.lineno, node.end_lineno = line, end
            node.col_offset, node.end_col_offset = column, end_column
    code = compile(tree, file, "exec").replace(co_name=name, co_qualname=name)
    stop = RuntimeError()
    try:
        exec(code, {"__name__": module, "__file__": file, "stop": stop})  # noqa: S102
    except RuntimeError as error:
        trace = error.__traceback__
    stop.__traceback__ = None
    assert trace is not None
    assert trace.tb_next is not None
    frame = trace.tb_next.tb_frame
    frame.f_globals.pop("stop")
    return frame, trace.tb_next.tb_lasti
