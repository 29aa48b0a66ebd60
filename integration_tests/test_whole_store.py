"""The store as a whole: several processes, foreign and damaged directories, a lost catalogue.

An app of its own, with a model of nothing, so that each test looks at the store and at nothing
else; children run the same app from a file.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import srds
from srds.store import Store
from timemachine.errors import DecisionNotFound, JournalDamaged, JournalError, TimeMachineError
from timemachine.journal import verify
from timemachine.replay import Records, Replayer

APP = """
import json, os, random, sys
import srds

app = srds.App("gate")

@app.decision(subject="name")
def admit(name):
    limit = srds.read("limits", name[0], lambda: 0.5)
    return {"name": name, "in": random.random() < limit}

def say(text):
    os.write(1, text.encode() + b"\\n")
"""

WRITER = (
    APP
    + """
from timemachine.replay import Records

with app.open(sys.argv[1]) as opened:
    say(opened.journal.directory.name)
    sys.stdin.readline()
    for number in range(int(sys.argv[2])):
        say(admit.decide(f"{sys.argv[3]}-{number}").id.hex())
    say("done")
    sys.stdin.readline()
"""
)

REPLAYER = (
    APP
    + """
from timemachine.replay import Records

with app.open(sys.argv[1], recording=False) as opened:
    records = [one for one in Records(opened.store.reader()) if one.outcome is not None]
    with opened.replayer() as replayer:
        replays = replayer.exact_all(records)
    print(json.dumps([[one.decision, one.exact, one.first_difference] for one in replays]))
"""
)

# Root without the right to pass over permissions; nobody else has that right anyway.
BOUND = """
import ctypes
header = (ctypes.c_uint32 * 2)(0x20080522, 0)
capabilities = (ctypes.c_uint32 * 6)()
libc = ctypes.CDLL(None, use_errno=True)
assert libc.capget(header, capabilities) == 0
capabilities[0] &= ~0b1110  # dac_override, dac_read_search, fowner
assert libc.capset(header, capabilities) == 0
"""

MAKE = APP + "with app.open(sys.argv[1]):\n    [admit(name) for name in sys.argv[2:]]\n"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, fresh_process: Callable[..., Any]) -> Path:
    store = tmp_path_factory.mktemp("gate") / "store"
    assert fresh_process(MAKE, store, "ada", "bob", "cy").status == 0
    return store


@pytest.fixture
def made(original: Path, tmp_path: Path) -> Path:
    """A store with three decisions, closed well; the test may do with it as it likes."""
    copy = tmp_path / "store"
    shutil.copytree(original, copy)
    return copy


@pytest.fixture
def app() -> srds.App:
    """An app in this process; it has no decision of the children's."""
    return srds.App("other")


