"""The tables of the catalogue.

They are indexes over the journal's ``ground.change`` events: row numbers are given in the order of
the events, so a rebuilt database has the same rows. Hashes are kept as 32 bytes. The edge table
has an index for each direction that answers a traversal step alone, and a partial one over the
edges that run from a later version to an earlier: while that is empty, no new forward edge can
close a cycle.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    func,
    text,
)

__all__ = [
    "APPLICATION_ID",
    "SCHEMA_VERSION",
    "change",
    "edge",
    "item",
    "metadata",
    "move",
    "parent",
    "ref",
    "tag",
    "version",
]

APPLICATION_ID = int.from_bytes(b"SRDG", "big")
SCHEMA_VERSION = 1

metadata = MetaData()


def _revision() -> Column[int]:
    # No foreign key: the row it names is written last, and SQLite would then look through all of
    # this table for rows that wait for it.
    return Column("revision", Integer, nullable=False)


change = Table(
    "change",
    metadata,
    Column("revision", Integer, primary_key=True, autoincrement=False),
    Column("digest", LargeBinary(32), nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("principal", Text, nullable=False),
)

item = Table(
    "item",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    _revision(),
    Index("item_by_name", "name", "kind", unique=True),
    Index("item_by_kind", "kind"),
)

version = Table(
    "version",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("item", Integer, ForeignKey("item.id"), nullable=False),
    Column("hash", LargeBinary(32), nullable=False, unique=True),
    Column("document", LargeBinary, nullable=False),
    _revision(),
    Index("version_by_item", "item"),
)

parent = Table(
    "parent",
    metadata,
    Column("version", Integer, ForeignKey("version.id"), primary_key=True),
    Column("parent", Integer, ForeignKey("version.id"), primary_key=True),
    Index("parent_reverse", "parent", "version"),
    sqlite_with_rowid=False,
)

tag = Table(
    "tag",
    metadata,
    Column("version", Integer, ForeignKey("version.id"), primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
    Index("tag_by_value", "key", "value", "version"),
    sqlite_with_rowid=False,
)

edge = Table(
    "edge",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("source", Integer, ForeignKey("version.id"), nullable=False),
    Column("target", Integer, ForeignKey("version.id"), nullable=False),
    Column("role", Text, nullable=False),
    Column("workflow", Integer, ForeignKey("version.id")),
    _revision(),
)
Index(
    "edge_forward",
    edge.c.source,
    edge.c.target,
    edge.c.role,
    func.coalesce(edge.c.workflow, text("0")),
    unique=True,
)
Index("edge_reverse", edge.c.target, edge.c.source, edge.c.role)
Index("edge_backward", edge.c.source, sqlite_where=edge.c.source > edge.c.target)

ref = Table(
    "ref",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("item", Integer, ForeignKey("item.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("version", Integer, ForeignKey("version.id")),
    Index("ref_by_name", "item", "name", unique=True),
)

move = Table(
    "move",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("ref", Integer, ForeignKey("ref.id"), nullable=False),
    Column("old", Integer, ForeignKey("version.id")),
    Column("new", Integer, ForeignKey("version.id")),
    _revision(),
    Index("move_by_ref", "ref", "id"),
)
