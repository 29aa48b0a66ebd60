"""Canonical JSON (RFC 8785), the one form in which anything is hashed or journalled here.

JSON knows one kind of number, so ``1`` and ``1.0`` are the same content and are read back as ``1``.
An integral double beyond 2**53 is written without a point; ``parse`` gives it back as a float, so
that what was read can be written again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import rfc8785

from ground.errors import MalformedChange, NotCanonical

__all__ = ["canonical", "parse"]

MAX_DEPTH = 64
MAX_SAFE_INTEGER = 2**53 - 1


def canonical(value: Any, *, name: str = "content") -> bytes:
    """The RFC 8785 form of ``value``, UTF-8.

    ``name`` is what the value is called in an error's message. Mappings (string keys), lists,
    tuples, strings, booleans, ``None``, finite floats and integers within ±(2**53 - 1) are taken.
    Raises ``NotCanonical`` naming the place of the first value that has no such form.
    """
    return rfc8785.dumps(_checked(value, name, 0))


def parse(document: bytes) -> Any:
    """The value of a JSON document, such that ``canonical`` gives the document again.

    Raises ``MalformedChange`` when the bytes are no JSON.
    """
    try:
        return json.loads(document, parse_int=_integer, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise MalformedChange(
            f"a change is not JSON: {error}",
            what="ground.change",
            expected="an RFC 8785 document",
            remedy="verify the journal",
        ) from error


def _integer(digits: str) -> int | float:
    number = int(digits)
    return number if abs(number) <= MAX_SAFE_INTEGER else float(digits)


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _checked(value: Any, place: str, depth: int) -> Any:
    """``value`` in plain dicts and lists; raises at the first part without a canonical form."""
    kind = type(value)
    if kind is str:
        if not value.isascii():
            _check_text(value, place)
        return value
    if kind is bool or value is None:
        return value
    if isinstance(value, Mapping):
        _check_depth(depth, place)
        plain = {}
        for key, member in value.items():
            if not isinstance(key, str):
                raise _refused(place, f"has the key {key!r}", "keys that are strings")
            _check_text(key, place)
            plain[key] = _checked(member, f"{place}.{key}", depth + 1)
        return plain
    if isinstance(value, (list, tuple)):
        _check_depth(depth, place)
        return [_checked(part, f"{place}[{at}]", depth + 1) for at, part in enumerate(value)]
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _refused(place, f"is {float(value)!r}", "a finite number (RFC 8785, 3.2.2.3)")
        return float(value)
    if isinstance(value, int):
        if abs(value) > MAX_SAFE_INTEGER:
            raise _refused(place, "is an integer beyond 2**53", "a string, or a smaller integer")
        return int(value)
    if isinstance(value, str):
        _check_text(value, place)
        return str.__str__(value)
    raise _refused(
        place,
        f"is a {kind.__module__}.{kind.__qualname__}",
        "a mapping, list, string, number, boolean or None",
    )


def _check_depth(depth: int, place: str) -> None:
    if depth >= MAX_DEPTH:
        raise _refused(place[:80], "is nested too deeply", f"at most {MAX_DEPTH} levels")


def _check_text(text: str, place: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _refused(place, "holds half of a surrogate pair", "Unicode text") from None


def _refused(place: str, fault: str, expected: str) -> NotCanonical:
    return NotCanonical(
        f"{place} {fault}: it has no canonical form",
        what=place,
        expected=expected,
        remedy="convert the value before it goes into the catalogue",
    )
