"""How values, tables, trees and errors look in a terminal, and as JSON.

What is shown was recorded from the outside world: text is written as text, never as markup, and
control characters are spelled out, so that no input can paint on the terminal of who reads it.
"""

from __future__ import annotations

import base64
import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

__all__ = [
    "bar",
    "console",
    "describe",
    "duration",
    "local_time",
    "plain",
    "print_error",
    "print_fields",
    "print_json",
    "print_tree",
    "put",
    "safe",
    "say",
    "shown",
    "table",
]

PIPED_WIDTH = 200
_UNBROKEN = ("id", "log", "time", "took")
_ELLIPSIS = "…"


def console(*, stderr: bool = False) -> Console:
    """A console that is plain and wide when nobody sits in front of it."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else PIPED_WIDTH
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False, width=width)


def safe(text: object) -> str:
    """``text`` with everything that is not printable spelled out."""
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in str(text)
    )


def shown(value: Any, limit: int = 60) -> str:
    """A value in one line of at most ``limit`` characters; texts stand as they are."""
    if isinstance(value, str):
        text = safe(value)
    elif isinstance(value, bytes | bytearray):
        text = f"{len(value)} bytes {bytes(value[:16]).hex()}"
    elif isinstance(value, float):
        text = f"{value:.6g}" if math.isfinite(value) else str(value)
    elif isinstance(value, Mapping):
        text = ", ".join(f"{safe(key)}: {shown(one, limit)}" for key, one in value.items())
    elif isinstance(value, list | tuple):
        text = f"[{', '.join(shown(one, limit) for one in value)}]"
    elif hasattr(value, "tolist") and getattr(value, "size", 0) <= limit:
        text = shown(value.tolist(), limit)
    else:
        text = safe(" ".join(repr(value).split()))
    return text if len(text) <= limit else text[: limit - 1] + _ELLIPSIS


def plain(value: Any) -> Any:
    """A recorded value in plain JSON types.

    What JSON lacks is written as text: ``NaN``, ``Infinity`` and ``-Infinity``, bytes in base64,
    moments as ISO 8601, anything else as Python shows it. Sets become sorted lists.
    """
    if value is None or type(value) in (bool, int, str):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return float(value)
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode()
    if isinstance(value, Mapping):
        return {key if isinstance(key, str) else repr(key): plain(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, set | frozenset):
        return sorted((plain(one) for one in value), key=repr)
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if hasattr(value, "tolist"):  # numpy's scalars and arrays
        inner = value.tolist()
        return plain(inner) if type(inner) is not type(value) else repr(value)
    return repr(value)


def print_json(document: Any) -> None:
    """Write one JSON document to standard output."""
    sys.stdout.write(json.dumps(plain(document), indent=2, ensure_ascii=False) + "\n")


def describe(error: Exception) -> dict[str, str]:
    """An error of one of our packages in plain JSON types."""
    document = {"type": type(error).__name__, "message": str(error)}
    for name in ("what", "expected", "remedy"):
        document[name] = str(getattr(error, name, ""))
    return document


def print_error(error: Exception) -> None:
    """Say on standard error what went wrong, what was expected and what to do."""
    err = console(stderr=True)
    say(err, ("error: ", "bold red"), (safe(error), "red"))
    for name in ("expected", "remedy"):
        text = getattr(error, name, "")
        if text:
            say(err, (f"  {name}: ", "bold"), safe(text))


def say(out: Console, *parts: str | Text | tuple[str, str]) -> None:
    """Write a line, of texts and of pairs of text and style; only a terminal breaks it."""
    from rich.text import Text

    out.print(Text.assemble(*parts), soft_wrap=not out.is_terminal)


def put(out: Console, renderable: RenderableType) -> None:
    """Write a table; without the blanks at the ends of lines when nobody sits in front of it."""
    if out.is_terminal:
        out.print(renderable)
        return
    with out.capture() as captured:
        out.print(renderable)
    for line in captured.get().splitlines():
        out.print(line.rstrip(), soft_wrap=True)


def table(
    headings: Sequence[str],
    rows: Iterable[Sequence[str | Text]],
    *,
    right: Sequence[str] = (),
) -> Table:
    """A table without lines; the columns named in ``right`` are aligned to the right."""
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in headings:
        made.add_column(
            heading,
            justify="right" if heading in right else "left",
            overflow="fold",
            no_wrap=heading in _UNBROKEN,
        )
    for row in rows:
        made.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
    return made


def print_fields(out: Console, fields: Mapping[str, str | Text]) -> None:
    """Write names and values below each other; what is empty is left out."""
    from rich.table import Table
    from rich.text import Text

    made = Table.grid(padding=(0, 2, 0, 0))
    made.add_column(style="bold", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in fields.items():
        if value:
            made.add_row(name, Text(value) if isinstance(value, str) else value)
    put(out, made)


def print_tree(out: Console, lines: Iterable[str]) -> None:
    """Write lines that are indented by two blanks a step as a tree."""
    from rich.text import Text
    from rich.tree import Tree

    if not out.is_terminal:
        for line in lines:
            out.print(Text(safe(line)), soft_wrap=True)
        return
    branches: list[Tree] = []
    for line in lines:
        text = safe(line.lstrip(" "))
        depth = (len(line) - len(line.lstrip(" "))) // 2
        del branches[depth:]
        if branches:
            branches.append(branches[-1].add(Text(text)))
        else:
            branches.append(Tree(Text(text, "bold")))
        root = branches[0]
    if branches:
        out.print(root)


def bar(value: float, largest: float, width: int = 20) -> Text:
    """A bar for ``value``, as long as ``width`` signs for ``largest``; green above zero."""
    from rich.text import Text

    share = abs(value) / largest if largest > 0 else 0.0
    length = max(1, round(share * width)) if value else 0
    return Text("█" * length, "green" if value > 0 else "red")


def local_time(nanoseconds: int) -> str:
    """A moment (nanoseconds since 1970) in the local time zone, to the millisecond."""
    moment = datetime.fromtimestamp(nanoseconds // 1_000_000 / 1000, tz=UTC).astimezone()
    return moment.isoformat(" ", "milliseconds")[:-6]


def duration(nanoseconds: int) -> str:
    """A span of time in the unit that suits it.

    >>> duration(1_234_567)
    '1.23 ms'
    """
    for unit, size in (("s", 1_000_000_000), ("ms", 1_000_000), ("µs", 1_000)):
        if nanoseconds >= size:
            return f"{nanoseconds / size:.3g} {unit}"
    return f"{nanoseconds} ns"