def contents(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def healthy(store: Path) -> None:
    opened = Store.open(store)
    report = verify(opened.journal, list(opened.trusted()))
    assert report.ok, report.findings


# Several processes


def hear(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().rstrip("\n")


def tell(child: subprocess.Popen[str]) -> None:
    assert child.stdin is not None
    child.stdin.write("\n")
    child.stdin.flush()


def test_two_processes_decide_into_one_store_at_once(
    tmp_path: Path,
    start_process: Callable[..., subprocess.Popen[str]],
    fresh_process: Callable[..., Any],
) -> None:
    store, count = tmp_path / "store", 500
    children = [start_process(WRITER, store, count, name) for name in ("ada", "bob")]
    logs = [hear(child) for child in children]
    assert logs[0] != logs[1], "each has a log of its own"
    for child in children:  # both are open: now both write
        tell(child)
    said = [[hear(child) for _ in range(count + 1)] for child in children]
    assert [lines.pop() for lines in said] == ["done", "done"]
    ids = set(said[0]) | set(said[1])
    assert len(ids) == 2 * count, "no id is drawn twice"

    # While both still hold the store open, a reader sees all and a third process replays all.
    records = {one.id: one for one in Records(Store.open(store).reader())}
    assert set(records) == ids
    for log, name, lines in zip(logs, ("ada", "bob"), said, strict=True):
        for number, identity in enumerate(lines):
            assert records[identity].log == log
            assert records[identity].subject == f"{name}-{number}"
    events = list(Store.open(store).reader().events())
    for log in logs:
        assert [one.seq for one in events if one.log == log] == list(
            range(sum(one.log == log for one in events))
        )
    replays = fresh_process(REPLAYER, store).answer
    assert {identity for identity, *_ in replays} == ids
    assert all(exact for _, exact, _ in replays), replays[0]

    for child in children:
        tell(child)
        assert child.wait(30) == 0
    healthy(store)
    # Who comes next goes on with one of the two logs; there is no third one.
    assert fresh_process(MAKE, store, "dan").status == 0
    assert sorted(path.name for path in (store / "journal").iterdir()) == sorted(logs)
    assert len(Records(Store.open(store).reader()).ids()) == 2 * count + 1


def test_replays_run_while_another_process_writes(
    tmp_path: Path,
    start_process: Callable[..., subprocess.Popen[str]],
    fresh_process: Callable[..., Any],
) -> None:
    store = tmp_path / "store"
    child = start_process(WRITER, store, 5000, "ada")
    hear(child)
    tell(child)
    known = [hear(child) for _ in range(200)]
    seen: list[int] = []
    for _ in range(2):
        replays = fresh_process(REPLAYER, store).answer
        assert all(exact for _, exact, _ in replays)
        ids = [identity for identity, *_ in replays]
        assert set(known) <= set(ids), "what was acknowledged before is seen"
        seen.append(len(ids))
        known += [hear(child) for _ in range(1000)]
    assert seen[0] < seen[1]
    child.kill()
    child.wait(30)
    # The writer is dead, its last events are in no file yet; they replay nevertheless.
    replays = fresh_process(REPLAYER, store).answer
    assert set(known) <= {identity for identity, *_ in replays}
    assert all(exact for _, exact, _ in replays)


def test_many_processes_make_one_store_at_once(
    tmp_path: Path, start_process: Callable[..., subprocess.Popen[str]]
) -> None:
    store = tmp_path / "store"
    children = [start_process(MAKE, store, f"name-{number}") for number in range(6)]
    for child in children:
        assert child.wait(60) == 0, child.stderr.read() if child.stderr else ""
    names = {one.subject for one in Records(Store.open(store).reader())}
    assert names == {f"name-{number}" for number in range(6)}
    healthy(store)


# Directories that are no store, or one of another time


def test_a_foreign_directory_is_refused_and_left_alone(tmp_path: Path, app: srds.App) -> None:
    (tmp_path / "letter.txt").write_text("dear all")
    with (
        pytest.raises(srds.StoreError, match="not empty, and no store") as refused,
        app.open(tmp_path),
    ):
        pass
    assert str(tmp_path) in str(refused.value)
    assert refused.value.remedy
    assert contents(tmp_path) == {"letter.txt": b"dear all"}
    with pytest.raises(srds.StoreError, match="no store"), app.open(tmp_path, recording=False):
        pass


def test_a_file_in_place_of_the_store_is_refused(tmp_path: Path, app: srds.App) -> None:
    path = tmp_path / "store"
    path.write_text("not a directory")
    for recording in (True, False):
        with pytest.raises(srds.StoreError) as refused, app.open(path, recording=recording):
            pass
        assert str(path) in str(refused.value)
        assert refused.value.remedy
    assert path.read_text() == "not a directory"


def test_there_is_nothing_to_replay_where_there_is_no_store(tmp_path: Path, app: srds.App) -> None:
    with (
        pytest.raises(srds.StoreError, match="there is no store") as refused,
        app.open(tmp_path / "nowhere", recording=False),
    ):
        pass
    assert refused.value.remedy
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    "mark",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"format": 1}',
        b'{"format": "1", "id": "0"}',
        b'{"format": 1, "id": 7}',
        b'{"format": 0, "id": "0011223344556677"}',
        b'{"format": true, "id": "0011223344556677"}',
        b'{"format": 1, "id": "../../elsewhere"}',
        b"\xff\xfe",
    ],
)
@pytest.mark.parametrize("recording", [True, False])
def test_a_damaged_mark_is_refused_and_nothing_is_touched(
    made: Path, app: srds.App, mark: bytes, recording: bool
) -> None:
    (made / "store.json").write_bytes(mark)
    before = contents(made)
    with pytest.raises(srds.StoreError) as refused, app.open(made, recording=recording):
        pass
    assert "store.json" in refused.value.what + str(refused.value)
    assert refused.value.remedy
    assert contents(made) == before


