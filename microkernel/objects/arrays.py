"""Arrays that are built where they will be shared, so that giving them away costs no copy."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from microkernel.errors import KernelError, ObjectStoreFull
from microkernel.objects.store import ObjectStore

if TYPE_CHECKING:
    import numpy
    from numpy.typing import DTypeLike, NDArray

__all__ = ["empty"]


def empty(
    store: ObjectStore, shape: int | tuple[int, ...], dtype: DTypeLike = float
) -> NDArray[Any]:
    """A NumPy array of ``shape`` in the arena, not initialised, to be filled and then put.

    Putting it, or returning it from a task, copies nothing and makes it read-only. Raises
    ``ObjectStoreFull`` when there is no room, and ``KernelError`` for types that hold Python
    objects, which cannot be shared.
    """
    import numpy

    kind: numpy.dtype[Any] = numpy.dtype(dtype)
    sizes = (shape,) if isinstance(shape, int) else tuple(int(n) for n in shape)
    if kind.hasobject:
        raise KernelError(
            f"an array of {kind} cannot lie in shared memory",
            what=str(kind),
            expected="a type of fixed size: numbers, times, fixed strings",
            remedy="make the array with numpy.empty",
        )
    if any(n < 0 for n in sizes):
        raise KernelError(
            f"an array of shape {sizes}",
            what="shape",
            expected="sizes of 0 or more",
            remedy="leave the sign out",
        )
    n = math.prod(sizes) * kind.itemsize
    if n == 0:
        return numpy.empty(sizes, kind)
    if n > store.capacity:
        raise ObjectStoreFull(
            f"an array of shape {sizes} ({n:,} bytes) is more than all object memory",
            what=f"{n:,} bytes",
            expected=f"at most {store.capacity:,}",
            remedy="raise object_memory, or make the array in parts",
        )
    # frombuffer keeps the buffer, and with it the block in memory; ndarray(buffer=...) does not.
    array: NDArray[Any] = numpy.frombuffer(memoryview(store.allocate(n)), kind)
    return array.reshape(sizes)
