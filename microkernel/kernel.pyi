from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from microkernel.engine import Engine
from microkernel.event_sink import EventSink
from microkernel.replaying import Replaying
from microkernel.settings import KernelSettings

_T = TypeVar("_T")

class Decision(Generic[_T]):
    @property
    def id(self) -> bytes: ...
    @property
    def answer(self) -> _T: ...

class EventLog:
    def append(
        self,
        kind: int,
        payload: bytes | bytearray | memoryview,
        *,
        decision: bytes | None = None,
        flags: int = 0,
    ) -> None: ...
    @property
    def kept(self) -> bool: ...

class Kernel(Engine):
    @property
    def events(self) -> EventLog: ...
    def __init__(
        self,
        settings: KernelSettings | None = None,
        *,
        sink: EventSink | None = None,
        run_id: bytes | None = None,
    ) -> None: ...
    def decision(
        self,
        function: Callable[..., _T],
        *args: Any,
        subject: object = None,
        policy: object = None,
        versions: Sequence[str] = (),
        **kwargs: Any,
    ) -> Any: ...
    def replay(
        self,
        decision: bytes,
        boundary: Replaying,
        function: Callable[..., _T],
        *args: Any,
        **kwargs: Any,
    ) -> Any: ...