def test_a_store_of_a_newer_format_is_refused_and_untouched(made: Path, app: srds.App) -> None:
    mark = json.loads((made / "store.json").read_text())
    (made / "store.json").write_text(json.dumps({**mark, "format": 2, "layout": "another"}))
    before = contents(made)
    for recording in (True, False):
        with (
            pytest.raises(srds.StoreError, match="format 2") as refused,
            app.open(made, recording=recording),
        ):
            pass
        assert "newer" in refused.value.remedy
    assert contents(made) == before


def test_a_segment_of_a_newer_format_is_refused_and_untouched(made: Path, app: srds.App) -> None:
    [segment] = made.glob("journal/*/*.seg")
    data = bytearray(segment.read_bytes())
    struct.pack_into("<I", data, 8, 2)
    segment.write_bytes(data)
    before = contents(made / "journal")
    with pytest.raises(JournalError) as refused, app.open(made):
        pass
    assert segment.name in str(refused.value)
    assert refused.value.remedy
    with pytest.raises(JournalError):
        list(Records(Store.open(made).reader()))
    after = contents(made / "journal")
    assert {name: after[name] for name in before if not name.endswith("lock")} == {
        name: data for name, data in before.items() if not name.endswith("lock")
    }


# Damage


def test_a_journal_cut_below_what_is_signed_is_refused_and_not_cut_further(
    made: Path, app: srds.App
) -> None:
    [segment] = made.glob("journal/*/*.seg")
    data = segment.read_bytes()
    segment.write_bytes(data[: len(data) - 300])
    with pytest.raises(JournalDamaged) as refused, app.open(made):
        pass
    assert refused.value.remedy
    assert segment.read_bytes() == data[: len(data) - 300]
    store = Store.open(made)
    report = verify(store.journal, list(store.trusted()))
    assert not report.ok
    assert any("signed" in finding.message for finding in report.findings)


def test_a_missing_segment_is_damage(made: Path, app: srds.App) -> None:
    [segment] = made.glob("journal/*/*.seg")
    segment.unlink()
    with pytest.raises(JournalError) as refused, app.open(made):
        pass
    assert refused.value.remedy
    store = Store.open(made)
    assert not verify(store.journal, list(store.trusted())).ok


def test_an_altered_answer_is_found_before_it_is_replayed(
    made: Path, fresh_process: Callable[..., Any]
) -> None:
    [segment] = made.glob("journal/*/*.seg")
    data = segment.read_bytes()
    place = data.index(b"\xa2in") + 3
    assert data[place] in b"\xc2\xc3"  # true and false, as msgpack writes them
    segment.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    store = Store.open(made)
    assert not verify(store.journal, list(store.trusted())).ok
    with pytest.raises(JournalDamaged) as refused:
        list(Records(store.reader()))
    assert refused.value.segment == segment.name
    ended = fresh_process(REPLAYER, made)
    assert ended.status != 0
    assert segment.name in ended.err


def test_ids_that_are_none_are_refused(made: Path) -> None:
    records = Records(Store.open(made).reader())
    [first, *_] = records.ids()
    assert records.find(first[:12].upper() + " ").id == first
    for prefix in ("", "abc", "xyzw", first + "00", "-1", "../..", "0" * 31 + "g"):
        with pytest.raises(DecisionNotFound) as refused:
            records.find(prefix)
        assert refused.value.remedy


# A store that may only be read


def test_a_read_only_store_replays_and_refuses_to_record(
    made: Path, fresh_process: Callable[..., Any]
) -> None:
    before = contents(made)
    places = [made, *made.rglob("*")]
    modes = {path: path.stat().st_mode for path in places}
    for path in places:
        path.chmod(modes[path] & ~0o222)
    try:
        replays = fresh_process(BOUND + REPLAYER, made)
        recorded = fresh_process(BOUND + MAKE, made, "eve")
    finally:
        for path in places:
            path.chmod(modes[path])
    assert [exact for _, exact, _ in replays.answer] == [True, True, True]
    assert recorded.status != 0
    last = recorded.err.strip().splitlines()[-1]
    assert "Error" in last or "Locked" in last
    assert str(made) in last, recorded.err
    assert contents(made) == before


def test_a_store_where_nothing_may_be_made_is_named(
    tmp_path: Path, fresh_process: Callable[..., Any]
) -> None:
    parent = tmp_path / "locked"
    parent.mkdir(mode=0o500)
    ended = fresh_process(BOUND + MAKE, parent / "store", "eve")
    assert ended.status != 0
    last = ended.err.strip().splitlines()[-1]
    assert last.startswith("srds.errors.StoreError: no store can be made at")
    assert str(parent / "store") in last
    assert not (parent / "store").exists()


