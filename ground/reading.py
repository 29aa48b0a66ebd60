"""Questions to the database whose answers are not graphs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, bindparam, select

from ground import schema
from ground.canonical import canonical
from ground.lookup import in_chunks
from ground.versions import Item, Origin, Ref, RefMove, Scalar, Version

__all__ = [
    "Described",
    "Ownership",
    "described",
    "find_items",
    "find_versions",
    "moves_of",
    "origin_of",
    "ownership_of",
    "ref_target_at",
    "versions_like",
]


_MADE = schema.change.alias("made")
_DESCRIBED = (
    select(
        schema.version.c.id,
        schema.version.c.hash,
        schema.item.c.kind,
        schema.item.c.name,
        schema.change.c.revision,
        schema.change.c.at,
        schema.change.c.principal,
        _MADE.c.principal,
        _MADE.c.at,
    )
    .join(schema.item, schema.item.c.id == schema.version.c.item)
    .join(schema.change, schema.change.c.revision == schema.version.c.revision)
    .join(_MADE, _MADE.c.revision == schema.item.c.revision)
    .where(schema.version.c.id.in_(bindparam("ids", expanding=True)))
)
_OWNERSHIP = (
    select(schema.change.c.principal, schema.change.c.at)
    .join(schema.item, schema.item.c.revision == schema.change.c.revision)
    .where(schema.item.c.kind == bindparam("of_kind"), schema.item.c.name == bindparam("of_name"))
)


class Ownership(NamedTuple):
    """Who owns an item, and since when (unix nanoseconds)."""

    principal: str
    since: int


class Described(NamedTuple):
    """What a graph shows of a version."""

    hash: str
    item: Item
    origin: Origin
    ownership: Ownership


def described(connection: Connection, ids: Iterable[int]) -> dict[int, Described]:
    """What graphs show of these versions, by row number."""
    return {
        id_: Described(
            hash_.hex(), Item(kind, name), Origin(revision, at, author), Ownership(owner, since)
        )
        for chunk in in_chunks(ids)
        for id_, hash_, kind, name, revision, at, author, owner, since in connection.execute(
            _DESCRIBED, {"ids": list(chunk)}
        )
    }


def ownership_of(connection: Connection, item: Item) -> Ownership | None:
    """Who made the item, or ``None`` when there is no such item."""
    row = connection.execute(_OWNERSHIP, {"of_kind": item.kind, "of_name": item.name}).first()
    return None if row is None else Ownership(*row)


def versions_like(connection: Connection, prefix: str, limit: int) -> list[Version]:
    """The versions whose hashes begin so."""
    lowest = bytes.fromhex(prefix.ljust(64, "0"))
    highest = bytes.fromhex(prefix.ljust(64, "f"))
    rows = connection.execute(
        _select_versions().where(schema.version.c.hash.between(lowest, highest)).limit(limit)
    )
    return [
        Version(Item(kind, name), hash_.hex(), document) for kind, name, hash_, document in rows
    ]


def origin_of(connection: Connection, hash_: str) -> Origin | None:
    """Who brought the version into the catalogue."""
    row = connection.execute(
        select(schema.change.c.revision, schema.change.c.at, schema.change.c.principal)
        .join(schema.version, schema.version.c.revision == schema.change.c.revision)
        .where(schema.version.c.hash == bytes.fromhex(hash_))
    ).first()
    return None if row is None else Origin(*row)


def find_items(
    connection: Connection, *, kind: str | None, after: int, limit: int
) -> list[tuple[int, Item]]:
    """Items from row number ``after`` on, oldest first."""
    item = schema.item.c
    query = select(item.id, item.kind, item.name).where(item.id > after)
    if kind is not None:
        query = query.where(item.kind == kind)
    rows = connection.execute(query.order_by(item.id).limit(limit))
    return [(id_, Item(found, name)) for id_, found, name in rows]


def find_versions(
    connection: Connection,
    *,
    kind: str | None,
    name: str | None,
    tags: Mapping[str, Scalar],
    before: int | None,
    limit: int,
) -> list[tuple[int, Version]]:
    """Versions from row number ``before`` backwards, newest first."""
    query = _select_versions(schema.version.c.id)
    if kind is not None:
        query = query.where(schema.item.c.kind == kind)
    if name is not None:
        query = query.where(schema.item.c.name == name)
    for key, value in tags.items():
        tag = schema.tag.alias()
        query = query.join(tag, tag.c.version == schema.version.c.id).where(
            tag.c.key == key, tag.c.value == canonical(value, name=f"tag {key}").decode()
        )
    if before is not None:
        query = query.where(schema.version.c.id < before)
    rows = connection.execute(query.order_by(schema.version.c.id.desc()).limit(limit))
    return [
        (id_, Version(Item(kind_, name_), hash_.hex(), document))
        for kind_, name_, hash_, document, id_ in rows
    ]


def moves_of(
    connection: Connection, ref: Ref, *, before: int | None, limit: int
) -> list[tuple[int, RefMove]]:
    """Moves of a reference from row number ``before`` backwards, newest first."""
    move, change = schema.move, schema.change
    old, new = schema.version.alias("old"), schema.version.alias("new")
    query = (
        select(move.c.id, old.c.hash, new.c.hash)
        .add_columns(change.c.revision, change.c.at, change.c.principal)
        .select_from(_moves())
        .join(change, change.c.revision == move.c.revision)
        .outerjoin(old, old.c.id == move.c.old)
        .outerjoin(new, new.c.id == move.c.new)
        .where(_is(ref))
    )
    if before is not None:
        query = query.where(move.c.id < before)
    rows = connection.execute(query.order_by(move.c.id.desc()).limit(limit))
    return [
        (id_, RefMove(ref, from_ and from_.hex(), to and to.hex(), Origin(revision, at, principal)))
        for id_, from_, to, revision, at, principal in rows
    ]


def ref_target_at(connection: Connection, ref: Ref, at: int) -> str | None:
    """The hash of the version that the reference pointed to at a moment (unix nanoseconds)."""
    move, change = schema.move, schema.change
    hash_: bytes | None = connection.execute(
        select(schema.version.c.hash)
        .select_from(_moves())
        .join(change, change.c.revision == move.c.revision)
        .outerjoin(schema.version, schema.version.c.id == move.c.new)
        .where(_is(ref), change.c.at <= at)
        .order_by(move.c.id.desc())
        .limit(1)
    ).scalar_one_or_none()
    return None if hash_ is None else hash_.hex()


def _select_versions(*more: Any) -> Select[Any]:
    version, item = schema.version, schema.item
    return select(item.c.kind, item.c.name, version.c.hash, version.c.document, *more).join_from(
        version, item, item.c.id == version.c.item
    )


def _moves() -> Any:
    return schema.move.join(schema.ref, schema.ref.c.id == schema.move.c.ref).join(
        schema.item, schema.item.c.id == schema.ref.c.item
    )


def _is(ref: Ref) -> Any:
    return (
        (schema.ref.c.name == ref.name)
        & (schema.item.c.kind == ref.item.kind)
        & (schema.item.c.name == ref.item.name)
    )
