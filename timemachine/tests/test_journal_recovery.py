"""What is left of a journal after its writer died, at any moment and in any way."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from enclave.keys import SigningKey
from microkernel.events import INPUT
from timemachine.errors import JournalDamaged, JournalError, JournalFormatError
from timemachine.journal import Journal, JournalSettings, Reader, verify
from timemachine.journal.frame import is_whole
from timemachine.journal.header import read_header
from timemachine.journal.recovery import recover

KEY = SigningKey.generate("example.org/store")
UNSIGNED = JournalSettings(checkpoint_seconds=3600)
LOG = "cd" * 16


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A directory in memory where there is one: thousands of syncs would take minutes on a disk."""
    if os.access("/dev/shm", os.W_OK):
        with TemporaryDirectory(dir="/dev/shm") as folder:
            yield Path(folder)
    else:
        yield tmp_path


def payloads(directory: Path) -> list[bytes]:
    return [e.payload for e in Reader(directory).events(kinds={"input"})]


def small_log(folder: Path, *, closed: bool) -> Path:
    """A log of six frames in one segment; when not closed, as after a loss of power: no ring, and
    only the checkpoint of the empty log."""
    log = folder / LOG
    with Journal.open(log, KEY, settings=UNSIGNED) as journal:
        for i in range(6):
            journal.append_event(INPUT, bytes([65 + i]) * (1 + 9 * i), decision=bytes([i]) * 16)
        journal.sync()
        if not closed:
            copy = folder / "copy" / LOG
            shutil.copytree(log, copy)
            (copy / "ring").unlink()
    return log if closed else copy


def only_segment(log: Path) -> Path:
    (path,) = log.glob("*.seg")
    return path


def frame_spans(path: Path) -> list[tuple[int, int]]:
    """Begin and end of each frame of a sound segment."""
    data = path.read_bytes()
    spans, at = [], read_header(path).size
    while at < len(data):
        end = (at + 8 + struct.unpack_from("<I", data, at)[0] + 7) // 8 * 8
        assert is_whole(data[at:end])
        spans.append((at, end))
        at = end
    return spans


