"""The journal is written first, and the database can be made again from it."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from enclave.authority import Principal
from ground import (
    GROUND_CHANGE,
    CompareAndSetFailed,
    CycleRefused,
    DatabaseUnreadable,
    Ground,
    GroundClosed,
    GroundError,
    Item,
    JournalEventsMissing,
    MalformedChange,
    TooLarge,
    UnknownVersion,
)

ALICE = Principal("alice")


def _rows(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """All that the database says, table by table."""
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        tables = [
            name
            for (name,) in connection.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"
            )
        ]
        assert "version" in tables
        return {
            name: connection.execute(f"SELECT * FROM {name} ORDER BY 1, 2").fetchall()
            for name in tables
        }
    finally:
        connection.close()


def _fill(ground: Ground) -> None:
    data = ground.version(ground.item("dataset", "d"), content={"rows": 1e20, "x": -0.0})
    early = ground.version(ground.item("report", "r"))
    item = ground.item("model", "m")
    with ground.batch():
        one = ground.version(item, content={"n": 1}, tags={"a": 1.5, "b": "é", "c": True})
        ground.link(data, one, "trained_on")
        assert ground.up(one).nodes[1].item == data.item
        ground.item("empty", "e")
    two = ground.version(item, content={"n": 2}, parents=[one], reference="objects/2")
    three = ground.version(item, content={"n": 3}, parents=[two, one])
    ground.link(data, three, "trained_on", workflow=two)
    ground.link(three, ground.version(ground.item("dataset", "d"), content=None), "made")
    ground.link(two, early, "shown_in")
    ground.move(item.ref("p"), None, one)
    ground.move(item.ref("p"), one, three)


def test_the_database_made_again_from_the_journal_is_identical(
    tmp_path: Path, open_ground: Callable[..., Ground], journal: Any
) -> None:
    with open_ground() as ground:
        _fill(ground)
    before = _rows(tmp_path / "ground.db")
    assert all(before.values())
    (tmp_path / "ground.db").unlink()
    assert Ground.rebuild(tmp_path / "ground.db", journal.payloads) == len(journal.payloads)
    assert not (tmp_path / "ground.db.rebuilding").exists()
    assert _rows(tmp_path / "ground.db") == before
    # And it is a catalogue to go on with.
    with open_ground() as ground:
        ground.version(ground.item("model", "m"), content={"n": 4})
    shuffled = journal.payloads[::-1] + journal.payloads[:3]
    assert Ground.rebuild(tmp_path / "again.db", shuffled) == len(journal.payloads)
    assert _rows(tmp_path / "again.db") == _rows(tmp_path / "ground.db")


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["version", "link", "move", "batch"]), st.integers(0, 5), st.integers(0, 5)
    ),
    max_size=25,
)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(STEPS)
def test_whatever_was_done_is_made_again_the_same(
    tmp_path_factory: Any, steps: list[tuple[str, int, int]]
) -> None:
    place = tmp_path_factory.mktemp("rebuilt")
    payloads: list[bytes] = []
    with Ground.open(
        place / "live.db", append=lambda kind, payload: payloads.append(payload), principal=ALICE
    ) as ground:
        item = ground.item("model", "m")
        versions = [ground.version(item)]

        def step(what: str, one: int, two: int) -> None:
            if what == "version":
                parents = versions[one : one + two % 3]
                versions.append(ground.version(item, content={"n": two}, parents=parents))
            elif what == "link":
                ground.link(versions[one % len(versions)], versions[two % len(versions)], "used")
            elif what == "move":
                old, new = versions[one % len(versions)], versions[two % len(versions)]
                ground.move(item.ref("p"), old if one else None, new)

        for what, one, two in steps:
            kept = len(versions)
            try:
                if what == "batch":
                    with ground.batch():
                        step("version", one, two)
                        step("link", one, two)
                        if two == 5:
                            raise CycleRefused("given up")
                else:
                    step(what, one, two)
            except (CycleRefused, CompareAndSetFailed):
                del versions[kept:]
    assert Ground.rebuild(place / "again.db", payloads) == len(payloads)
    assert _rows(place / "again.db") == _rows(place / "live.db")


def _lose(ground: Ground, failing: Callable[[], object]) -> None:
    seen = len(ground.find().entries)
    with ground.batch():
        ground.version(ground.item("model", "lost"), content={"n": 3})
        assert len(ground.find().entries) == seen + 1
        failing()


def _add_too_much(ground: Ground) -> None:
    with ground.batch():
        for n in range(40):
            ground.version(Item("model", "m"), content={"n": n, "blob": "x" * 1_000_000})


def test_a_batch_is_one_event_and_its_failure_none(ground: Ground, journal: Any) -> None:
    item = ground.item("model", "m")
    events = len(journal.payloads)
    with ground.batch():
        one = ground.version(item, content={"n": 1})
        with ground.batch():
            two = ground.version(item, content={"n": 2}, parents=[one])
        ground.link(one, two, "used")
        assert ground.up(two).nodes[1].hash == one.hash
        assert ground.origin(two).principal == "alice"
        new = ground.item("model", "new")
        ground.version(new)
        assert len(journal.payloads) == events
    assert len(journal.payloads) == events + 1
    found = ground.find().entries
    for failing, error in (
        (lambda: ground.move(item.ref("p"), one, two), CompareAndSetFailed),
        (lambda: ground.link(two, one, "used"), CycleRefused),
        (lambda: ground.version(item, parents=["0" * 64]), UnknownVersion),
        (lambda: 1 / 0, ZeroDivisionError),
    ):
        with pytest.raises(error):
            _lose(ground, failing)
    assert ground.find().entries == found
    assert ground.owner_of("model/lost") is None
    assert len(journal.payloads) == events + 1


def test_what_the_journal_refuses_the_database_does_not_show(
    open_ground: Callable[..., Ground],
) -> None:
    class DiskFull(Exception):
        pass

    def refuse(kind: int, payload: bytes) -> None:
        raise DiskFull

    with open_ground(append=refuse) as ground:
        with pytest.raises(DiskFull):
            ground.item("model", "m")
        assert ground.items().entries == ()


def test_an_event_is_journalled_before_anybody_sees_the_change(
    tmp_path: Path, open_ground: Callable[..., Ground]
) -> None:
    seen: list[tuple[int, int]] = []
    with open_ground() as reader:

        def append(kind: int, payload: bytes) -> None:
            assert kind == GROUND_CHANGE
            seen.append((len(seen), len(reader.items().entries)))

        with open_ground(append=append) as writer:
            writer.item("model", "one")
            writer.item("model", "two")
            assert seen == [(0, 0), (1, 1)]
            assert len(reader.items().entries) == 2


KILLED = """
import os, sys
from enclave.authority import Principal
from ground import Ground

