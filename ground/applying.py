"""Applying changes to the database: what live writing and rebuilding share.

``apply`` depends on nothing but the changes and the rows already there, so the same transactions in
the same order make the same rows. It takes many changes at once and writes each table with one
``executemany``, which is what makes a batch cheap; rows are numbered in the order of the changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Table, bindparam, func, insert, select, update
from sqlalchemy.dialects import sqlite

from ground import schema
from ground.canonical import canonical
from ground.changes import Change, EdgeAdded, ItemAdded, RefMoved, VersionAdded
from ground.errors import CompareAndSetFailed, CycleRefused
from ground.lookup import (
    in_chunks,
    item_ids,
    ref_target,
    unknown_item,
    unknown_version,
    version_ids,
)
from ground.versions import Edge, Ref

__all__ = ["apply"]

_LAST_VERSION = select(func.max(schema.version.c.id))
_LAST_EDGE = select(func.max(schema.edge.c.id))
_EDGES_AFTER = (
    select(schema.edge.c.source, schema.edge.c.target, schema.edge.c.role, schema.edge.c.workflow)
    .where(schema.edge.c.id > bindparam("last"))
    .order_by(schema.edge.c.id)
)
_BACKWARD_EDGE = (
    select(schema.edge.c.id).where(schema.edge.c.source > schema.edge.c.target).limit(1)
)
_INSERT = {table: insert(table) for table in schema.metadata.tables.values()} | {
    schema.edge: sqlite.insert(schema.edge).on_conflict_do_nothing()
}


def apply(connection: Connection, revision: int, changes: Sequence[Change]) -> list[Change]:
    """Make the changes part of transaction ``revision``; return those that had an effect.

    An item, version or edge that is already there has none. Items are made first, then versions,
    edges and moves. Raises ``UnknownItem``, ``UnknownVersion``, ``CycleRefused`` or
    ``CompareAndSetFailed``; the caller then undoes the whole transaction.
    """
    items = [change for change in changes if isinstance(change, ItemAdded)]
    versions = [change for change in changes if isinstance(change, VersionAdded)]
    edges = [change for change in changes if isinstance(change, EdgeAdded)]
    moves = [change for change in changes if isinstance(change, RefMoved)]
    effective: list[Change] = []
    if items:
        effective += _add_items(connection, revision, items)
    if versions:
        effective += _add_versions(connection, revision, versions)
    if edges:
        effective += _add_edges(connection, revision, edges)
    for move in moves:
        _move(connection, revision, move)
        effective.append(move)
    return effective


def _add_items(
    connection: Connection, revision: int, changes: Iterable[ItemAdded]
) -> list[ItemAdded]:
    known = item_ids(connection, (change.item for change in changes))
    new = {change.item: change for change in changes if change.item not in known}
    _insert(
        connection,
        schema.item,
        [{"kind": item.kind, "name": item.name, "revision": revision} for item in new],
    )
    return list(new.values())


def _add_versions(
    connection: Connection, revision: int, changes: Iterable[VersionAdded]
) -> list[VersionAdded]:
    versions = {change.version.hash: change for change in changes}
    named = {parent for change in versions.values() for parent in change.version.parents}
    known = version_ids(connection, versions.keys() | named)
    items = item_ids(connection, {change.version.item for change in versions.values()})
    new = [change for hash_, change in versions.items() if hash_ not in known]
    last = connection.execute(_LAST_VERSION).scalar() or 0
    rows: list[dict[str, Any]] = []
    parents: list[dict[str, Any]] = []
    tags: list[dict[str, Any]] = []
    for id_, change in enumerate(new, start=last + 1):
        version = change.version
        item = items.get(version.item)
        if item is None:
            raise unknown_item(version.item)
        rows.append(
            {
                "id": id_,
                "item": item,
                "hash": bytes.fromhex(version.hash),
                "document": version.document,
                "revision": revision,
            }
        )
        for hash_ in version.parents:
            parent_id, parent_item = known.get(hash_, (0, 0))
            if parent_item != item:
                raise unknown_version(hash_, f"a version of {version.item} made before")
            parents.append({"version": id_, "parent": parent_id})
        for key, value in version.tags.items():
            tags.append({"version": id_, "key": key, "value": canonical(value).decode()})
        known[version.hash] = (id_, item)
    _insert(connection, schema.version, rows)
    _insert(connection, schema.parent, parents)
    _insert(connection, schema.tag, tags)
    return new


def _add_edges(
    connection: Connection, revision: int, changes: Iterable[EdgeAdded]
) -> list[EdgeAdded]:
    edges = {change.edge: change for change in changes}
    known = version_ids(
        connection,
        {
            hash_
            for edge in edges
            for hash_ in (edge.source, edge.target, edge.workflow)
            if hash_ is not None
        },
    )
    last = connection.execute(_LAST_EDGE).scalar() or 0
    backward = connection.execute(_BACKWARD_EDGE).first() is not None
    pending: list[dict[str, Any]] = []
    by_row: dict[tuple[int, int, str, int | None], EdgeAdded] = {}
    for edge, change in edges.items():
        row = _edge_row(edge, known, revision)
        by_row[row["source"], row["target"], row["role"], row["workflow"]] = change
        runs_backward = row["source"] >= row["target"]
        if runs_backward or backward:
            _insert(connection, schema.edge, pending)
            pending = []
            if _leads_to(connection, row["target"], row["source"]):
                raise _cycle(edge)
        pending.append(row)
        backward = backward or runs_backward
    _insert(connection, schema.edge, pending)
    # Those that were there already have been passed over.
    new = connection.execute(_EDGES_AFTER, {"last": last})
    return [by_row[row.source, row.target, row.role, row.workflow] for row in new]


def _edge_row(edge: Edge, known: dict[str, tuple[int, int]], revision: int) -> dict[str, Any]:
    for hash_ in (edge.source, edge.target, edge.workflow):
        if hash_ is not None and hash_ not in known:
            raise unknown_version(hash_, "the hash of a version in the catalogue")
    return {
        "source": known[edge.source][0],
        "target": known[edge.target][0],
        "role": edge.role,
        "workflow": None if edge.workflow is None else known[edge.workflow][0],
        "revision": revision,
    }


def _leads_to(connection: Connection, start: int, goal: int) -> bool:
    """Whether ``goal`` is ``start`` or comes after it, by edges and by succession."""
    edge, parent = schema.edge.c, schema.parent.c
    seen = {start}
    frontier = [start]
    while frontier and goal not in seen:
        reached: set[int] = set()
        for chunk in in_chunks(frontier):
            reached.update(connection.scalars(select(edge.target).where(edge.source.in_(chunk))))
            reached.update(
                connection.scalars(select(parent.version).where(parent.parent.in_(chunk)))
            )
        frontier = list(reached - seen)
        seen |= reached
    return goal in seen


def _move(connection: Connection, revision: int, change: RefMoved) -> None:
    ref = change.ref
    found = ref_target(connection, ref)
    if found != change.old:
        raise CompareAndSetFailed(
            f"{ref} points to {found or 'nowhere'}, not to {change.old or 'nowhere'}",
            what=str(ref),
            expected=change.old or "nowhere",
            found=found,
        )
    item = item_ids(connection, [ref.item]).get(ref.item)
    if item is None:
        raise unknown_item(ref.item)
    known = version_ids(connection, [hash_ for hash_ in (change.old, change.new) if hash_])
    old = None if change.old is None else known[change.old][0]
    new = None
    if change.new is not None:
        new, item_of_new = known.get(change.new, (0, 0))
        if item_of_new != item:
            raise unknown_version(change.new, f"the hash of a version of {ref.item}")
    ref_id = _ref_id(connection, item, ref)
    if ref_id is None:
        ref_id = connection.execute(
            insert(schema.ref)
            .values(item=item, name=ref.name, version=new)
            .returning(schema.ref.c.id)
        ).scalar_one()
    else:
        connection.execute(update(schema.ref).where(schema.ref.c.id == ref_id).values(version=new))
    _insert(
        connection,
        schema.move,
        [{"ref": ref_id, "old": old, "new": new, "revision": revision}],
    )


def _ref_id(connection: Connection, item: int, ref: Ref) -> int | None:
    return connection.execute(
        select(schema.ref.c.id).where(schema.ref.c.item == item, schema.ref.c.name == ref.name)
    ).scalar_one_or_none()


def _insert(connection: Connection, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    if rows:
        connection.execute(_INSERT[table], rows)


def _cycle(edge: Edge) -> CycleRefused:
    return CycleRefused(
        f"{edge.source[:12]} comes from {edge.target[:12]} already",
        what=f"edge {edge.role} {edge.source} -> {edge.target}",
        expected="a source that does not descend from the target",
        remedy="exchange source and target, or make a new version of the target",
    )
