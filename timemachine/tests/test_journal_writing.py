"""What is appended is what is read, whatever the size, the thread or the moment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enclave.keys import SigningKey
from microkernel import Kernel, events
from microkernel.events import INPUT, JOURNAL_CHECKPOINT, TASKS
from timemachine.errors import (
    JournalClosed,
    JournalError,
    JournalLocked,
)
from timemachine.journal import Event, Journal, JournalSettings, Reader, open_log, verify

KEY = SigningKey.generate("example.org/store")
SMALL = JournalSettings(ring_bytes=64 << 10, segment_bytes=16 << 10)
QUIET = JournalSettings(checkpoint_seconds=3600)


def payloads(directory: Path) -> list[bytes]:
    return [e.payload for e in Reader(directory).events(kinds={"input"})]


an_event = st.tuples(
    st.sampled_from([INPUT, TASKS]),
    st.binary(max_size=3000),
    st.none() | st.binary(min_size=16, max_size=16).filter(any),
    st.integers(0, 2**64 - 1),
    st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)), max_size=3),
)


@settings(max_examples=25, deadline=None)
@given(runs=st.lists(st.lists(an_event, max_size=12), min_size=1, max_size=3))
def test_every_event_is_read_as_it_was_appended(runs: list[list[tuple]]) -> None:
    names = {INPUT: "input", TASKS: "tasks"}
    with TemporaryDirectory() as store:
        expected = []
        for run in runs:
            with open_log(store, KEY, settings=SMALL) as journal:
                for kind, payload, decision, flags, parents in run:
                    journal.append_event(
                        kind, payload, decision=decision, flags=flags, parents=parents
                    )
                    expected.append((names[kind], payload, decision, flags, tuple(parents)))
        reader = Reader(store)
        found = [e for e in reader.events() if e.kind in ("input", "tasks")]
        assert [(e.kind, e.payload, e.decision, e.flags, e.parents) for e in found] == expected
        decisions = list(dict.fromkeys(d for _, _, d, _, _ in expected if d is not None))
        assert reader.decisions() == decisions
        for decision in decisions:
            mine = [e for e in found if e.decision == decision]
            assert list(reader.events(decision)) == mine
            inputs = [e for e in mine if e.kind == "input"]
            assert list(reader.events(decision, kinds=["input"])) == inputs
        assert verify(store, [KEY.public]).findings == ()


def test_append_returns_the_position_and_the_counts_follow(tmp_path: Path) -> None:
    with open_log(tmp_path, KEY, settings=QUIET) as journal:
        assert [journal.append_event(INPUT, b"x") for _ in range(3)] == [0, 1, 2]
        assert journal.size == 3
        journal.sync()
        assert journal.durable_size == 3
    with open_log(tmp_path, KEY, settings=QUIET) as again:
        assert again.log_id == journal.log_id
        assert again.run_id != journal.run_id
        assert again.append_event(INPUT, b"x") == 3


def test_an_empty_payload_and_other_buffers_are_kept(tmp_path: Path) -> None:
    with open_log(tmp_path, KEY) as journal:
        for payload in (b"", bytearray(b"abc"), memoryview(b"defg")[1:3], memoryview(b"")):
            journal.append_event(INPUT, payload)
    assert payloads(tmp_path) == [b"", b"abc", b"ef", b""]


@pytest.mark.parametrize("n", [16 << 10, (16 << 10) + 1, 64 << 10, 5 << 20, 64 << 20])
def test_a_huge_event_is_written_past_the_ring_in_its_turn(tmp_path: Path, n: int) -> None:
    huge = os.urandom(1 << 16) * (n // (1 << 16) + 1)
    huge = huge[:n]
    with open_log(tmp_path, KEY, settings=SMALL) as journal:
        journal.append_event(INPUT, b"before")
        journal.append_event(INPUT, huge, parents=[(1, 2)], decision=b"d" * 16)
        journal.append_event(INPUT, b"after")
        live = list(Reader(tmp_path).events(kinds={"input"}))
        assert [e.payload for e in live] == [b"before", huge, b"after"]
        assert (live[1].parents, live[1].decision) == (((1, 2),), b"d" * 16)
    assert verify(tmp_path, [KEY.public]).ok


def test_an_event_beyond_64_mib_is_refused(tmp_path: Path) -> None:
    with open_log(tmp_path, KEY) as journal:
        with pytest.raises(JournalError, match="64 MiB"):
            journal.append_event(INPUT, bytes((64 << 20) + 1))
        assert journal.append_event(INPUT, b"x") == 0


def test_what_no_frame_can_hold_is_refused(tmp_path: Path) -> None:
    with open_log(tmp_path, KEY) as journal:
        with pytest.raises(JournalError, match="16 bytes, not 3"):
            journal.append_event(INPUT, b"", decision=b"abc")
        with pytest.raises(JournalError, match="no event kind has the number 65535"):
            journal.append_event(65535, b"")
        with pytest.raises(JournalError, match="at most 65535 parents"):
            journal.append_event(INPUT, b"", parents=[(1, 1)] * 65536)
        with pytest.raises(OverflowError):
            journal.append_event(INPUT, b"", flags=-1)
        with pytest.raises(TypeError):
            journal.append_event(INPUT, "text")  # type: ignore[arg-type]
        assert journal.append_event(INPUT, b"", parents=[(1, 1)] * 65535) == 0
        assert len(next(Reader(tmp_path).events()).parents) == 65535


def test_eight_threads_lose_and_reorder_nothing(tmp_path: Path) -> None:
    count, threads = 2000, 8
    with open_log(tmp_path, KEY, settings=SMALL) as journal:

        def work(name: int) -> None:
            for i in range(count):
                payload = b"%d %d" % (name, i)
                journal.append_event(INPUT, payload + b" " * (i % 700), decision=bytes([name]) * 16)

        workers = [threading.Thread(target=work, args=(n + 1,)) for n in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    reader = Reader(tmp_path)
    for name in range(1, threads + 1):
        own = [e.payload.split() for e in reader.events(bytes([name]) * 16)]
        assert own == [[b"%d" % name, b"%d" % i] for i in range(count)]
    lamports = [e.lamport for e in reader.events()]
    assert lamports == sorted(set(lamports))
    assert verify(tmp_path, [KEY.public]).ok


def test_a_reader_sees_what_is_acknowledged_at_once(tmp_path: Path) -> None:
    slow = JournalSettings(flush_interval_ms=60_000, flush_bytes=1 << 30)
    with open_log(tmp_path, KEY, settings=slow) as journal:
        reader = Reader(tmp_path)
        for i in range(50):
            journal.append_event(INPUT, b"%d" % i, decision=bytes([i + 1]) * 16)
            assert [e.payload for e in reader.events()] == [b"%d" % n for n in range(i + 1)]
            assert len(reader.decisions()) == i + 1
            (event,) = reader.events(bytes([i + 1]) * 16)
            assert (event.seq, reader.header_of(event).run_id) == (i, journal.run_id)


def test_a_reader_follows_a_writer_that_never_rests(tmp_path: Path) -> None:
    total = 20_000
    with open_log(tmp_path, KEY, settings=SMALL) as journal:

        def work() -> None:
            for i in range(total):
                journal.append_event(INPUT, b"%d" % i)

        worker = threading.Thread(target=work)
        worker.start()
        reader = Reader(tmp_path)
        seen = 0
        while seen < total:
            found = [int(e.payload) for e in reader.events(kinds={"input"})]
            assert found == list(range(len(found)))
            assert len(found) >= seen
            seen = len(found)
        worker.join()


def test_kinds_registered_after_the_segment_began_are_declared_in_it(tmp_path: Path) -> None:
    with open_log(tmp_path, KEY, settings=QUIET) as journal:
        late = events.register("test.journal.late", (("value", "int64"),))
        journal.append_event(late, b"1")
        later = events.register("test.journal.later", (("value", "int64"),))
        journal.append_event(later, b"2")
        journal.append_event(late, b"3")
        assert [e.kind for e in Reader(tmp_path).events()] == [
            "journal.kind",
            "test.journal.late",
            "journal.kind",
            "test.journal.later",
            "test.journal.late",
        ]
    with open_log(tmp_path, KEY, settings=QUIET) as journal:
        journal.append_event(later, b"4")
    found = Reader(tmp_path)
    assert [e.payload for e in found.events(kinds={"test.journal.later"})] == [b"2", b"4"]
    headers = found.headers(journal.log_id)
    assert "test.journal.late" not in headers[0].kinds.values()
    assert headers[1].columns["test.journal.late"] == (("value", "int64"),)


def test_durable_ack_means_that_append_returns_durable(tmp_path: Path) -> None:
    with open_log(tmp_path, KEY, settings=JournalSettings(durable="ack")) as journal:
        for i in range(5):
            assert journal.append_event(INPUT, b"x") == i
            assert journal.durable_size == i + 1


def test_sync_gives_up_after_its_time(tmp_path: Path) -> None:
    with open_log(tmp_path, KEY) as journal:
        journal.append_event(INPUT, b"x")
        with pytest.raises(TimeoutError, match="not durable after 0"):
            journal.sync(timeout=0)
        journal.sync(timeout=30)


def test_the_clock_moves_past_what_was_observed_and_over_openings(tmp_path: Path) -> None:
    with open_log(tmp_path, KEY, settings=QUIET) as journal:
        journal.append_event(INPUT, b"")
        journal.observe(1000)
        journal.append_event(INPUT, b"")
        journal.observe(5)
        journal.append_event(INPUT, b"")
    with open_log(tmp_path, KEY, settings=QUIET):
        pass
    with open_log(tmp_path, KEY, settings=QUIET) as journal:
        journal.append_event(INPUT, b"")
    assert [e.lamport for e in Reader(tmp_path).events()] == [1, 1001, 1002, 1003]


def test_logs_are_merged_by_lamport_time(tmp_path: Path) -> None:
    with open_log(tmp_path, KEY) as one, open_log(tmp_path, KEY) as two:
        assert one.log_id != two.log_id
        one.append_event(INPUT, b"a")
        two.observe(1)
        two.append_event(INPUT, b"b")
        one.observe(2)
        one.append_event(INPUT, b"c")
        reader = Reader(tmp_path)
        assert [e.payload for e in reader.events()] == [b"a", b"b", b"c"]
        assert set(reader.logs) == {one.log_id, two.log_id}
        assert [e.payload for e in Reader(one.directory).events()] == [b"a", b"c"]


def test_a_second_writer_of_a_log_is_refused_with_the_pid_of_the_first(tmp_path: Path) -> None:
    with open_log(tmp_path, KEY) as journal:
        with pytest.raises(JournalLocked, match=f"process {os.getpid()}") as caught:
            Journal.open(journal.directory, KEY)
        assert caught.value.pid == os.getpid()
        journal.append_event(INPUT, b"still mine")
    with Journal.open(journal.directory, KEY) as again:
        assert again.size == 1


def test_a_closed_journal_says_so(tmp_path: Path) -> None:
    journal = open_log(tmp_path, KEY)
    journal.close()
    journal.close()
    assert journal.closed
    with pytest.raises(JournalClosed, match=journal.log_id):
        journal.append_event(INPUT, b"")
    with pytest.raises(JournalClosed):
        journal.sync()


def test_a_directory_that_is_no_logs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="not the directory of a log"):
        Journal.open(tmp_path / "mine", KEY)
    with pytest.raises(JournalError, match="there is no journal"):
        Reader(tmp_path / "nowhere")
    with pytest.raises(TypeError, match=r"Journal\.open"):
        Journal()


@pytest.mark.parametrize(
    "wrong",
    [
        {"ring_bytes": 100_000},
        {"ring_bytes": 1 << 31},
        {"segment_bytes": 1},
        {"flush_interval_ms": 0},
        {"flush_bytes": 0},
        {"checkpoint_seconds": float("nan")},
        {"checkpoint_events": 0},
        {"durable": "yes"},
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict) -> None:
    with pytest.raises(JournalError, match=next(iter(wrong))):
        JournalSettings(**wrong)


@pytest.mark.parametrize("wrong", [{"cpu": object()}, {"speed": float("inf")}])
def test_a_fingerprint_that_is_no_json_is_refused_and_the_log_stays_free(
    tmp_path: Path, wrong: dict
) -> None:
    with pytest.raises(JournalError, match="fingerprint is no JSON"):
        open_log(tmp_path, KEY, fingerprint=wrong)
    with open_log(tmp_path, KEY, fingerprint={"cpu": "Größe"}) as journal:
        journal.append_event(INPUT, b"x")
    reader = Reader(tmp_path)
    (event,) = reader.events()
    assert reader.header_of(event).fingerprint == {"cpu": "Größe"}
    assert len(reader.logs) == 1


def test_checkpoints_are_signed_while_writing_and_journaled(tmp_path: Path) -> None:
    often = JournalSettings(checkpoint_seconds=0.01, checkpoint_events=10)
    with open_log(tmp_path, KEY, settings=often) as journal:
        seen = threading.Event()
        while not seen.is_set():
            journal.append_event(INPUT, b"x" * 100)
            journal.sync()
            if len(list(Reader(tmp_path).events(kinds={"journal.checkpoint"}))) > 3:
                seen.set()
    report = verify(tmp_path, [KEY.public])
    assert report.findings == ()
    (log,) = report.logs
    assert log.checkpoints > 4
    assert log.signed_frames == log.frames
    assert events.kind_named("journal.checkpoint").number == JOURNAL_CHECKPOINT


def test_a_journal_at_rest_signs_nothing_more(tmp_path: Path) -> None:
    with open_log(tmp_path, KEY, settings=JournalSettings(checkpoint_seconds=0.005)) as journal:
        journal.append_event(INPUT, b"x")
        reader = Reader(tmp_path)
        while not list(reader.events(kinds={"journal.checkpoint"})):
            pass
        size = journal.size
        threading.Event().wait(0.1)
        assert journal.size == size


def test_a_forked_child_is_refused_and_does_not_keep_the_lock(tmp_path: Path) -> None:
    program = """
