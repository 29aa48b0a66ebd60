"""Lineage as an answer: graphs of versions, and the graph behind one decision."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from ground.versions import Edge, Item, Origin

__all__ = ["DecisionLineage", "DecisionRecord", "Direction", "Lineage", "Node"]

Direction = Literal["up", "down"]


@dataclass(frozen=True)
class Node:
    """A version in a lineage graph, ``depth`` steps from where the walk began.

    ``item`` and ``origin`` are ``None`` when the reader may not see the version: it stays in the
    graph as a hash, so that what lies behind it keeps its connection.
    """

    hash: str
    depth: int
    item: Item | None = None
    origin: Origin | None = None

    def __str__(self) -> str:
        return f"{self.item or '(not yours to read)'} {self.hash[:12]}"

    def to_json(self) -> dict[str, Any]:
        """The node in plain JSON types."""
        return {
            "hash": self.hash,
            "depth": self.depth,
            "kind": self.item and self.item.kind,
            "name": self.item and self.item.name,
            "principal": self.origin and self.origin.principal,
            "at": self.origin and self.origin.at,
            "revision": self.origin and self.origin.revision,
        }


@dataclass(frozen=True)
class Lineage:
    """A part of a lineage graph: ``nodes`` by distance from the ``roots``, and ``edges``.

    ``direction`` is ``up`` (what the roots were made from) or ``down`` (what was made from them).
    ``workflows`` are the workflow versions that edges name. An edge stands on the page on which
    its further end stands, so the pages of one question together hold each edge once.
    """

    direction: Direction
    roots: tuple[str, ...]
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    workflows: tuple[Node, ...] = ()
    cursor: str | None = None

    def lines(self) -> Iterator[str]:
        """The graph as an indented tree; a version met again is named, but not unfolded again."""
        yield from _tree(self, [("", root) for root in self.roots])

    def to_json(self) -> dict[str, Any]:
        """The graph in plain JSON types."""
        return {
            "direction": self.direction,
            "roots": list(self.roots),
            "nodes": [node.to_json() for node in self.nodes],
            "edges": [
                {
                    "source": edge.source,
                    "target": edge.target,
                    "role": edge.role,
                    "workflow": edge.workflow,
                }
                for edge in self.edges
            ],
            "workflows": [node.to_json() for node in self.workflows],
            "cursor": self.cursor,
        }


class DecisionRecord(Protocol):
    """What a journalled decision tells about itself; ``versions`` are catalogue hashes."""

    @property
    def id(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def versions(self) -> Sequence[str]: ...

    @property
    def inputs(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class DecisionLineage:
    """Why a decision came out as it did: its inputs, the versions it used, and what is behind them.

    ``missing`` are the versions that the record names and the catalogue does not have.
    """

    id: str
    name: str
    inputs: Mapping[str, Any]
    lineage: Lineage
    missing: tuple[str, ...] = field(default=())

    def lines(self) -> Iterator[str]:
        """The decision as an indented tree."""
        yield f"decision {self.name} {self.id}"
        for name, value in self.inputs.items():
            yield f"  input {name} = {value!r}"
        for line in _tree(self.lineage, [("used ", root) for root in self.lineage.roots]):
            yield "  " + line
        for hash_ in self.missing:
            yield f"  used {hash_[:12]} (not in this catalogue)"

    def to_json(self) -> dict[str, Any]:
        """The decision in plain JSON types; inputs of other types are written as Python does."""
        return {
            "decision": self.id,
            "name": self.name,
            "inputs": {name: _plain(value) for name, value in self.inputs.items()},
            "lineage": self.lineage.to_json(),
            "missing": list(self.missing),
        }


def _tree(lineage: Lineage, roots: Sequence[tuple[str, str]]) -> Iterator[str]:
    names = {node.hash: str(node) for node in lineage.workflows + lineage.nodes}
    below: dict[str, list[tuple[str, str]]] = {}
    for edge in lineage.edges:
        near, far = edge.target, edge.source
        if lineage.direction == "down":
            near, far = far, near
        by = "" if edge.workflow is None else f" [{names.get(edge.workflow, edge.workflow[:12])}]"
        below.setdefault(near, []).append((f"{edge.role}{by} ", far))
    unfolded: set[str] = set()
    stack = [(0, label, hash_) for label, hash_ in reversed(roots)]
    while stack:
        depth, label, hash_ = stack.pop()
        children = below.get(hash_, [])
        again = bool(children) and hash_ in unfolded
        name = names.get(hash_, hash_[:12])
        yield "  " * depth + label + name + (" (see above)" if again else "")
        if not again:
            unfolded.add(hash_)
            stack.extend((depth + 1, *child) for child in reversed(children))


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float) and value - value == 0:
        return float(value)
    return repr(value)
