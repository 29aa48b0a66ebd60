from collections.abc import Callable, Iterator, Sequence
from os import PathLike
from typing import Any, Generic, TypeVar, overload

from microkernel.actors.options import ActorOptions
from microkernel.actors.reference import ActorRef
from microkernel.engine import Engine
from microkernel.event_sink import EventSink
from microkernel.flows.flow import Flow
from microkernel.flows.graph import Graph
from microkernel.flows.template import Template
from microkernel.replaying import Replaying
from microkernel.settings import KernelSettings
from microkernel.tracing.counters import KernelCounters
from microkernel.tracing.entries import TraceEntry
from microkernel.tracing.metrics import MetricsServer

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
    def spawn(
        self, cls: type, /, *args: Any, options: ActorOptions | None = None, **kwargs: Any
    ) -> ActorRef: ...
    def actor(self, name: str) -> ActorRef: ...
    def stop(self, actor: ActorRef, *, now: bool = False) -> None: ...
    def refer_to_actor(self, key: bytes, cls: type, described: str, source: str) -> ActorRef: ...
    def flow(self, graph: Graph) -> Flow: ...
    def template(
        self,
        name: str = "template",
        *,
        placement: str | None = None,
        deadline: float | None = None,
        parallel: bool = False,
    ) -> Template: ...
    def trace(self) -> Iterator[TraceEntry]: ...
    @overload
    def timeline(self, path: None = None, *, arrows: bool = False) -> str: ...
    @overload
    def timeline(self, path: str | PathLike[str], *, arrows: bool = False) -> None: ...
    def counters(self) -> KernelCounters: ...
    def serve_metrics(self, port: int = 0) -> MetricsServer: ...
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

def current_kernel() -> Kernel: ...
def stand_for_process(kernel: Kernel, *, worker: bool) -> None: ...