def append(kind, payload):
    with open(sys.argv[2], "wb") as file:
        file.write(payload)
    os._exit(9)

with Ground.open(sys.argv[1], append=append, principal=Principal("alice")) as ground:
    ground.item("model", "of the killed")
"""


def _killed_between_journal_and_commit(database: Path, event: Path) -> bytes:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(database), str(event)],
        env=os.environ | {"PYTHONPATH": str(root)},
        timeout=60,
        check=False,
    )
    assert done.returncode == 9
    return event.read_bytes()


def test_an_event_whose_writer_was_killed_gives_way_to_the_one_that_was_committed(
    tmp_path: Path, open_ground: Callable[..., Ground], journal: Any
) -> None:
    with open_ground() as ground:
        ground.item("model", "first")
        doubtful = _killed_between_journal_and_commit(tmp_path / "ground.db", tmp_path / "event")
        assert [item.name for item in ground.items().entries] == ["first"]
        ground.item("model", "second")
        events = [*journal.payloads, doubtful]
        assert ground.catch_up(events) == 0
        Ground.rebuild(tmp_path / "at-the-end.db", events)
        ground.item("model", "third")
    Ground.rebuild(tmp_path / "in-the-middle.db", [doubtful, *journal.payloads])
    for name, expected in (
        ("at-the-end.db", ["first", "second"]),
        ("in-the-middle.db", ["first", "second", "third"]),
    ):
        with open_ground(name, append=None) as again:
            assert [item.name for item in again.items().entries] == expected


def test_an_event_whose_writer_was_killed_is_caught_up_with(
    tmp_path: Path, open_ground: Callable[..., Ground], journal: Any
) -> None:
    with open_ground() as ground:
        ground.item("model", "first")
        doubtful = _killed_between_journal_and_commit(tmp_path / "ground.db", tmp_path / "event")
        journal.payloads.append(doubtful)
        assert ground.catch_up(journal.payloads) == 1
        assert ground.catch_up(journal.payloads) == 0
        ground.item("model", "second")
        assert [item.name for item in ground.items().entries] == [
            "first",
            "of the killed",
            "second",
        ]
    Ground.rebuild(tmp_path / "again.db", journal.payloads)
    assert _rows(tmp_path / "again.db") == _rows(tmp_path / "ground.db")


def test_events_that_miss_one_or_were_altered_make_no_database(
    tmp_path: Path, open_ground: Callable[..., Ground], journal: Any
) -> None:
    with open_ground() as ground:
        _fill(ground)
    events = journal.payloads
    (at,) = (at for at, event in enumerate(events) if b'{"n":2}' in event)
    altered = events[at].replace(b'{"n":2}', b'{"n":7}')
    for bad, error in (
        (events[1:], JournalEventsMissing),
        (events[:3] + events[4:], JournalEventsMissing),
        ([*events[:at], altered, *events[at + 1 :]], JournalEventsMissing),
        ([*events, b"{"], MalformedChange),
        ([*events, b"[]"], MalformedChange),
        ([*events, b'{"format":1}'], MalformedChange),
        ([*events, b"\xff"], MalformedChange),
        ([*events, events[0].replace(b'"format":1', b'"format":2')], MalformedChange),
        ([*events, events[0].replace(b'"format":1', b'"format": 1')], MalformedChange),
        ([*events, events[0].replace(b'"item"', b'"thing"', 1)], MalformedChange),
        ([*events, events[0].replace(b'"kind"', b'"kinds"', 1)], MalformedChange),
    ):
        with pytest.raises(error) as raised:
            Ground.rebuild(tmp_path / "again.db", bad)
        assert isinstance(raised.value, GroundError)
        assert raised.value.remedy
        assert sorted(path.name for path in tmp_path.iterdir()) == ["ground.db"]


def test_a_database_of_another_history_is_not_caught_up_with(
    open_ground: Callable[..., Ground], journal: Any
) -> None:
    with open_ground("one.db") as one:
        one.item("model", "a")
        one.item("model", "b")
    with open_ground("two.db", append=lambda kind, payload: None) as two:
        two.item("model", "z")
        with pytest.raises(JournalEventsMissing):
            two.catch_up(journal.payloads)
        assert [item.name for item in two.items().entries] == ["z"]


def test_a_rebuild_replaces_no_file_and_takes_up_no_leavings(
    tmp_path: Path, open_ground: Callable[..., Ground], journal: Any
) -> None:
    path = tmp_path / "ground.db"
    with open_ground() as ground:
        _fill(ground)
        with pytest.raises(DatabaseUnreadable):
            Ground.rebuild(path, journal.payloads)
        leavings = (tmp_path / "ground.db-wal").read_bytes()
        assert leavings
    before = _rows(path)
    path.unlink()
    (tmp_path / "ground.db-wal").write_bytes(leavings)
    Ground.rebuild(path, journal.payloads)
    assert _rows(path) == before


def test_a_batch_too_large_for_an_event_is_refused_whole(
    open_ground: Callable[..., Ground], journal: Any
) -> None:
    with open_ground() as ground:
        ground.item("model", "m")
        with pytest.raises(TooLarge):
            _add_too_much(ground)
        assert ground.find().entries == ()
        assert len(journal.payloads) == 1


def test_threads_of_one_process_take_turns(ground: Ground) -> None:
    item = ground.item("model", "m")
    failures: list[BaseException] = []

    def add(name: int) -> None:
        try:
            for n in range(20):
                with ground.batch():
                    one = ground.version(item, content={"by": name, "n": n})
                    ground.link(one, ground.version(item, content={"of": one.hash}), "made")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=add, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert not failures
    assert len(ground.find().entries) == 4 * 20 * 2


def test_a_closed_catalogue_says_so(open_ground: Callable[..., Ground]) -> None:
    ground = open_ground()
    ground.close()
    ground.close()
    for ask in (lambda: ground.find(), lambda: ground.item("model", "m")):
        with pytest.raises(GroundClosed):
            ask()
