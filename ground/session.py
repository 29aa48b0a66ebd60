"""Transactions of the catalogue: the journal first, the database second.

A transaction holds the database's write lock from its first look to its commit. Its changes are
tried on the database, uncommitted; then the event goes to the journal; then the database commits.
So the journal never holds a change that could not be applied, and the database never shows one that
the journal does not hold. A writer killed between the two leaves an event that nothing comes after;
``ground.rebuilding`` tells how that is resolved.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from sqlalchemy import Connection

from ground.applying import apply
from ground.changes import GROUND_CHANGE, Change, ItemAdded, Transaction
from ground.database import Database
from ground.errors import DatabaseUnreadable, GroundClosed, GroundError, MixedBatch, ReadOnlyGround
from ground.reading import Ownership, ownership_of
from ground.rebuilding import apply_chain
from ground.revisions import announce, last_transaction, record, withdraw
from ground.versions import Item, Origin

__all__ = ["Open", "Session"]

Append = Callable[[int, bytes], object]

# So many changes wait for one another before they are written with one statement a table.
_PENDING = 2_000


class Open:
    """A transaction being made, by one thread."""

    def __init__(self, connection: Connection, principal: str) -> None:
        self._connection = connection
        revision, self._after = last_transaction(connection)
        self.origin = Origin(revision + 1, time.time_ns(), principal)
        self.owners: dict[Item, Ownership] = {}
        self._pending: list[Change] = []
        self._effective: list[Change] = []
        self._shown = False

    def add(self, change: Change) -> None:
        """Add a change; it is tried at the latest when the transaction ends."""
        if isinstance(change, ItemAdded):
            self.owners[change.item] = Ownership(self.origin.principal, self.origin.at)
        self._pending.append(change)
        if len(self._pending) >= _PENDING:
            self.flush()

    def flush(self) -> None:
        """Try all changes added so far."""
        if self._pending:
            pending, self._pending = self._pending, []
            self._effective += apply(self._connection, self.origin.revision, pending)

    def connection(self) -> Connection:
        """A connection that sees all changes added so far."""
        self.flush()
        if self._effective and not self._shown:
            # Origins are read from the transaction's row; its digest comes at the end.
            announce(self._connection, self.origin)
            self._shown = True
        return self._connection

    def finish(self, append: Append) -> bool:
        """Journal what had an effect; return whether anything had."""
        self.flush()
        if not self._effective:
            return False
        origin = self.origin
        transaction = Transaction(
            origin.revision, self._after, origin.at, origin.principal, tuple(self._effective)
        )
        if self._shown:
            withdraw(self._connection, origin)
        record(self._connection, transaction)
        append(GROUND_CHANGE, transaction.payload)
        return True


class Session:
    """An open database and the way to its journal; ``append`` is ``None`` where there is none."""

    def __init__(self, database: Database, append: Append | None) -> None:
        self._database = database
        self._append = append
        self._of_thread = threading.local()
        self._closed = False

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection that sees one state of the catalogue, and the thread's own batch."""
        batch = self._batch()
        if batch is not None:
            yield batch.connection()
        else:
            with self._database.reading() as connection:
                yield connection

    @contextmanager
    def transaction(self, principal: str) -> Iterator[Open]:
        """A transaction: one event. Within another one of the same thread, it is a part of that.

        An exception undoes all of it.
        """
        batch = self._batch()
        if batch is not None:
            if batch.origin.principal != principal:
                raise MixedBatch(
                    f"a change by {principal} in a batch by {batch.origin.principal}",
                    what=principal,
                    expected=f"changes by {batch.origin.principal} until the batch ends",
                    remedy="make the change outside of the batch",
                )
            yield batch
            return
        append = self._journal()
        journalled = False
        try:
            with self._database.writing() as connection:
                batch = self._of_thread.batch = Open(connection, principal)
                try:
                    yield batch
                    journalled = batch.finish(append)
                finally:
                    self._of_thread.batch = None
        except GroundError as error:
            if not journalled:
                raise
            raise DatabaseUnreadable(
                f"the change is in the journal, but the database could not commit it: {error}",
                what=error.what,
                expected="a database that can be written",
                remedy="make the database writable, then rebuild it from the journal",
            ) from error

    def ownership_of(self, item: Item) -> Ownership | None:
        """Who owns an item, be it of this thread's batch or of the database."""
        batch = self._batch()
        if batch is None:
            with self._database.reading() as connection:
                return ownership_of(connection, item)
        if item not in batch.owners:
            found = ownership_of(batch.connection(), item)
            if found is None:
                return None
            batch.owners[item] = found
        return batch.owners[item]

    def catch_up(self, events: Iterable[bytes]) -> int:
        """Apply the ``ground.change`` payloads that come after the database's last transaction."""
        self._journal()
        with self._database.writing() as connection:
            return apply_chain(connection, events)

    def settled(self) -> bool:
        """Whether this thread sees only what is committed."""
        return self._batch() is None

    def close(self) -> None:
        """Close the database; closing twice is closing once."""
        self._closed = True
        self._database.close()

    def _journal(self) -> Append:
        if self._append is None:
            raise ReadOnlyGround(
                "the catalogue was opened without a journal",
                what="append",
                expected="a callable that journals an event",
                remedy="open the catalogue with append=…",
            )
        return self._append

    def _batch(self) -> Open | None:
        if self._closed:
            raise GroundClosed(
                "the catalogue is closed",
                what="ground",
                expected="an open catalogue",
                remedy="open it again, or use it within its with block",
            )
        batch: Open | None = getattr(self._of_thread, "batch", None)
        return batch