import os, sys, time
from enclave.keys import SigningKey
from microkernel.events import INPUT
from timemachine.errors import JournalForked, JournalLocked
from timemachine.journal import Journal, open_log
key = SigningKey.generate("example.org/store")
journal = open_log(sys.argv[1], key)
journal.append_event(INPUT, b"parent")
readable, writable = os.pipe()
child = os.fork()
if child == 0:
    refused = 0
    for call in (lambda: journal.append_event(INPUT, b"child"), journal.sync, journal.close):
        try:
            call()
        except JournalForked:
            refused += 1
    print("refused", refused, flush=True)
    os.close(writable)
    os.read(readable, 1)  # until the parent is gone
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            again = Journal.open(journal.directory, key)
        except JournalLocked:
            continue  # the system is still closing the parent's files
        print("size", again.size, again.recovery.ring, flush=True)
        again.close()
        break
    os._exit(0)
journal.append_event(INPUT, b"parent again")
os.close(readable)
sys.stdin.readline()
os.kill(os.getpid(), 9)
"""
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdin is not None
    assert child.stdout.readline() == "refused 3\n"
    child.stdin.write("\n")
    child.stdin.flush()
    assert child.wait(30) == -signal.SIGKILL
    assert child.stdout.readline() == "size 2 recovered\n"
    child.stdout.close()
    child.stdin.close()
    assert payloads(tmp_path) == [b"parent", b"parent again"]


def test_a_journal_opened_in_a_forked_child_is_its_own(tmp_path: Path) -> None:
    with open_log(tmp_path, KEY) as journal:
        journal.append_event(INPUT, b"parent")
        child = os.fork()
        if child == 0:
            status = 1
            try:
                with open_log(tmp_path, KEY) as own:
                    own.append_event(INPUT, b"child")
                    status = 0 if own.log_id != journal.log_id else 2
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
    assert sorted(payloads(tmp_path)) == [b"child", b"parent"]


def test_an_event_is_frozen(tmp_path: Path) -> None:
    with open_log(tmp_path, KEY) as journal:
        journal.append_event(INPUT, b"x")
        (event,) = Reader(tmp_path).events()
    assert isinstance(event, Event)
    assert event == next(Reader(tmp_path).events())
    assert "payload=b'x'" in repr(event)
    with pytest.raises(AttributeError):
        event.payload = b"y"  # type: ignore[misc]


def test_the_kernel_appends_at_c_level_and_gets_the_journals_errors(tmp_path: Path) -> None:
    journal = open_log(tmp_path, KEY, settings=SMALL)
    with Kernel(sink=journal) as kernel:
        late = events.register("test.journal.at_c_level", ())
        kernel.events.append(INPUT, b"one", decision=bytes(range(16)), flags=5)
        kernel.events.append(INPUT, b"")
        kernel.events.append(late, b"." * 100_000)
        with pytest.raises(JournalError, match="no event kind has the number 65535"):
            kernel.events.append(65535, b"x")
        found = [e for e in Reader(tmp_path).events() if e.kind in ("input", late_name(late))]
        assert [(e.payload, e.decision, e.flags) for e in found] == [
            (b"one", bytes(range(16)), 5),
            (b"", None, 0),
            (b"." * 100_000, None, 0),
        ]
        journal.close()
        with pytest.raises(JournalClosed):
            kernel.events.append(INPUT, b"late")


def late_name(number: int) -> str:
    return next(kind.name for kind in events.kinds() if kind.number == number)
