"""Opening ``ground.db`` and its transactions.

SQLite in WAL mode: readers never wait, and writers take turns by ``BEGIN IMMEDIATE``, so what a
writer has read stays true until it commits. The file is recognised by its header before SQLite
touches it, because opening a foreign database may already change it.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, ExceptionContext, create_engine, event

from ground.errors import (
    DatabaseLocked,
    DatabaseTooNew,
    DatabaseUnreadable,
    ForeignDatabase,
)
from ground.schema import APPLICATION_ID, SCHEMA_VERSION, metadata

__all__ = ["Database"]

_MAGIC = b"SQLite format 3\0"
_HEADER_BYTES = 100
_RETRY_SECONDS = 0.01


class Database:
    """The catalogue's database at ``path``, created when it is absent and may be written.

    ``patience`` is how many seconds a writer waits for another one. Raises ``ForeignDatabase``,
    ``DatabaseTooNew``, ``DatabaseUnreadable`` or ``DatabaseLocked``.
    """

    def __init__(self, path: Path, *, read_only: bool, patience: float) -> None:
        self._path = path
        self._patience = patience
        self._turn = threading.Lock()
        _check_header(path, may_be_absent=not read_only)
        if not read_only:
            _create_private(path)
        self._engine = _engine(path, read_only=read_only, patience=patience)
        event.listen(self._engine, "handle_error", self._raise_translated)
        try:
            if not read_only:
                self._create_tables()
                self._enter_wal()
        except BaseException:
            self._engine.dispose()
            raise

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection that sees one state of the catalogue throughout."""
        with self._engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """The connection of the only writer; commits at the end, or undoes all on an exception."""
        # Threads of one process queue here; between processes SQLite can only poll.
        if not self._turn.acquire(timeout=self._patience):
            raise self._locked("another thread")
        try:
            with self._engine.connect() as connection:
                connection = connection.execution_options(ground_writes=True)
                with connection.begin():
                    yield connection
        finally:
            self._turn.release()

    def checkpoint(self) -> None:
        """Move all that has been committed into the one file."""
        with self._autocommitting() as connection:
            busy = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").scalar_one()
        if busy:
            raise self._locked("another process")

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def _create_tables(self) -> None:
        with self.writing() as connection:
            found = _pragma(connection, "application_id")
            if found == 0 and not _has_tables(connection):
                metadata.create_all(connection)
                connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA_VERSION}")
            elif found != APPLICATION_ID:
                raise _foreign(self._path)

    def _enter_wal(self) -> None:
        """Switch to WAL, which SQLite refuses at once, without patience, while others read."""
        deadline = time.monotonic() + self._patience
        while True:
            try:
                with self._autocommitting() as connection:
                    connection.exec_driver_sql("PRAGMA journal_mode = WAL")
                return
            except DatabaseLocked:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_RETRY_SECONDS)

    @contextmanager
    def _autocommitting(self) -> Iterator[Connection]:
        with self._engine.connect() as connection:
            yield connection.execution_options(ground_begins=False)

    def _raise_translated(self, context: ExceptionContext) -> None:
        original = context.original_exception
        name: str = getattr(original, "sqlite_errorname", "")
        if not isinstance(original, sqlite3.Error):
            return
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            raise self._locked("another process") from original
        if name.startswith("SQLITE_NOTADB"):
            raise _foreign(self._path) from original
        raise DatabaseUnreadable(
            f"{self._path}: {original}",
            what=str(self._path),
            expected="a database that can be read and written",
            remedy="check permissions and free space; a damaged database can be deleted and "
            "rebuilt from the journal",
        ) from original

    def _locked(self, who: str) -> DatabaseLocked:
        return DatabaseLocked(
            f"{self._path} has been locked by {who} for {self._patience:g} s",
            what=str(self._path),
            expected="a turn at writing",
            remedy="end the long transaction, or open the catalogue with more patience",
        )


def _engine(path: Path, *, read_only: bool, patience: float) -> Engine:
    mode = "ro" if read_only else "rw"
    engine = create_engine(
        URL.create(
            "sqlite",
            database=f"file:{quote(str(path))}",
            query={"mode": mode, "uri": "true"},
        ),
        connect_args={"timeout": patience, "check_same_thread": False},
    )

    def on_connect(connection: Any, _record: object) -> None:
        # The driver would begin transactions by its own rules; ours are begun below.
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.execute("PRAGMA synchronous = NORMAL")
        cursor.close()

    def on_begin(connection: Connection) -> None:
        options = connection.get_execution_options()
        if options.get("ground_begins", True):
            writes = options.get("ground_writes", False)
            connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    event.listen(engine, "connect", on_connect)
    event.listen(engine, "begin", on_begin)
    return engine


def _check_header(path: Path, *, may_be_absent: bool) -> None:
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER_BYTES)
    except FileNotFoundError as error:
        if may_be_absent and path.parent.is_dir():
            return
        raise _unopenable(path, error) from error
    except OSError as error:
        raise _unopenable(path, error) from error
    if not header and may_be_absent:
        return
    if len(header) < _HEADER_BYTES or not header.startswith(_MAGIC):
        raise _foreign(path)
    if int.from_bytes(header[68:72], "big") != APPLICATION_ID:
        raise _foreign(path)
    found = int.from_bytes(header[60:64], "big")
    if found > SCHEMA_VERSION:
        raise DatabaseTooNew(
            f"{path} has schema version {found}",
            what=str(path),
            expected=f"at most schema version {SCHEMA_VERSION}",
            remedy="open it with a newer version of this software",
        )


def _create_private(path: Path) -> None:
    """Make the file for its owner only; SQLite gives the files beside it the same mode."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise _unopenable(path, error) from error


def _pragma(connection: Connection, name: str) -> int:
    value: int = connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
    return value


def _has_tables(connection: Connection) -> bool:
    return connection.exec_driver_sql("SELECT 1 FROM sqlite_master LIMIT 1").first() is not None


def _foreign(path: Path) -> ForeignDatabase:
    return ForeignDatabase(
        f"{path} is not a catalogue of this software",
        what=str(path),
        expected="a ground.db, or no file",
        remedy="name another path, or move the file away",
    )


def _unopenable(path: Path, error: OSError) -> DatabaseUnreadable:
    return DatabaseUnreadable(
        f"{path} cannot be opened: {error.strerror}",
        what=str(path),
        expected="a file in a directory that exists, readable and writable by this user",
        remedy="check the path and its permissions",
    )
