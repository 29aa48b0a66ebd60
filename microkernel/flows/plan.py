"""How a graph is carried out: which operators are fused, and which edges become channels.

Operators that run in the same place as those before them are *fused* into one stage: within a
stage a batch is handed from call to call, without a queue. Between stages there are channels.
Fusing must not make the stages wait for each other in a circle (``a -> thread b -> c`` and
``a -> c``: ``a`` and ``c`` stay apart), because a stage that waits for room in one channel does not
empty the others.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from microkernel.errors import GraphError
from microkernel.flows.graph import BATCH, CAPACITY, Graph, Node

__all__ = ["Edge", "Group", "Plan", "plan"]

PASSIVE = ("source", "merge", "feedback", "output")  # no code of their own


@dataclass(frozen=True)
class Edge:
    """What leads from an output of one operator to an input of another one."""

    source: int
    output: int
    target: int
    port: int
    feedback: bool
    capacity: int
    batch: int
    fused: bool
    scattered: bool  # each instance of the one side is linked with each of the other


@dataclass
class Group:
    """Operators that make one stage, in an order in which each comes after those it needs."""

    index: int
    placement: str
    instances: int
    nodes: list[int] = field(default_factory=list)
    cycle: int | None = None  # groups of one cycle have the same number


@dataclass
class Plan:
    """A graph made ready to run."""

    nodes: list[Node]
    groups: list[Group]
    group_of: list[int]
    edges: list[Edge]
    outputs: dict[str, tuple[int, int, int]]  # name: (node, output, capacity)


def plan(graph: Graph, placement: str) -> Plan:
    """The plan of ``graph``, where operators that do not say run at ``placement``; with an empty
    one all run inline."""
    nodes = list(graph.nodes)
    links = _links(nodes)
    outputs = _outputs(graph, nodes, links)
    working = [node for node in nodes if node.kind != "output"]
    if not any(node.kind in ("source", "generator") for node in nodes):
        raise GraphError(
            f"{graph!r} has no source",
            what=graph.name,
            expected="a source",
            remedy="begin with graph.source()",
        )
    places = _placements(working, links, placement)
    for name, (source, output, capacity) in outputs.items():
        if places[source] == "process":
            # What leaves other processes is gathered in this one.
            gathered = Node(
                index=len(nodes),
                kind="merge",
                name=f"{name} here",
                call=None,
                inputs=[(source, output)],
                outputs=("out",),
                placement="inline",
                instances=1,
                key=None,
                capacity=None,
                batch=None,
            )
            nodes.append(gathered)
            working.append(gathered)
            links.append((source, output, gathered.index, 0))
            places[gathered.index] = "inline"
            outputs[name] = (gathered.index, 0, capacity)
    group_of = _fuse(working, links, places, len(nodes))
    groups: dict[int, Group] = {}
    for node in working:
        root = group_of[node.index]
        if root not in groups:
            groups[root] = Group(len(groups), places[node.index], node.instances)
        groups[root].nodes.append(node.index)
    numbered = [groups[root].index if root >= 0 else -1 for root in group_of]
    edges = []
    for source, output, target, port in links:
        node = nodes[target]
        if node.kind != "output":
            back = node.kind == "feedback"
            edges.append(
                Edge(
                    source,
                    output,
                    target,
                    port,
                    back,
                    0 if back else node.capacity or CAPACITY,
                    node.batch or BATCH,
                    numbered[source] == numbered[target] and not back,
                    node.key is not None or nodes[source].instances != node.instances,
                )
            )
    made = Plan(nodes, list(groups.values()), numbered, edges, outputs)
    _mark_cycles(made)
    return made


def _links(nodes: list[Node]) -> list[tuple[int, int, int, int]]:
    """(node, output, node, port) of each stream that an operator takes."""
    links = []
    for node in nodes:
        if node.kind == "feedback" and not node.inputs:
            raise GraphError(
                f"nothing is led back to {node.name}",
                what=node.name,
                expected="a stream that is fed to it",
                remedy="graph.feed(stream, feedback)",
            )
        for port, (source, output) in enumerate(node.inputs):
            links.append((source, output, node.index, port if node.kind == "operator" else 0))
    return links


def _outputs(
    graph: Graph, nodes: list[Node], links: list[tuple[int, int, int, int]]
) -> dict[str, tuple[int, int, int]]:
    outputs = {
        node.name: (*node.inputs[0], node.capacity or 0) for node in nodes if node.kind == "output"
    }
    taken = {(source, output) for source, output, _, _ in links}
    for node in nodes:
        for port, name in enumerate(node.outputs):
            if (node.index, port) not in taken and node.kind != "output":
                name = node.name if len(node.outputs) == 1 else f"{node.name}.{name}"
                if name in outputs:
                    raise GraphError(
                        f"two outputs are named {name!r}",
                        what=name,
                        expected="one name for each output",
                        remedy="rename the operator or the output",
                    )
                outputs[name] = (node.index, port, 0)
    return outputs


def _placements(
    nodes: list[Node], links: list[tuple[int, int, int, int]], default: str
) -> dict[int, str]:
    """Where each node runs. What has no code runs with what follows it."""
    following: dict[int, list[Node]] = {node.index: [] for node in nodes}
    by_index = {node.index: node for node in nodes}
    for source, _, target, _ in links:
        if target in by_index:
            following[source].append(by_index[target])
    places: dict[int, str] = {}
    for node in reversed(nodes):
        if not default:
            places[node.index] = "inline"
        elif node.placement is not None or node.kind not in PASSIVE:
            places[node.index] = node.placement or default
        else:
            wanted = {
                places.get(after.index, "inline")
                if after.instances == 1 and after.key is None
                else "scattered"
                for after in following[node.index]
            }
            place = wanted.pop() if len(wanted) == 1 else "inline"
            if place == "scattered" or (place == "process" and node.kind == "source"):
                place = "inline" if node.kind == "source" else "thread"
            places[node.index] = place
    return places


def _fuse(
    nodes: list[Node],
    links: list[tuple[int, int, int, int]],
    places: dict[int, str],
    count: int,
) -> list[int]:
    """For each node a number that those it is fused with share; -1 for outputs."""
    group_of = [-1] * count
    by_index = {node.index: node for node in nodes}
    seen: list[tuple[int, int]] = []
    apart: set[tuple[int, int]] = set()
    for node in nodes:
        group_of[node.index] = node.index
        if node.kind == "feedback":
            continue
        into = [source for source, _, target, _ in links if target == node.index]
        seen += [(source, node.index) for source in into]
        if node.key is not None or node.capacity is not None or node.batch is not None:
            apart.update((source, node.index) for source in into)
            continue
        for source in dict.fromkeys(into):
            before = by_index[source]
            if (
                places[source] == places[node.index]
                and before.instances == node.instances
                and group_of[source] != group_of[node.index]
            ):
                joined = [
                    group_of[node.index] if group == group_of[source] else group
                    for group in group_of
                ]
                if len(into) == 1 or _may_be(joined, seen, apart):
                    group_of = joined
    return group_of


def _may_be(group_of: list[int], links: list[tuple[int, int]], apart: set[tuple[int, int]]) -> bool:
    """Whether no group needs, by way of others, itself, and what asked for a channel has one."""
    before: dict[int, set[int]] = {}
    for source, target in links:
        before.setdefault(group_of[source], set())
        needs = before.setdefault(group_of[target], set())
        if group_of[source] != group_of[target]:
            needs.add(group_of[source])
        elif (source, target) in apart:
            return False
    while True:
        free = [group for group, needs in before.items() if not needs]
        if not free:
            return not before
        for group in free:
            del before[group]
        for needs in before.values():
            needs.difference_update(free)


def _mark_cycles(made: Plan) -> None:
    """Number the sets of groups that lead back to one another; only feedbacks make such."""
    after: dict[int, set[int]] = {group.index: set() for group in made.groups}
    for edge in made.edges:
        if not edge.fused:
            after[made.group_of[edge.source]].add(made.group_of[edge.target])
    if not any(edge.feedback for edge in made.edges):
        return
    reached = {group: _reachable(group, after) for group in after}
    for group in made.groups:
        if group.cycle is None and group.index in reached[group.index]:
            for other in made.groups:
                if other.index in reached[group.index] and group.index in reached[other.index]:
                    other.cycle = group.index


def _reachable(start: int, after: dict[int, set[int]]) -> set[int]:
    """What can be reached from ``start`` in one step or more."""
    found: set[int] = set()
    todo = list(after[start])
    while todo:
        group = todo.pop()
        if group not in found:
            found.add(group)
            todo.extend(after[group])
    return found
