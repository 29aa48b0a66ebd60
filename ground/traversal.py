"""Walking the lineage graph in the database.

One recursive query finds versions breadth first. It carries bare row numbers, so that ``UNION`` can
drop a version met before (carrying the depth would enumerate paths), and it stops as soon as the
outer ``LIMIT`` is full, so that a page costs what it shows and not what is reachable. SQLite takes
rows from a recursion without ``ORDER BY`` first in, first out; depths follow from the edges among
the versions found.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, Integer, Select, bindparam, func, select

from ground import schema
from ground.lineage import Direction
from ground.lookup import in_chunks

__all__ = ["Reach", "Step", "newest_edge", "reach"]

_NEWEST = select(func.max(schema.edge.c.id))


@dataclass(frozen=True)
class Step:
    """An edge by row numbers."""

    source: int
    target: int
    role: str
    workflow: int | None


@dataclass(frozen=True)
class Reach:
    """One page of a walk: versions with their depths, the edges to them, and whether more is."""

    depths: dict[int, int]
    steps: list[Step]
    more: bool


def newest_edge(connection: Connection) -> int:
    """The number of the newest edge: walks that ignore newer ones see one state of the graph."""
    return connection.execute(_NEWEST).scalar() or 0


def reach(
    connection: Connection,
    starts: Sequence[int],
    *,
    direction: Direction,
    roles: Sequence[str],
    depth: int | None,
    newest: int,
    offset: int,
    limit: int,
) -> Reach:
    """The versions reached from ``starts``, those from place ``offset`` on, at most ``limit``.

    ``roles`` (empty for all) and ``newest`` (an edge number) say which edges are followed.
    """
    found = _found(connection, starts, direction, roles, newest, offset + limit + 1)
    rank = {id_: place for place, id_ in enumerate(found)}
    steps = _steps_among(connection, rank, roles, newest)
    depths = _depths(starts, steps, direction)
    within = [id_ for id_ in found if depth is None or depths[id_] <= depth]
    page = within[offset : offset + limit]
    last = min(offset + limit, len(within))
    return Reach(
        depths={id_: depths[id_] for id_ in page},
        steps=[
            step for step in steps if offset <= max(rank[step.source], rank[step.target]) < last
        ],
        more=len(within) > offset + limit,
    )


def _found(
    connection: Connection,
    starts: Sequence[int],
    direction: Direction,
    roles: Sequence[str],
    newest: int,
    count: int,
) -> list[int]:
    query = _walk(direction, bool(roles))
    arguments: dict[str, Any] = {"starts": list(starts), "newest": newest, "count": count}
    if roles:
        arguments["roles"] = list(roles)
    return list(connection.scalars(query, arguments))


def _steps_among(
    connection: Connection, ids: Iterable[int], roles: Sequence[str], newest: int
) -> list[Step]:
    """The edges among the versions, found by their targets: few come into a version, many leave."""
    query = _steps(bool(roles))
    arguments: dict[str, Any] = {"newest": newest, **({"roles": list(roles)} if roles else {})}
    among = set(ids)
    return [
        Step(source, target, role, workflow)
        for chunk in in_chunks(ids)
        for source, target, role, workflow in connection.execute(
            query, {"targets": list(chunk), **arguments}
        )
        if source in among
    ]


# Statements are built once: building one costs SQLAlchemy more than SQLite takes to run it.
@cache
def _walk(direction: Direction, by_role: bool) -> Select[Any]:
    edge, version = schema.edge.c, schema.version.c
    near, far = (edge.target, edge.source) if direction == "up" else (edge.source, edge.target)
    seeds = select(version.id).where(version.id.in_(bindparam("starts", expanding=True)))
    reached = seeds.cte("reached", recursive=True)
    following = select(far).join(reached, near == reached.c.id).where(*_followed(by_role))
    reached = reached.union(following)
    return select(reached.c.id).limit(bindparam("count", type_=Integer))


@cache
def _steps(by_role: bool) -> Select[Any]:
    edge = schema.edge.c
    return (
        select(edge.source, edge.target, edge.role, edge.workflow)
        .where(edge.target.in_(bindparam("targets", expanding=True)), *_followed(by_role))
        .order_by(edge.id)
    )


def _followed(by_role: bool) -> Iterator[ColumnElement[bool]]:
    yield schema.edge.c.id <= bindparam("newest")
    if by_role:
        yield schema.edge.c.role.in_(bindparam("roles", expanding=True))


def _depths(starts: Sequence[int], steps: Iterable[Step], direction: Direction) -> dict[int, int]:
    following: dict[int, list[int]] = {}
    for step in steps:
        near, far = step.source, step.target
        if direction == "up":
            near, far = far, near
        following.setdefault(near, []).append(far)
    depths = dict.fromkeys(starts, 0)
    queue = deque(depths)
    while queue:
        id_ = queue.popleft()
        for far in following.get(id_, ()):
            if far not in depths:
                depths[far] = depths[id_] + 1
                queue.append(far)
    return depths
