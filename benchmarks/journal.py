"""``journal``: what it costs to append one event, acknowledged, from Python.

Acknowledged means that the event survives the death of the process, not of the machine: our journal
leaves the sync to its flusher, SQLite runs with ``synchronous=NORMAL`` on its write-ahead log,
RocksDB writes its log without a sync, and JSON lines are flushed to the operating system one by
one. Our trial is a burst that fills three quarters of the ring while the flusher empties it; before
the next one, the flusher has caught up. What it can keep up with for ever is ``journal.durable``.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from benchmarks.measure import OURS, Bench, Effort, Figure, Trial, compare, interleaved
from benchmarks.scratch import scratch_folder, scratch_journal

__all__ = ["benches"]

PEER_EVENTS = 4000
DURABLE_EVENTS = 200_000
RING_HEADER_BYTES = 80

Append = Callable[[bytes], object]


def benches() -> list[Bench]:
    """The benches of this module."""
    return [
        Bench("journal.append_200B", partial(_append, "journal.append_200B", 200)),
        Bench("journal.append_2KB", partial(_append, "journal.append_2KB", 2048)),
        Bench("journal.durable_200B", _durable),
    ]


def _append(bench: str, size: int, effort: Effort) -> Iterable[Figure]:
    from microkernel.events import INPUT

    payload = _payload(size)
    count = effort.of(PEER_EVENTS)
    with ExitStack() as opened:
        home = opened.enter_context(scratch_folder())
        journal = opened.enter_context(scratch_journal())
        append = partial(journal.append_event, INPUT)
        burst = journal.settings.ring_bytes * 3 // 4 // (size + RING_HEADER_BYTES)
        peers: dict[str, Append] = {
            "sqlite": opened.enter_context(_sqlite(home / "events.db")),
            "jsonl": opened.enter_context(_json_lines(home / "events.jsonl")),
        }
        if find_spec("rocksdict") is not None:
            peers["rocksdb"] = opened.enter_context(_rocksdb(home / "rocks"))
        else:
            print("rocksdb is left out: pip install 'srds[bench]'", file=sys.stderr)

        def ours() -> float:
            journal.sync()
            return _microseconds(append, payload, burst)

        trials: dict[str, Trial] = {
            peer: partial(_microseconds, call, payload, count) for peer, call in peers.items()
        }
        return compare(bench, ours=ours, peers=trials, unit="us", better="lower", effort=effort)


def _durable(effort: Effort) -> Iterable[Figure]:
    from microkernel.events import INPUT

    payload = _payload(200)
    count = effort.of(DURABLE_EVENTS)
    with scratch_journal() as journal:

        def events_per_second() -> float:
            begin = time.perf_counter()
            for _ in range(count):
                journal.append_event(INPUT, payload)
            journal.sync()
            return count / (time.perf_counter() - begin)

        rates = interleaved({OURS: events_per_second}, effort.rounds)
    yield Figure("journal.durable_200B", rates[OURS], "/s", "higher")


def _payload(size: int) -> bytes:
    """Text, because JSON has no bytes: as JSON lines, the event is as long as for the others."""
    return (b"a recorded input of a decision; " * (size // 32 + 1))[:size]


def _microseconds(append: Append, payload: bytes, count: int) -> float:
    turns = range(count)
    begin = time.perf_counter()
    for _ in turns:
        append(payload)
    return (time.perf_counter() - begin) / count * 1e6


@contextmanager
def _sqlite(path: Path) -> Iterator[Append]:
    """One transaction for each event: autocommit."""
    database = sqlite3.connect(path, isolation_level=None)
    try:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=NORMAL")
        database.execute(
            "CREATE TABLE events (seq INTEGER PRIMARY KEY, kind INTEGER, payload BLOB)"
        )
        statement = "INSERT INTO events (kind, payload) VALUES (?, ?)"
        yield lambda payload: database.execute(statement, (5, payload))
    finally:
        database.close()


@contextmanager
def _json_lines(path: Path) -> Iterator[Append]:
    with path.open("w", encoding="utf-8") as file:
        seq = 0

        def append(payload: bytes) -> None:
            nonlocal seq
            file.write(json.dumps({"seq": seq, "kind": 5, "payload": payload.decode()}) + "\n")
            file.flush()
            seq += 1

        yield append


@contextmanager
def _rocksdb(path: Path) -> Iterator[Append]:
    """Raw keys and values; the write-ahead log is written with each ``put`` and not synced."""
    from rocksdict import Options, Rdict

    database = Rdict(str(path), options=Options(raw_mode=True))
    try:
        seq = 0

        def append(payload: bytes) -> None:
            nonlocal seq
            database[seq.to_bytes(8, "big")] = payload
            seq += 1

        yield append
    finally:
        database.close()
