from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from numpy.typing import DTypeLike, NDArray

from microkernel.objects import ObjectStatistics
from microkernel.pending import Pending
from microkernel.streaming import Streamer
from microkernel.streams import Stream
from microkernel.task import Ref

_T = TypeVar("_T")
_Progress = str | bool | Callable[[int, int | None], object] | None

class Submitter:
    def submit(self, function: Callable[..., _T], *args: Any, **kwargs: Any) -> Ref[_T]: ...
    def map(
        self,
        function: Callable[..., _T],
        *iterables: Iterable[Any],
        window: int = 1024,
        progress: _Progress = None,
    ) -> Iterator[_T]: ...
    def stream(
        self, function: Callable[..., Iterable[_T]], *args: Any, window: int = 16, **kwargs: Any
    ) -> Stream[_T]: ...

class AsCompleted(Iterator[Ref[_T]], AsyncIterator[Ref[_T]]):
    def __len__(self) -> int: ...
    def __next__(self) -> Ref[_T]: ...
    async def __anext__(self) -> Ref[_T]: ...

class Engine(Streamer):
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
    def close(self, *, cancel: bool = False) -> None: ...
    def submit(self, function: Callable[..., _T], *args: Any, **kwargs: Any) -> Ref[_T]: ...
    def options(
        self,
        *,
        placement: str | None = None,
        deadline: float | None = None,
        fallback: object = ...,
        priority: int = 0,
        resources: Mapping[str, float] | None = None,
        retries: int = 0,
        retry_on: type[BaseException]
        | tuple[type[BaseException], ...]
        | Callable[[BaseException], bool] = ...,
        backoff: float = 0.0,
        crash_retries: int = 3,
    ) -> Submitter: ...
    def map(
        self,
        function: Callable[..., _T],
        *iterables: Iterable[Any],
        window: int = 1024,
        progress: _Progress = None,
    ) -> Iterator[_T]: ...
    def stream(
        self, function: Callable[..., Iterable[_T]], *args: Any, window: int = 16, **kwargs: Any
    ) -> Stream[_T]: ...
    def put(self, value: _T) -> Ref[_T]: ...
    def empty(self, shape: int | tuple[int, ...], dtype: DTypeLike = ...) -> NDArray[Any]: ...
    def object_statistics(self) -> ObjectStatistics | None: ...
    @overload
    def get(self, refs: Ref[_T], timeout: float | None = None) -> _T: ...
    @overload
    def get(self, refs: Iterable[Ref[_T]], timeout: float | None = None) -> list[_T]: ...
    def wait(
        self,
        refs: Iterable[Ref[_T]] | Pending[_T],
        count: int = 1,
        timeout: float | None = None,
        *,
        progress: Callable[[int, int], object] | None = None,
    ) -> tuple[list[Ref[_T]], Pending[_T]]: ...
    @overload
    def as_completed(
        self, refs: Iterable[Ref[_T]], timeout: float | None = None, *, progress: None = None
    ) -> AsCompleted[_T]: ...
    @overload
    def as_completed(
        self, refs: Iterable[Ref[_T]], timeout: float | None = None, *, progress: str | bool
    ) -> Iterator[Ref[_T]]: ...
    def cancel(self, ref: Ref[Any], *, force: bool = False) -> bool: ...
