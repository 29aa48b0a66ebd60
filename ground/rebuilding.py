"""Making the database again from the journal.

Transactions may come in any order, more than once, and from the journals of several processes: each
names the one before it, and the chain is followed back from the last. A transaction off the chain
was journalled by a writer that was killed before it committed, and another writer took its turn.
At the very end nothing has come after to tell such a twin from the one that was committed: the
later time decides, since the killed writer had its turn first. One that stands alone there is
applied, for nobody was told that it had failed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from sqlalchemy import Connection

from ground.applying import apply
from ground.changes import Transaction
from ground.database import Database
from ground.errors import DatabaseUnreadable, JournalEventsMissing
from ground.revisions import last_transaction, record

__all__ = ["apply_chain", "rebuild"]


def rebuild(path: str | os.PathLike[str], events: Iterable[bytes]) -> int:
    """Make the database at ``path``, where there must be none, from ``ground.change`` payloads.

    Returns the number of transactions applied. The file appears when it is complete. Raises
    ``MalformedChange`` or ``JournalEventsMissing`` for events that do not make one history, and
    ``DatabaseUnreadable`` when there is a file already.
    """
    path = Path(path)
    if path.exists():
        raise DatabaseUnreadable(
            f"{path} exists",
            what=str(path),
            expected="no file where the database is to be made",
            remedy="close all that use it and delete it, or name another path",
        )
    unfinished = path.with_name(path.name + ".rebuilding")
    _remove(unfinished)
    try:
        database = Database(unfinished, read_only=False, patience=1.0)
        try:
            with database.writing() as connection:
                count = apply_chain(connection, events)
            database.checkpoint()
        finally:
            database.close()
        # What a deleted database left beside it would be taken for a part of the new one.
        _remove(path)
        os.rename(unfinished, path)
    finally:
        _remove(unfinished)
    return count


def apply_chain(connection: Connection, events: Iterable[bytes]) -> int:
    """Apply the transactions that come after the database's last; return their number.

    Raises ``JournalEventsMissing`` when the events do not lead on from the database.
    """
    revision, digest = last_transaction(connection)
    chain = _chain((Transaction.parse(payload) for payload in events), revision, digest)
    for transaction in chain:
        apply(connection, transaction.revision, transaction.changes)
        record(connection, transaction)
    return len(chain)


def _chain(
    transactions: Iterable[Transaction], revision: int, digest: str | None
) -> list[Transaction]:
    """The transactions after ``revision``, whose digest is ``digest``, in their order."""
    by_digest = {
        transaction.digest: transaction
        for transaction in transactions
        if transaction.revision > revision
    }
    if not by_digest:
        return []
    at = max(by_digest.values(), key=lambda one: (one.revision, one.at, one.digest))
    chain = [at]
    while at.revision > revision + 1:
        before = by_digest.get(at.after or "")
        if before is None or before.revision != at.revision - 1:
            raise _missing(at.revision - 1)
        chain.append(at := before)
    if at.after != digest:
        raise _missing(revision)
    chain.reverse()
    return chain


def _missing(revision: int) -> JournalEventsMissing:
    return JournalEventsMissing(
        f"the events do not hold transaction {revision} as the one after it names it",
        what=f"transaction {revision}",
        expected="the ground.change events of all journals of this store",
        remedy="verify the journals; if they are whole, delete the database and rebuild it",
    )


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
