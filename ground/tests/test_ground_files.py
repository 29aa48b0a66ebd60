"""Opening the database's file: foreign, newer, locked, damaged, read-only."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ground import (
    DatabaseLocked,
    DatabaseTooNew,
    DatabaseUnreadable,
    ForeignDatabase,
    Ground,
    GroundError,
    ReadOnlyGround,
)


def _refused(open_ground: Callable[..., Ground], error: type[GroundError], **more: object) -> None:
    with pytest.raises(error) as refused:
        open_ground(**more)
    assert type(refused.value) is error
    assert "ground.db" in refused.value.what
    assert refused.value.expected
    assert refused.value.remedy


@pytest.mark.parametrize("content", [b"hello", b"x" * 4096, b"SQLite format 3\0"])
def test_a_file_that_is_no_database_is_refused_and_kept(
    tmp_path: Path, open_ground: Callable[..., Ground], content: bytes
) -> None:
    path = tmp_path / "ground.db"
    path.write_bytes(content)
    _refused(open_ground, ForeignDatabase)
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_the_database_of_another_program_is_refused_and_kept(
    tmp_path: Path, open_ground: Callable[..., Ground]
) -> None:
    path = tmp_path / "ground.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE version (id INTEGER)")
    connection.close()
    content = path.read_bytes()
    _refused(open_ground, ForeignDatabase)
    _refused(open_ground, ForeignDatabase, append=None)
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_a_newer_database_is_refused(tmp_path: Path, open_ground: Callable[..., Ground]) -> None:
    open_ground().close()
    with sqlite3.connect(tmp_path / "ground.db") as connection:
        connection.execute("PRAGMA user_version = 2")
    connection.close()
    _refused(open_ground, DatabaseTooNew)


def test_a_path_that_cannot_be_a_file_is_refused(
    tmp_path: Path, open_ground: Callable[..., Ground]
) -> None:
    (tmp_path / "ground.db").mkdir()
    _refused(open_ground, DatabaseUnreadable)
    _refused(open_ground, DatabaseUnreadable, name="nowhere/ground.db")


def test_a_damaged_database_is_an_error_of_ours(
    tmp_path: Path, open_ground: Callable[..., Ground]
) -> None:
    path = tmp_path / "ground.db"
    with open_ground() as ground:
        item = ground.item("model", "m")
        with ground.batch():
            for n in range(500):
                ground.version(item, content={"n": n})
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(path.stat().st_size - 4096))
    with pytest.raises(DatabaseUnreadable), open_ground() as ground:
        ground.find()


def test_only_the_owner_can_read_the_files(
    tmp_path: Path, open_ground: Callable[..., Ground]
) -> None:
    with open_ground() as ground:
        ground.item("model", "m")
        files = list(tmp_path.iterdir())
        assert len(files) == 3
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_without_a_journal_the_catalogue_is_only_read(
    tmp_path: Path, open_ground: Callable[..., Ground]
) -> None:
    _refused(open_ground, DatabaseUnreadable, append=None)
    assert list(tmp_path.iterdir()) == []
    with open_ground() as ground:
        version = ground.version(ground.item("model", "m"))
    with open_ground(append=None) as reader:
        assert reader.find().entries == (version,)
        for change in (
            lambda: reader.version(version.item, content={}),
            lambda: reader.item("model", "new"),
            lambda: reader.move(version.item.ref("p"), None, version),
            lambda: reader.link(version, version, "used"),
        ):
            with pytest.raises(ReadOnlyGround):
                change()
        with pytest.raises(ReadOnlyGround):
            reader.catch_up([])


def test_who_waits_too_long_for_a_turn_is_told(open_ground: Callable[..., Ground]) -> None:
    with open_ground() as ground, open_ground(patience=0.05) as hasty:
        item = ground.item("model", "m")
        with ground.batch():
            ground.version(item)
            with pytest.raises(DatabaseLocked) as locked:
                hasty.version(item, content={})
            assert locked.value.remedy
            assert hasty.find().entries == ()
        hasty.version(item, content={})


def test_paths_may_hold_what_urls_quote(open_ground: Callable[..., Ground], tmp_path: Path) -> None:
    with open_ground("a b?mode=ro&x=%20#é.db") as ground:
        ground.item("model", "m")
    assert (tmp_path / "a b?mode=ro&x=%20#é.db").exists()


def test_importing_ground_imports_no_sqlalchemy() -> None:
    code = "import ground, sys; sys.exit('sqlalchemy' in sys.modules)"
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(root)},
        timeout=60,
        check=False,
    )
    assert done.returncode == 0
