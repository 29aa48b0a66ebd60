"""From a walk over rows to the lineage graph that one reader may see."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from enclave.authority import Action
from ground.access import Gate, Owners
from ground.cursors import Cursor, checked_limit, mark_of
from ground.errors import BadCursor
from ground.lineage import Direction, Lineage, Node
from ground.lookup import unknown_version, version_ids
from ground.reading import Described, described
from ground.traversal import newest_edge, reach
from ground.versions import Edge, checked_role

__all__ = ["walk"]


def walk(
    connection: Connection,
    gate: Gate,
    owners: Owners,
    roots: Sequence[str],
    *,
    direction: Direction,
    depth: int | None,
    roles: Sequence[str],
    limit: int,
    cursor: str | None,
    demand_roots: bool,
) -> Lineage:
    """One page of the lineage of ``roots``, each version of it shown only if it may be read.

    ``demand_roots`` makes it an error when a root itself may not be read.
    """
    if depth is not None and (isinstance(depth, bool) or not isinstance(depth, int) or depth < 0):
        raise BadCursor(
            f"{depth!r} is not a depth",
            what="depth",
            expected="a number of steps from 0 on, or None for all",
            remedy="ask for depth=None",
        )
    mark = mark_of(direction, tuple(roots), depth, sorted(roles))
    begun = Cursor.parse(cursor, mark) if cursor is not None else None
    offset = begun.position if begun else 0
    newest = begun.snapshot if begun else newest_edge(connection)
    known = version_ids(connection, roots)
    for root in roots:
        if root not in known:
            raise unknown_version(root, "the hash of a version in the catalogue")
    starts = [known[root][0] for root in roots]
    if demand_roots:
        for one in described(connection, starts).values():
            owners.learn(one.item, *one.ownership)
            gate.demand(Action.READ, one.item, one.hash)
    found = reach(
        connection,
        starts,
        direction=direction,
        roles=[checked_role(role) for role in roles],
        depth=depth,
        newest=newest,
        offset=offset,
        limit=checked_limit(limit),
    )
    made_by = {step.workflow for step in found.steps if step.workflow is not None}
    ends = {end for step in found.steps for end in (step.source, step.target)}
    seen = described(connection, dict.fromkeys([*found.depths, *sorted(made_by | ends)]))
    for one in seen.values():
        owners.learn(one.item, *one.ownership)
    return Lineage(
        direction=direction,
        roots=tuple(roots),
        nodes=tuple(_node(seen[id_], at, gate) for id_, at in found.depths.items()),
        edges=tuple(
            Edge(
                seen[step.source].hash,
                seen[step.target].hash,
                step.role,
                None if step.workflow is None else seen[step.workflow].hash,
            )
            for step in found.steps
        ),
        workflows=tuple(_node(seen[id_], 0, gate) for id_ in sorted(made_by)),
        cursor=str(Cursor(mark, offset + limit, newest)) if found.more else None,
    )


def _node(one: Described, depth: int, gate: Gate) -> Node:
    if gate.may_read(one.item, one.hash):
        return Node(one.hash, depth, one.item, one.origin)
    return Node(one.hash, depth)
