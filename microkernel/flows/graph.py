"""What a flow computes: operators and the streams between them.

A graph is only a description. It is built from front to back, so every stream exists before it is
used and a graph has no cycles but those that ``feedback`` opens and ``feed`` closes: that is what
the promise that cycles never block rests on. ``Kernel.flow`` runs a graph, as often as one likes.

The vocabulary (source, map, filter, flat_map, merge, sink, feedback) is that of Timely Dataflow and
of the stream processors after it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol, overload

from microkernel.errors import GraphError
from microkernel.settings import PLACEMENTS

__all__ = ["BATCH", "CAPACITY", "Graph", "Node", "Operator", "OperatorContext", "Stream"]

BATCH = 1024  # items that an operator is given at once, at most
CAPACITY = 4096  # items that wait on an edge, at most


@dataclass(frozen=True)
class OperatorContext:
    """Where an operator runs: of which ``flow``, under which name, as which ``instance``."""

    flow: str
    operator: str
    instance: int
    instances: int


class Operator(Protocol):
    """An operator that sees batches and keeps state.

    ``process(batch)`` is given a list and returns the items that follow, or None; an operator of
    several streams is called ``process(batch, port)``, the position of the stream; one with several
    ``outputs`` returns one list for each. ``open(context)`` is called before the first batch.
    ``close()`` is called once, after the last batch or when the flow has failed; what it returns at
    a regular end goes on like the result of ``process``. Both may be left out.
    """

    def process(self, batch: list[Any], /) -> Iterable[Any] | None: ...


@dataclass(frozen=True)
class Stream:
    """The items that leave one output of a node; made by the methods of ``Graph``."""

    graph: Graph = field(repr=False)
    node: int
    port: int = 0

    @property
    def name(self) -> str:
        """The node's name, and the output's where there are several."""
        made_by = self.graph.nodes[self.node]
        if len(made_by.outputs) == 1:
            return made_by.name
        return f"{made_by.name}.{made_by.outputs[self.port]}"


@dataclass
class Node:
    """One operator of a graph."""

    index: int
    kind: str
    name: str
    call: Any
    inputs: list[tuple[int, int]]  # (node, output) that each input stream comes from
    outputs: tuple[str, ...]
    placement: str | None
    instances: int
    key: Callable[[Any], object] | None
    capacity: int | None
    batch: int | None


class Graph:
    """Operators linked by streams.

    >>> graph = Graph("squares")
    >>> numbers = graph.source("numbers")
    >>> odd = graph.filter(numbers, lambda n: n % 2)
    >>> squares = graph.map(odd, lambda n: n * n)

    All operators take these arguments by name:

    - ``name``: under which errors and counters speak of it; default: the function's.
    - ``placement``: ``inline``, ``thread`` or ``process``; default: the kernel's own.
    - ``instances``: how many run side by side. Items are dealt out batch by batch, or
      with ``key``, a function of the item, so that all items of a key meet the same instance. An
      operator without ``key`` that follows one with as many instances keeps its partition.
    - ``capacity``: how many items wait in front of it, at most; ``batch``: how many it is given at
      once, at most. An operator that has either, or ``key``, is not fused with the one before it.
    """

    def __init__(self, name: str = "flow") -> None:
        self.name = name
        self.nodes: list[Node] = []
        self._names: set[str] = set()

    def __repr__(self) -> str:
        return f"<Graph {self.name!r} of {len(self.nodes)} operators>"

    def source(
        self,
        name: str = "source",
        items: Callable[[], Iterable[Any]] | None = None,
        *,
        placement: str | None = None,
        batch: int | None = None,
        capacity: int | None = None,
    ) -> Stream:
        """Where items enter: by ``flow.put``, or with ``items`` from the iterable that it returns,
        which is read where ``placement`` says and only as fast as the flow goes on."""
        kind = "source" if items is None else "generator"
        return self._add(kind, name, items, (), placement=placement, batch=batch, capacity=capacity)

    def map(self, stream: Stream, function: Callable[[Any], Any], **options: Any) -> Stream:
        """``function`` of each item."""
        return self._add("map", options.pop("name", None), function, (stream,), **options)

    def filter(self, stream: Stream, function: Callable[[Any], object], **options: Any) -> Stream:
        """The items for which ``function`` is true."""
        return self._add("filter", options.pop("name", None), function, (stream,), **options)

    def flat_map(
        self, stream: Stream, function: Callable[[Any], Iterable[Any]], **options: Any
    ) -> Stream:
        """The elements of what ``function`` returns for each item. They are taken from it only as
        fast as they go on, so it may be a generator without end."""
        return self._add("flat_map", options.pop("name", None), function, (stream,), **options)

    def merge(self, *streams: Stream, name: str = "merge") -> Stream:
        """The items of all streams, each stream's in its own order."""
        return self._add("merge", name, None, streams)

    @overload
    def operator(
        self, streams: Stream | Iterable[Stream], make: Any, *, outputs: None = None, **options: Any
    ) -> Stream: ...
    @overload
    def operator(
        self,
        streams: Stream | Iterable[Stream],
        make: Any,
        *,
        outputs: Iterable[str],
        **options: Any,
    ) -> tuple[Stream, ...]: ...
    def operator(
        self,
        streams: Stream | Iterable[Stream],
        make: Any,
        *,
        outputs: Iterable[str] | None = None,
        **options: Any,
    ) -> Stream | tuple[Stream, ...]:
        """An ``Operator``, which sees batches: ``make`` returns one for each instance, or is one.

        With ``outputs``, their names, the streams of all of them are returned.
        """
        inputs = (streams,) if isinstance(streams, Stream) else tuple(streams)
        if not hasattr(make, "process") and not callable(make):
            raise GraphError(
                f"{make!r} is no operator",
                what="make",
                expected="an object with the method process, its class, or a function returning it",
                remedy="use map, filter or flat_map for a function of one item",
            )
        single = hasattr(make, "process") and not isinstance(make, type)
        if single and options.get("instances", 1) > 1:
            raise GraphError(
                f"one {type(make).__qualname__} for {options['instances']} instances",
                what="make",
                expected="a class, or a function that returns an operator",
                remedy="each instance needs an operator of its own",
            )
        name = options.pop("name", None)
        if name is None and single:
            name = type(make).__qualname__
        names = None if outputs is None else tuple(outputs)
        first = self._add("operator", name, make, inputs, outputs=names or ("out",), **options)
        if names is None:
            return first
        return tuple(Stream(self, first.node, port) for port in range(len(names)))

    def sink(self, stream: Stream, function: Callable[[Any], object], **options: Any) -> None:
        """Call ``function`` with each item; what it returns is dropped."""
        self._add("sink", options.pop("name", None), function, (stream,), outputs=(), **options)

    def output(self, stream: Stream, name: str, *, capacity: int = 0) -> None:
        """Give the items to whoever reads ``flow.results(name)``. At most ``capacity`` wait there
        (0: any number). Streams that nothing else takes have such an output by themselves."""
        self._add("output", name, None, (stream,), outputs=(), capacity=capacity or None)

    def feedback(self, name: str = "feedback", **options: Any) -> Stream:
        """The beginning of a cycle: a stream of what ``feed`` will lead here.

        What comes back goes before what is new, and nothing waits for room in front of a feedback:
        that is why a cycle cannot block itself. It ends when its other inputs have ended and no
        item is left in it.
        """
        return self._add("feedback", name, None, (), **options)

    def feed(self, stream: Stream, feedback: Stream) -> None:
        """Lead ``stream`` back to a ``feedback``."""
        self._check(stream)
        self._check(feedback)
        head = self.nodes[feedback.node]
        if head.kind != "feedback":
            raise GraphError(
                f"{head.name} is no feedback",
                what=head.name,
                expected="a stream made by graph.feedback()",
                remedy="open the cycle with graph.feedback() in front of its first operator",
            )
        head.inputs.append((stream.node, stream.port))

    def _check(self, stream: Stream) -> None:
        if not isinstance(stream, Stream) or stream.graph is not self:
            raise GraphError(
                f"{stream!r} is no stream of this graph",
                what="stream",
                expected="what a method of this graph returned",
                remedy="build each graph from its own streams",
            )

    def _add(
        self,
        kind: str,
        name: str | None,
        call: Any,
        inputs: Iterable[Stream],
        *,
        outputs: tuple[str, ...] = ("out",),
        placement: str | None = None,
        instances: int = 1,
        key: Callable[[Any], object] | None = None,
        capacity: int | None = None,
        batch: int | None = None,
    ) -> Stream:
        streams = tuple(inputs)
        for stream in streams:
            self._check(stream)
        if kind in ("merge", "operator") and not streams:
            raise GraphError(
                f"{name or kind} has no streams", what="streams", expected="one or more", remedy=""
            )
        if placement is not None and placement not in PLACEMENTS:
            raise GraphError(
                f"no placement is named {placement!r}",
                what="placement",
                expected=" or ".join(PLACEMENTS),
                remedy="leave it out for the kernel's own",
            )
        for what, value in (("instances", instances), ("capacity", capacity), ("batch", batch)):
            if value is not None and not (isinstance(value, int) and value > 0):
                raise GraphError(
                    f"{what} is {value!r}", what=what, expected="1 or more", remedy="leave it out"
                )
        if kind in ("map", "filter", "flat_map", "sink", "generator"):
            _check_function(call)
        if key is not None:
            _check_function(key)
        node = Node(
            len(self.nodes),
            kind,
            self._unique(name or getattr(call, "__name__", None) or type(call).__name__),
            call,
            [(stream.node, stream.port) for stream in streams],
            outputs,
            placement,
            instances,
            key,
            capacity,
            batch,
        )
        self.nodes.append(node)
        return Stream(self, node.index)

    def _unique(self, name: str) -> str:
        unique = name
        count = 1
        while unique in self._names:
            count += 1
            unique = f"{name}-{count}"
        self._names.add(unique)
        return unique


def _check_function(call: object) -> None:
    if not callable(call):
        raise GraphError(
            f"{call!r} cannot be called", what=repr(call), expected="a function", remedy=""
        )
    if inspect.iscoroutinefunction(call):
        raise GraphError(
            f"{call!r} is a coroutine function",
            what=repr(call),
            expected="a function",
            remedy="await outside of the flow and put what came of it",
        )
