"""Comparison of a recorded value with a replayed one: equal bits, or how far apart.

Equality of bits is the only test that needs no tolerance chosen by anybody, so it comes first. When
it fails, the distance in units in the last place says whether the cause is an order of summation
(a few) or another computation (many). The mapping of floats onto ordered integers follows
B. Dawson, "Comparing floating point numbers" (2012); both zeros map to 0, so ``0.0`` and ``-0.0``
have different bits and distance 0.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Comparison", "bit_view", "compare", "ulps_between"]


@dataclass(frozen=True)
class Comparison:
    """How a replayed value stands to the recorded one.

    ``max_ulps`` is the greatest distance between two floating-point numbers in it, 0 when the bits
    are equal, and None when something differs that has no such distance: a type, a shape, a text,
    an integer, a NaN. ``first`` is where the first difference is, as indices and keys from the
    outside in: ``()`` for a scalar, ``(3, 1)`` in a matrix, ``("scores", 2)`` in a mapping.
    """

    bits_equal: bool
    max_ulps: int | None
    first: tuple[int | str, ...] | None


_SAME = Comparison(True, 0, None)


def compare(recorded: object, replayed: object) -> Comparison:
    """Compare two values bit for bit; NaN payloads and the sign of zero count.

    Scalars, NumPy arrays and scalars, and dicts, lists and tuples of them are compared part by
    part; any other two values are equal when their types are the same and ``==`` holds.

    >>> compare(0.3, 0.1 + 0.2)
    Comparison(bits_equal=False, max_ulps=1, first=())
    >>> compare({"p": [0.5, 0.25]}, {"p": [0.5, 0.25]}).bits_equal
    True
    """
    if type(recorded) is not type(replayed):
        return Comparison(False, None, ())
    if isinstance(recorded, float) and type(recorded) is float:
        return _compare_floats(recorded, replayed)
    if isinstance(recorded, complex) and type(recorded) is complex:
        assert isinstance(replayed, complex)
        return _joined(
            Comparison(part.bits_equal, part.max_ulps, None if part.bits_equal else ())
            for part in (
                compare(recorded.real, replayed.real),
                compare(recorded.imag, replayed.imag),
            )
        )
    if isinstance(recorded, (list, tuple)):
        assert isinstance(replayed, (list, tuple))
        if len(recorded) != len(replayed):
            return Comparison(False, None, (min(len(recorded), len(replayed)),))
        return _joined(
            _under(index, compare(a, b))
            for index, (a, b) in enumerate(zip(recorded, replayed, strict=True))
        )
    if isinstance(recorded, dict):
        assert isinstance(replayed, dict)
        only = [key for key in (*recorded, *replayed) if (key in recorded) != (key in replayed)]
        if only:
            return Comparison(False, None, (_step(only[0]),))
        return _joined(
            _under(_step(key), compare(recorded[key], replayed[key])) for key in recorded
        )
    if type(recorded).__module__.partition(".")[0] == "numpy" and hasattr(recorded, "dtype"):
        return _compare_arrays(recorded, replayed)
    return _SAME if recorded == replayed else Comparison(False, None, ())


def bit_view(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The bits of an array of any dtype but ``object``, as unsigned integers.

    The result has one axis more than ``array``: its last axis holds the parts of one element (one
    for a float, two for a complex number, the bytes of a text).
    """
    import numpy as np

    array = np.ascontiguousarray(array).reshape(array.shape)
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    if array.dtype.kind == "c":
        half = f"f{array.dtype.itemsize // 2}"
        return bit_view(array.view(half).reshape(*array.shape, 2))[..., 0]
    size = array.dtype.itemsize
    if array.dtype.kind == "f" and size > 8:
        # x87 numbers have 10 bytes of value; the padding behind them is whatever was there.
        return array.view(np.uint8).reshape(*array.shape, size)[..., : 10 if size == 16 else size]
    if size in (1, 2, 4, 8) and array.dtype.kind in "fiubmM":
        return array.view(f"u{size}")[..., np.newaxis]
    return array.view(np.uint8).reshape(*array.shape, size)


def ulps_between(recorded: np.ndarray[Any, Any], replayed: np.ndarray[Any, Any]) -> int | None:
    """The greatest distance between two arrays of one shape and dtype, in units in the last place.

    None when they differ in something that has no such distance.
    """
    import numpy as np

    if recorded.dtype.kind == "c":
        half = f"f{recorded.dtype.itemsize // 2}"
        recorded = np.ascontiguousarray(recorded).view(half)
        replayed = np.ascontiguousarray(replayed).view(half)
    a, b = bit_view(recorded), bit_view(replayed)
    differ = (a != b).any(axis=-1)
    if not differ.any():
        return 0
    if recorded.dtype.kind != "f" or recorded.dtype.itemsize > 8:
        return None
    if np.isnan(recorded[differ]).any() or np.isnan(replayed[differ]).any():
        return None
    width = 8 * recorded.dtype.itemsize
    x, y = (_ordered(bits[differ][..., 0].astype(np.uint64), width) for bits in (a, b))
    return int((np.maximum(x, y) - np.minimum(x, y)).max())


def _ordered(bits: np.ndarray[Any, Any], width: int) -> np.ndarray[Any, Any]:
    """Map float bits to unsigned integers in the order of the floats, both zeros to the middle."""
    import numpy as np

    sign = np.uint64(1 << (width - 1))
    magnitude = bits & (sign - np.uint64(1))
    return np.where(bits & sign, sign - magnitude, sign + magnitude)


def _compare_floats(recorded: float, replayed: object) -> Comparison:
    a, b = struct.pack("<d", recorded), struct.pack("<d", replayed)
    if a == b:
        return _SAME
    assert isinstance(replayed, float)
    if math.isnan(recorded) or math.isnan(replayed):
        return Comparison(False, None, ())
    return Comparison(False, abs(_position(a) - _position(b)), ())


def _position(raw: bytes) -> int:
    bits = int.from_bytes(raw, "little")
    magnitude = bits & ((1 << 63) - 1)
    return -magnitude if bits >> 63 else magnitude


def _compare_arrays(recorded: object, replayed: object) -> Comparison:
    import numpy as np

    a, b = np.asarray(recorded), np.asarray(replayed)
    if a.dtype != b.dtype or a.shape != b.shape:
        return Comparison(False, None, ())
    if a.dtype.hasobject:
        return _joined(
            Comparison(part.bits_equal, part.max_ulps, (*map(int, index), *(part.first or ())))
            if not (part := compare(a[index], b[index])).bits_equal
            else part
            for index in np.ndindex(a.shape)
        )
    differ = (bit_view(a) != bit_view(b)).any(axis=-1)
    if not differ.any():
        return _SAME
    first = np.unravel_index(int(np.argmax(differ)), differ.shape) if differ.shape else ()
    return Comparison(False, ulps_between(a, b), tuple(map(int, first)))


def _step(key: object) -> int | str:
    return key if isinstance(key, (int, str)) else repr(key)


def _under(step: int | str, part: Comparison) -> Comparison:
    if part.bits_equal:
        return part
    return Comparison(False, part.max_ulps, (step, *(part.first or ())))


def _joined(parts: Any) -> Comparison:
    first: tuple[int | str, ...] | None = None
    farthest: int | None = 0
    for part in parts:
        if part.bits_equal:
            continue
        if first is None:
            first = part.first
        if farthest is not None:
            farthest = None if part.max_ulps is None else max(farthest, part.max_ulps)
    return _SAME if first is None else Comparison(False, farthest, first)