def variants(log: Path, folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Fresh directories of the same log without its segment, and the segment's bytes."""
    data = only_segment(log).read_bytes()
    number = 0
    while True:
        copy = folder / f"v{number}" / LOG
        copy.mkdir(parents=True)
        for path in log.iterdir():
            if path.suffix != ".seg":
                (copy / path.name).write_bytes(path.read_bytes())
        yield copy, data
        shutil.rmtree(copy.parent)
        number += 1


def test_a_truncated_segment_is_recovered_to_its_last_whole_frame(memory: Path) -> None:
    log = small_log(memory, closed=False)
    name = only_segment(log).name
    spans = frame_spans(only_segment(log))
    start, length = spans[0][0], spans[-1][1]
    copies = variants(log, memory)
    copy, data = next(copies)
    for cut in range(start):
        (copy / name).write_bytes(data[:cut])
        with pytest.raises((JournalDamaged, JournalFormatError)):
            recover(copy, [KEY.public])
        assert (copy / name).read_bytes() == data[:cut]
    for cut in range(start, length + 1):
        copy, data = next(copies)
        (copy / name).write_bytes(data[:cut])
        whole = [end for _, end in spans if end <= cut]
        end = whole[-1] if whole else start
        if cut % 37 == 0:
            assert payloads(copy) == [bytes([65 + i]) * (1 + 9 * i) for i in range(len(whole))]
        state = recover(copy, [KEY.public])
        assert state.tree.size == len(whole)
        assert state.recovery.torn_bytes == cut - end
        assert (copy / name).read_bytes() == data[:end]
        torn = [path.read_bytes() for path in copy.glob("*.torn")]
        assert torn == ([data[end:cut]] if any(data[end:cut]) else [])
        if cut % 37 == 0:
            with Journal.open(copy, KEY) as journal:
                assert journal.append_event(INPUT, b"on we go") == len(whole)
            assert verify(copy, [KEY.public]).findings == ()


def test_a_signed_segment_is_never_shortened(memory: Path) -> None:
    log = small_log(memory, closed=True)
    name = only_segment(log).name
    _, length = frame_spans(only_segment(log))[-1]
    copy, data = next(variants(log, memory))
    for cut in range(length):
        (copy / name).write_bytes(data[:cut])
        with pytest.raises((JournalDamaged, JournalFormatError)):
            recover(copy, [KEY.public])
        assert (copy / name).read_bytes() == data[:cut]
        assert not verify(copy, [KEY.public]).ok


@pytest.mark.parametrize("closed", [True, False], ids=["signed", "unsigned"])
def test_a_flipped_bit_is_named_and_never_recovered_wrongly(memory: Path, closed: bool) -> None:
    log = small_log(memory, closed=closed)
    name = only_segment(log).name
    spans = frame_spans(only_segment(log))
    genuine = payloads(log)
    copies = variants(log, memory)
    for at in range(spans[-1][1]):
        copy, data = next(copies)
        flipped = bytearray(data)
        flipped[at] ^= 1 << (at % 8)
        (copy / name).write_bytes(flipped)
        hit = next((n for n, (begin, end) in enumerate(spans) if begin <= at < end), None)
        try:
            report = verify(copy, [KEY.public])
        except JournalFormatError:
            assert 8 <= at < 12  # the version
        else:
            if hit is not None or closed:
                assert not report.ok, at
            if hit is not None:
                first = report.findings[0]
                assert (first.segment, first.seq, first.offset) == (name, hit, spans[hit][0]), at
            elif not report.ok:
                assert report.findings[0].segment == name
        # Recovery stands before a segment of which the last frame may be torn. It refuses, or it
        # keeps exactly the frames before the last one.
        try:
            state = recover(copy, [KEY.public])
        except (JournalDamaged, JournalFormatError):
            assert (copy / name).read_bytes() == flipped
        else:
            assert not closed
            assert hit is None or hit == len(spans) - 1
            kept = len(spans) if hit is None else len(spans) - 1
            assert state.tree.size == kept
            if hit is not None:
                assert payloads(copy) == genuine[:-1]


def test_zeros_after_the_frames_are_cut_without_being_kept(tmp_path: Path) -> None:
    log = small_log(tmp_path, closed=True)
    path = only_segment(log)
    data = path.read_bytes()
    path.write_bytes(data + bytes(1000))
    assert recover(log, [KEY.public]).recovery.torn_bytes == 1000
    assert path.read_bytes() == data
    assert not list(log.glob("*.torn"))


def test_a_hole_before_whole_frames_is_damage_and_nothing_is_cut(tmp_path: Path) -> None:
    log = small_log(tmp_path, closed=False)
    path = only_segment(log)
    data = bytearray(path.read_bytes())
    begin, end = frame_spans(path)[3]
    data[begin:end] = bytes(end - begin)
    path.write_bytes(data)
    with pytest.raises(JournalDamaged, match="a whole frame follows") as caught:
        Journal.open(log, KEY)
    error = caught.value
    assert (error.segment, error.offset, error.seq) == (path.name, begin, 3)
    assert "srds verify" in error.remedy
    assert path.read_bytes() == data
    with pytest.raises(JournalDamaged, match="event 3"):
        payloads(log)


def test_missing_leaf_hashes_are_made_again(tmp_path: Path) -> None:
    log = small_log(tmp_path, closed=True)
    leaves = only_segment(log).with_suffix(".leaves")
    genuine = leaves.read_bytes()
    for kept in (0, 31, 64):
        leaves.write_bytes(genuine[:kept])
        recover(log, [KEY.public])
        assert leaves.read_bytes() == genuine
    leaves.unlink()
    with Journal.open(log, KEY):
        pass
    assert leaves.read_bytes() == genuine


@pytest.mark.parametrize("ring", ["/dev/shm", "the log"])
def test_what_was_acknowledged_survives_an_exit_without_close(tmp_path: Path, ring: str) -> None:
    program = """
import os, sys
from pathlib import Path
from enclave.keys import SigningKey
from microkernel.events import INPUT, register
from timemachine.journal import Journal, JournalSettings
if sys.argv[2] != "/dev/shm":
    real = os.open
    def refuse(path, *args, **kwargs):
        if str(path).startswith("/dev/shm/"):
            raise OSError(28, "No space left on device")
        return real(path, *args, **kwargs)
    os.open = refuse
slow = JournalSettings(flush_interval_ms=60000, flush_bytes=1 << 30, ring_bytes=1 << 16)
key = SigningKey.generate("example.org/store")
journal = Journal.open(Path(sys.argv[1]), key, settings=slow)
for i in range(100):
    journal.append_event(INPUT, b"%d" % i, decision=bytes(15) + b"x", flags=i, parents=[(1, i)])
    if i == 50:
        journal.sync()
late = register("late", ())
journal.append_event(late, b"late")
print(str(key.public), journal.run_id.hex(), key._written(), flush=True)
if sys.argv[3] == "kill":
    os.kill(os.getpid(), 9)
os._exit(0) if sys.argv[3] == "_exit" else None
"""
    for way in ("exit", "_exit", "kill"):
        log = tmp_path / way / LOG
        done = subprocess.run(
            [sys.executable, "-c", program, str(log), ring, way],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.stderr == ""
        assert done.returncode == (-signal.SIGKILL if way == "kill" else 0)
        _, run_id, written = done.stdout.split()
        key = SigningKey.parse(written)
        expected = [b"%d" % i for i in range(100)]
        assert payloads(log) == expected
        before = list(Reader(log).events())
        assert before[-1].kind == "late"
        with Journal.open(log, key) as journal:
            # An orderly exit may have given the flusher the time to write everything.
            assert journal.recovery.ring == "recovered"
            assert journal.recovery.ring_events in ((51,) if way == "kill" else (0, 51))
            assert journal.append_event(INPUT, b"next") == 102
        reader = Reader(log)
        assert list(reader.events())[:102] == before
        # What was recovered belongs to the run that appended it.
        assert reader.header_of(before[-1]).run_id.hex() == run_id
        assert verify(log, [key.public]).findings == ()
        assert not (log / "ring").exists()
        assert not list(Path("/dev/shm").glob(f"srds-{log.name}-*"))
        assert not list(log.glob("*.ring"))


def test_killed_at_any_moment_every_acknowledged_event_is_there(tmp_path: Path) -> None:
    program = """
import os, sys
from pathlib import Path
from enclave.keys import SigningKey
from microkernel.events import INPUT
from timemachine.journal import Journal, JournalSettings
key = SigningKey.parse(sys.argv[2])
settings = JournalSettings(ring_bytes=1 << 16, segment_bytes=1 << 16, checkpoint_seconds=0.02)
journal = Journal.open(Path(sys.argv[1]), key, settings=settings)
number = int(sys.argv[3])
while True:
    size = 40_000 if number % 500 == 499 else number % 300
    journal.append_event(INPUT, b"%d " % number + b"." * size, decision=number.to_bytes(16, "big"))
    number += 1
    os.write(1, number.to_bytes(8, "little"))
"""
    log = tmp_path / LOG
    chance = random.Random(7)
    appended = 1
    for _ in range(8):
        child = subprocess.Popen(
            [sys.executable, "-c", program, str(log), KEY._written(), str(appended)],
            stdout=subprocess.PIPE,
        )
        assert child.stdout is not None
        acknowledged = child.stdout.read(8 * chance.randrange(1, 4000))
        child.kill()
        acknowledged += child.stdout.read()
        child.stdout.close()
        child.wait(30)
        last = int.from_bytes(acknowledged[len(acknowledged) // 8 * 8 - 8 :][:8], "little")
        found = [int(text.split(b" ")[0]) for text in payloads(log)]
        # One event may have been appended whose number the child did not live to report.
        assert found in (list(range(1, last)), list(range(1, last + 1)))
        with Journal.open(log, KEY):
            pass
        assert [int(text.split(b" ")[0]) for text in payloads(log)] == found
        report = verify(log, [KEY.public])
        assert report.findings == ()
        assert report.logs[0].signed_frames == report.frames
        appended = found[-1] + 1
    assert len(Reader(log).decisions()) == appended - 1


def live_copy(tmp_path: Path, journal: Journal) -> Path:
    """The log as a crash at this moment would leave it, with a ring of its own."""
    copy = tmp_path / "crashed" / journal.log_id
    shutil.copytree(journal.directory, copy)
    named = (copy / "ring").read_text()
    body = json.loads(named)
    ring = tmp_path / "crashed" / "ring"
    shutil.copyfile(body["path"], ring)
    body["path"] = str(ring)
    (copy / "ring").write_text(json.dumps(body))
    return copy


def test_durable_frames_that_are_gone_are_damage_although_unsigned(tmp_path: Path) -> None:
    with Journal.open(tmp_path / LOG, KEY, settings=UNSIGNED) as journal:
        for i in range(6):
            journal.append_event(INPUT, b"%d" % i)
        journal.sync()
        copy = live_copy(tmp_path, journal)
    path = only_segment(copy)
    os.truncate(path, frame_spans(path)[4][0])
    with pytest.raises(JournalDamaged, match="4 frames are left of 6 durable ones"):
        Journal.open(copy, KEY)


def test_a_ring_from_before_a_restart_is_not_believed(tmp_path: Path) -> None:
    with Journal.open(tmp_path / LOG, KEY, settings=UNSIGNED) as journal:
        journal.append_event(INPUT, b"x")
        journal.sync()
        copy = live_copy(tmp_path, journal)
    text = (copy / "ring").read_text()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")
    (copy / "ring").write_text(text.replace(boot, "00" * 16))
    assert payloads(copy) == [b"x"]
    with Journal.open(copy, KEY) as again:
        assert (again.recovery.ring, again.size) == ("lost", 1)


def test_a_ring_that_somebody_else_put_there_is_refused(tmp_path: Path) -> None:
    with Journal.open(tmp_path / LOG, KEY, settings=UNSIGNED) as journal:
        journal.append_event(INPUT, b"x")
        journal.sync()
        copy = live_copy(tmp_path, journal)
    ring = tmp_path / "crashed" / "ring"
    data = bytearray(ring.read_bytes())
    data[56] ^= 1  # the token
    ring.write_bytes(data)
    with pytest.raises(JournalDamaged, match="not the ring that this log names"):
        Journal.open(copy, KEY)
    ring.unlink()
    ring.symlink_to("/dev/zero")
    with pytest.raises(JournalDamaged, match="cannot be opened"):
        Reader(copy).refresh()
    (copy / "ring").unlink()
    with Journal.open(copy, KEY) as again:
        assert again.size == 1


def test_a_newer_format_is_named_with_both_versions(tmp_path: Path) -> None:
    log = small_log(tmp_path, closed=True)
    path = only_segment(log)
    data = bytearray(path.read_bytes())
    data[8] = 9
    path.write_bytes(data)
    for use in (
        lambda: Journal.open(log, KEY),
        lambda: payloads(log),
        lambda: verify(log, [KEY.public]),
    ):
        with pytest.raises(JournalFormatError, match="version 9; this program reads version 1"):
            use()


def test_a_foreign_file_is_named(tmp_path: Path) -> None:
    log = small_log(tmp_path, closed=True)
    (log / "notes.seg").write_text("hello")
    with pytest.raises(JournalDamaged, match=r"notes\.seg is not named like a segment"):
        payloads(log)
    (log / "notes.seg").unlink()
    foreign = log / f"{6:020}.seg"
    foreign.write_text("hello")
    for use in (lambda: Journal.open(log, KEY), lambda: payloads(log)):
        with pytest.raises(JournalFormatError, match="not a journal segment"):
            use()
    report = verify(log, [KEY.public])
    assert [f.segment for f in report.findings] == [foreign.name]


def test_another_key_than_the_one_that_signed_is_refused(tmp_path: Path) -> None:
    log = small_log(tmp_path, closed=True)
    with pytest.raises(JournalDamaged, match="cannot be trusted"):
        Journal.open(log, SigningKey.generate("example.org/other"))
    with Journal.open(log, KEY) as journal:
        assert journal.size == 6


def test_the_ring_of_another_user_stops_a_writer_but_not_a_reader(memory: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    with Journal.open(memory / LOG, KEY, settings=UNSIGNED) as journal:
        journal.append_event(INPUT, b"x")
        journal.sync()
        copy = live_copy(memory, journal)
    for path in (memory, memory / "crashed", copy, *copy.iterdir()):
        os.chmod(path, 0o777)
    os.chmod(memory / "crashed" / "ring", 0o600)
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setuid(65534)
            os.write(writable, b"%r\n" % payloads(copy))
            try:
                Journal.open(copy, KEY)
            except JournalError as error:
                os.write(writable, str(error).encode())
        finally:
            os._exit(0)
    os.close(writable)
    with open(readable) as said:
        first, second = said.read().split("\n")
    os.waitpid(child, 0)
    assert first == "[b'x']"
    assert "belongs to another user" in second
