"""The event ``ground.change``: one transaction of the catalogue, as canonical JSON.

The journal is the truth and the database a reader of it, so an event holds everything that the
database will say, and nothing that only the database could know (row numbers). A transaction names
the one it came ``after`` by its digest. That is what tells a transaction that was journalled but
never committed (its writer was killed in between) from the one that another writer then committed
in its place: nothing ever comes after the former.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ground.canonical import canonical, parse
from ground.errors import GroundError, MalformedChange, TooLarge
from ground.versions import Edge, Item, Ref, Version, checked_hash, checked_role
from microkernel.events import register

__all__ = [
    "GROUND_CHANGE",
    "Change",
    "EdgeAdded",
    "ItemAdded",
    "RefMoved",
    "Transaction",
    "VersionAdded",
]

GROUND_CHANGE = register("ground.change", (("transaction", "string"),))

FORMAT = 1
MAX_TRANSACTION_BYTES = 32 << 20


@dataclass(frozen=True)
class ItemAdded:
    """An item exists from now on."""

    item: Item

    def encoded(self) -> bytes:
        return canonical({"item": _item_members(self.item)})


@dataclass(frozen=True)
class VersionAdded:
    """A version, and its item if it is the first, exist from now on."""

    version: Version

    def encoded(self) -> bytes:
        return b'{"version":' + self.version.document + b"}"


@dataclass(frozen=True)
class EdgeAdded:
    """A lineage edge exists from now on."""

    edge: Edge

    def encoded(self) -> bytes:
        edge = self.edge
        return canonical(
            {
                "edge": {
                    "role": edge.role,
                    "source": edge.source,
                    "target": edge.target,
                    "workflow": edge.workflow,
                }
            }
        )


@dataclass(frozen=True)
class RefMoved:
    """A reference points to ``new`` and no more to ``old``: hashes, or ``None`` for nowhere."""

    ref: Ref
    old: str | None
    new: str | None

    def encoded(self) -> bytes:
        return canonical(
            {
                "move": {
                    "item": _item_members(self.ref.item),
                    "name": self.ref.name,
                    "new": self.new,
                    "old": self.old,
                }
            }
        )


Change = ItemAdded | VersionAdded | EdgeAdded | RefMoved


@dataclass(frozen=True)
class Transaction:
    """Changes that took effect together.

    ``revision`` counts from 1, ``after`` is the digest of the transaction before (``None`` for the
    first), ``at`` is unix time in nanoseconds.
    """

    revision: int
    after: str | None
    at: int
    principal: str
    changes: tuple[Change, ...]

    @cached_property
    def payload(self) -> bytes:
        """The event's payload, RFC 8785; raises ``TooLarge`` beyond 32 MiB."""
        changes = b",".join(change.encoded() for change in self.changes)
        # Put together from canonical parts, members in order, so that nothing is encoded twice.
        payload = b'{"after":%b,"at":"%d","changes":[%b],"format":%d,"principal":%b,"revision":%d}'
        payload %= (
            canonical(self.after),
            self.at,
            changes,
            FORMAT,
            canonical(self.principal),
            self.revision,
        )
        if len(payload) > MAX_TRANSACTION_BYTES:
            raise TooLarge(
                f"a batch of {len(self.changes)} changes would take {len(payload)} bytes",
                what="batch",
                expected=f"at most {MAX_TRANSACTION_BYTES} bytes",
                remedy="make several smaller batches",
            )
        return payload

    @property
    def digest(self) -> str:
        """SHA-256 of the payload, 64 hex digits."""
        return hashlib.sha256(self.payload).hexdigest()

    @classmethod
    def parse(cls, payload: bytes) -> Transaction:
        """The transaction of an event's payload; raises ``MalformedChange``."""
        members = parse(payload)
        try:
            if members["format"] != FORMAT:
                raise MalformedChange(
                    f"a change has format {members['format']!r}",
                    what="ground.change",
                    expected=f"format {FORMAT}",
                    remedy="read this journal with a newer version of this software",
                )
            transaction = cls(
                revision=int(members["revision"]),
                after=members["after"] and checked_hash(members["after"]),
                at=int(members["at"]),
                principal=members["principal"],
                changes=tuple(_changes(members["changes"])),
            )
            if transaction.payload != payload:
                raise ValueError("it is not in canonical form")
        except MalformedChange:
            raise
        except (KeyError, TypeError, ValueError, GroundError) as error:
            raise MalformedChange(
                f"a ground.change event is malformed: {error}",
                what="ground.change",
                expected="a transaction as this software writes it",
                remedy="verify the journal",
            ) from error
        return transaction


def _changes(encoded: Iterable[Mapping[str, Any]]) -> Iterable[Change]:
    for change in encoded:
        ((kind, body),) = change.items()
        match kind:
            case "item":
                yield ItemAdded(Item(**body))
            case "version":
                yield VersionAdded(Version.of_document(body))
            case "edge":
                workflow = body["workflow"]
                yield EdgeAdded(
                    Edge(
                        checked_hash(body["source"]),
                        checked_hash(body["target"]),
                        checked_role(body["role"]),
                        workflow if workflow is None else checked_hash(workflow),
                    )
                )
            case "move":
                old, new = body["old"], body["new"]
                yield RefMoved(
                    Ref(Item(**body["item"]), body["name"]),
                    old if old is None else checked_hash(old),
                    new if new is None else checked_hash(new),
                )
            case _:
                raise ValueError(f"no change is called {kind!r}")


def _item_members(item: Item) -> dict[str, str]:
    return {"kind": item.kind, "name": item.name}
