from typing import Any

from numpy.typing import DTypeLike, NDArray

from microkernel.objects import ObjectStatistics

class Remote:
    @property
    def outstanding(self) -> int: ...
    def empty(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]: ...
    def object_statistics(self) -> ObjectStatistics: ...