# The catalogue


CATALOGUE = (
    APP
    + """
with app.open(sys.argv[1]) as opened:
    ground = opened.ground
    previous = None
    for depth in range(3):
        content = {"depth": depth}
        previous = ground.version(
            ground.item("model", "gate"), content=content, parents=[previous] if previous else []
        )
    ground.move("model/gate@production", None, previous)
    print(json.dumps(previous.hash))
"""
)

# Killed between the journal's event and the database's commit.
HALF = (
    APP
    + """
import signal

with app.open(sys.argv[1]) as opened:
    def append(kind, payload):
        opened.kernel.events.append(kind, payload)
        os.kill(os.getpid(), signal.SIGKILL)

    ground = opened.store.catalogue(append)
    ground.item("model", "half")
"""
)


def model_items(app: srds.App, store: Path) -> list[str]:
    with app.open(store, recording=False) as opened:
        return [str(item) for item in opened.ground.items("model").entries]


def test_a_deleted_catalogue_comes_back_from_the_journal(
    made: Path, app: srds.App, fresh_process: Callable[..., Any]
) -> None:
    newest = fresh_process(CATALOGUE, made).answer
    for path in made.glob("ground.db*"):
        path.unlink()
    with app.open(made) as opened:
        assert opened.ground.resolve("model/gate@production").hash == newest
        ground = opened.ground
        added = ground.version(ground.item("model", "gate"), content={"depth": 3}, parents=[newest])
        ground.move("model/gate@production", newest, added)
    # What was added goes on from what was there: the journal still makes one history.
    for path in made.glob("ground.db*"):
        path.unlink()
    with app.open(made) as opened:
        assert opened.ground.resolve("model/gate@production").hash == added.hash
        assert len(opened.ground.find("model", "gate").entries) == 4


def test_a_change_whose_writer_died_before_its_commit_is_not_lost(
    made: Path, app: srds.App, fresh_process: Callable[..., Any]
) -> None:
    fresh_process(CATALOGUE, made)
    assert fresh_process(HALF, made).status == -9
    assert model_items(app, made) == ["model/gate"]
    with app.open(made):
        pass  # it recovers the journal, and nobody asks for the catalogue
    with app.open(made) as opened:
        opened.ground.item("model", "later")
    assert model_items(app, made) == ["model/gate", "model/half", "model/later"]
    for path in made.glob("ground.db*"):
        path.unlink()
    with app.open(made) as opened:
        assert len(opened.ground.items("model").entries) == 3


def test_a_foreign_database_in_its_place_is_refused_and_kept(made: Path, app: srds.App) -> None:
    from ground.errors import GroundError

    (made / "ground.db").write_bytes(b"these are my notes" * 100)
    with app.open(made) as opened, pytest.raises(GroundError) as refused:
        _ = opened.ground
    assert "ground.db" in str(refused.value)
    assert refused.value.remedy
    assert (made / "ground.db").read_bytes() == b"these are my notes" * 100


# What a copy is good for


def test_a_copy_of_a_store_is_a_store(
    made: Path, tmp_path: Path, fresh_process: Callable[..., Any]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(made, copy)
    assert fresh_process(MAKE, copy, "dan").status == 0
    assert len(fresh_process(REPLAYER, copy).answer) == 4
    assert len(fresh_process(REPLAYER, made).answer) == 3
    healthy(made)
    healthy(copy)


def test_a_decision_that_was_never_closed_is_not_replayed(
    tmp_path: Path, fresh_process: Callable[..., Any]
) -> None:
    script = APP + (
        "@app.decision\ndef last(name):\n    os.kill(os.getpid(), 9)\n\n"
        "with app.open(sys.argv[1]):\n    admit('ada')\n    last('bob')\n"
    )
    store = tmp_path / "store"
    assert fresh_process(script, store).status == -9
    admitted, open_one = Records(Store.open(store).reader())
    assert admitted.outcome is not None
    assert open_one.outcome is None
    from microkernel import Kernel

    with (
        Kernel() as kernel,
        Replayer(kernel, lambda name: print) as replayer,
        pytest.raises(TimeMachineError, match="never closed") as refused,
    ):
        replayer.exact(open_one)
    assert refused.value.what == open_one.id


def test_nothing_of_a_store_is_readable_by_others(made: Path) -> None:
    assert os.stat(made).st_mode & 0o077 == 0
