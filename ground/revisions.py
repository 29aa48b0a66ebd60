"""The row of each transaction: the catalogue's revisions."""

from __future__ import annotations

from sqlalchemy import Connection, delete, insert, select

from ground import schema
from ground.changes import Transaction
from ground.versions import Origin

__all__ = ["announce", "last_transaction", "record", "withdraw"]

_LAST = (
    select(schema.change.c.revision, schema.change.c.digest)
    .order_by(schema.change.c.revision.desc())
    .limit(1)
)
_INSERT = insert(schema.change)


def last_transaction(connection: Connection) -> tuple[int, str | None]:
    """Revision and digest of the last transaction; ``(0, None)`` before the first."""
    row = connection.execute(_LAST).first()
    return (0, None) if row is None else (row.revision, row.digest.hex())


def announce(connection: Connection, origin: Origin) -> None:
    """Write the row of a transaction that is being made, so that origins can be read."""
    connection.execute(_INSERT, _row(origin, b""))


def withdraw(connection: Connection, origin: Origin) -> None:
    """Take back what ``announce`` wrote."""
    revision = schema.change.c.revision
    connection.execute(delete(schema.change).where(revision == origin.revision))


def record(connection: Connection, transaction: Transaction) -> None:
    """Write the row of a transaction whose changes have been applied."""
    origin = Origin(transaction.revision, transaction.at, transaction.principal)
    connection.execute(_INSERT, _row(origin, bytes.fromhex(transaction.digest)))


def _row(origin: Origin, digest: bytes) -> dict[str, object]:
    return {
        "revision": origin.revision,
        "digest": digest,
        "at": origin.at,
        "principal": origin.principal,
    }
