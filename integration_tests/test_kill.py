"""A process that is killed while it decides loses nothing that it acknowledged.

A child opens the app over a prepared store, goes on with the ensemble in production, and streams
applications; it prints each decision's id once the decision is acknowledged. The parent kills it
with SIGKILL at a random moment, again and again on the same store: while it starts, opens and
recovers the journal, loads the models, and above all while it decides.
"""

from __future__ import annotations

import random
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from srds.store import Store
from timemachine.errors import JournalError
from timemachine.journal import verify
from timemachine.replay import Records

CHILD = """
import asyncio, os, sys
from srds.apps import mortgage
from srds.apps.mortgage_models import load_applications

def say(text):
    os.write(1, text.encode() + b"\\n")  # one write: a line is whole or not there

applications = load_applications(1)
rows = applications.held_out.tolist()
say("opening")
with mortgage.app.open(sys.argv[1]) as opened:
    opened.provide(mortgage.table, applications)
    mortgage.redeploy(opened)
    say("loading")
    stream = lambda rows: asyncio.run(mortgage.stream(rows, lambda row, made: say(made.id.hex())))
    stream(rows[:1])  # the first decision loads the models
    say("streaming")
    while True:
        stream(rows)
"""


@dataclass
class Life:
    """One child from its start to its death: what it said, and how long it was left to live."""

    said: list[str] = field(default_factory=list)

    @property
    def acknowledged(self) -> list[str]:
        return [line for line in self.said if len(line) == 32]


def live_and_die(
    start: Callable[..., subprocess.Popen[str]], store: Path, after: str, seconds: float
) -> Life:
    """Start a child and kill it ``seconds`` after it said ``after``."""
    child = start(CHILD, store)
    assert child.stdout is not None
    life = Life()
    reached = threading.Event()

    def listen() -> None:
        assert child.stdout is not None
        for line in child.stdout:
            if not line.endswith("\n"):
                break
            life.said.append(line.rstrip("\n"))
            if line.startswith(after):
                reached.set()
        reached.set()

    listener = threading.Thread(target=listen)
    listener.start()
    assert reached.wait(60), "the child did not get so far"
    time.sleep(seconds)  # the moment of death is what is drawn; nothing is awaited here
    child.kill()
    listener.join(30)
    assert child.wait(30) == -9, child.stderr.read() if child.stderr else ""
    return life


def check_after_death(store: Path, acknowledged: set[str]) -> None:
    """What a reader sees while nobody has opened the store again."""
    reader = Store.open(store).reader()
    closed = {
        event.decision.hex()
        for event in reader.events(kinds=("decision.closed",))
        if event.decision is not None
    }
    assert acknowledged <= closed
    records = {record.id: record for record in Records(reader)}
    assert acknowledged <= set(records)
    for identity, record in records.items():
        assert (record.outcome is not None) == (identity in closed)


def check_replays(store: Path, acknowledged: set[str]) -> None:
    """Every decision that was closed replays to the last bit."""
    from srds.apps import mortgage

    with mortgage.app.open(store, recording=False) as opened:
        records = [one for one in Records(opened.store.reader()) if one.outcome is not None]
        assert acknowledged <= {one.id for one in records}
        assert {one.versions for one in records} == {records[0].versions}
        with opened.resting_on(records[0].versions), opened.replayer() as replayer:
            for replay in replayer.exact_all(records):
                assert replay.exact, replay.first_difference


def check_goes_on(store: Path, deciding: Callable[..., list[str]], table: Any) -> None:
    """The store opens, is whole, and takes decisions."""
    from srds.apps.mortgage_models import load_applications

    before = set(Records(Store.open(store).reader()).ids())
    ids = deciding(store, load_applications(1, table).held_out.tolist()[:20])
    assert len(ids) == 20
    assert not before & set(ids)
    opened = Store.open(store)
    assert before | set(ids) == set(Records(opened.reader()).ids())
    report = verify(opened.journal, list(opened.trusted()))
    assert report.ok, report.findings
    assert [log.signed_frames for log in report.logs] == [log.frames for log in report.logs]


def die_often(
    moments: list[tuple[str, float]],
    store: Path,
    start: Callable[..., subprocess.Popen[str]],
    deciding: Callable[..., list[str]],
    table: Any,
    each: int,
) -> int:
    acknowledged: set[str] = set()
    for number, (after, seconds) in enumerate(moments, 1):
        life = live_and_die(start, store, after, seconds)
        new = life.acknowledged
        assert len(set(new)) == len(new)
        assert not acknowledged & set(new)
        acknowledged |= set(new)
        if number % each == 0:
            check_after_death(store, acknowledged)
    check_after_death(store, acknowledged)
    check_replays(store, acknowledged)
    check_goes_on(store, deciding, table)
    check_replays(store, acknowledged)
    return len(acknowledged)


def test_three_kills_lose_no_acknowledged_decision(
    store: Path,
    start_process: Callable[..., subprocess.Popen[str]],
    deciding: Callable[..., list[str]],
    table: Any,
) -> None:
    # While the journal is opened; with the first decisions; in the midst of them.
    moments = [("opening", 0.05), ("streaming", 0.0), ("streaming", 0.4)]
    assert die_often(moments, store, start_process, deciding, table, each=1) > 20


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_fifty_kills_at_random_moments_lose_no_acknowledged_decision(
    store: Path,
    start_process: Callable[..., subprocess.Popen[str]],
    deciding: Callable[..., list[str]],
    table: Any,
) -> None:
    generator = random.Random(17)
    moments = [("opening", generator.uniform(0, 0.3)) for _ in range(5)]
    moments += [("loading", generator.uniform(0, 1.0)) for _ in range(5)]
    moments += [("streaming", 0.0) for _ in range(5)]
    moments += [("streaming", generator.uniform(0, 0.6)) for _ in range(35)]
    generator.shuffle(moments)
    assert len(moments) == 50
    # A look only at each tenth death: the others die on a journal that nobody but them has read.
    assert die_often(moments, store, start_process, deciding, table, each=10) > 1000


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_killed_recovery_is_recovered(
    store: Path,
    start_process: Callable[..., subprocess.Popen[str]],
    deciding: Callable[..., list[str]],
    table: Any,
) -> None:
    """The ring of the first death is still to be written when the next ones come."""
    first = live_and_die(start_process, store, "streaming", 0.3)
    assert first.acknowledged
    for delay in (0.0, 0.01, 0.02, 0.03, 0.05):
        live_and_die(start_process, store, "opening", delay)
        check_after_death(store, set(first.acknowledged))
    check_goes_on(store, deciding, table)
    check_replays(store, set(first.acknowledged))


def test_a_damaged_journal_is_not_taken_for_a_killed_writer_s(
    store: Path, deciding: Callable[..., list[str]], table: Any
) -> None:
    from srds.apps.mortgage_models import load_applications

    rows = load_applications(1, table).held_out.tolist()[:4]
    deciding(store, rows)
    segment = max(store.glob("journal/*/*.seg"))
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 4
    segment.write_bytes(data)
    with pytest.raises(JournalError) as refused:
        deciding(store, rows)
    assert segment.name in str(refused.value)
    assert refused.value.remedy
    assert segment.read_bytes() == data, "a refused store is not touched"
