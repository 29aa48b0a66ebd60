"""Finding rows by what they are called, many at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from sqlalchemy import Connection, bindparam, select

from ground import schema
from ground.errors import UnknownItem, UnknownVersion
from ground.versions import Item, Ref

__all__ = [
    "in_chunks",
    "item_ids",
    "ref_target",
    "unknown_item",
    "unknown_version",
    "version_ids",
]

# Statements are built once: building one costs SQLAlchemy more than SQLite takes to run it.
_ITEMS = select(schema.item.c.id, schema.item.c.kind, schema.item.c.name).where(
    schema.item.c.name.in_(bindparam("names", expanding=True))
)
_VERSIONS = select(schema.version.c.id, schema.version.c.item, schema.version.c.hash).where(
    schema.version.c.hash.in_(bindparam("hashes", expanding=True))
)
_REF_TARGET = (
    select(schema.version.c.hash)
    .join(schema.ref, schema.ref.c.version == schema.version.c.id)
    .join(schema.item, schema.item.c.id == schema.ref.c.item)
    .where(schema.ref.c.name == bindparam("ref"))
    .where(schema.item.c.kind == bindparam("kind"), schema.item.c.name == bindparam("item"))
)

# SQLite takes 32,766 parameters in a statement; beyond some hundred a larger chunk gains nothing.
CHUNK = 500

Entry = TypeVar("Entry")


def in_chunks(entries: Iterable[Entry], size: int = CHUNK) -> Iterator[Sequence[Entry]]:
    """The entries in pieces that fit into one statement."""
    sequence = list(entries)
    for start in range(0, len(sequence), size):
        yield sequence[start : start + size]


def item_ids(connection: Connection, items: Iterable[Item]) -> dict[Item, int]:
    """The row numbers of those items that exist."""
    wanted = set(items)
    found: dict[Item, int] = {}
    # By name alone: SQLite searches no index for pairs.
    for chunk in in_chunks({item.name for item in wanted}):
        for id_, kind, name in connection.execute(_ITEMS, {"names": list(chunk)}):
            found[Item(kind, name)] = id_
    return {item: found[item] for item in wanted & found.keys()}


def version_ids(connection: Connection, hashes: Iterable[str]) -> dict[str, tuple[int, int]]:
    """The row numbers of those versions that exist, and of their items, by hash."""
    found: dict[str, tuple[int, int]] = {}
    for chunk in in_chunks(set(hashes)):
        keys = [bytes.fromhex(hash_) for hash_ in chunk]
        for id_, item, key in connection.execute(_VERSIONS, {"hashes": keys}):
            found[key.hex()] = (id_, item)
    return found


def ref_target(connection: Connection, ref: Ref) -> str | None:
    """The hash of the version that the reference points to now."""
    hash_: bytes | None = connection.execute(
        _REF_TARGET, {"ref": ref.name, "kind": ref.item.kind, "item": ref.item.name}
    ).scalar_one_or_none()
    return None if hash_ is None else hash_.hex()


def unknown_item(item: Item) -> UnknownItem:
    """The error for an item that is not there."""
    return UnknownItem(
        f"no item is called {item}",
        what=str(item),
        expected="an item of the catalogue",
        remedy="make the item first: ground.item(kind, name)",
    )


def unknown_version(hash_: str, expected: str) -> UnknownVersion:
    """The error for a version that is not there; ``expected`` is what should have been."""
    return UnknownVersion(
        f"no such version: {hash_}",
        what=hash_,
        expected=expected,
        remedy="look the version up: ground.find(kind, name)",
    )
