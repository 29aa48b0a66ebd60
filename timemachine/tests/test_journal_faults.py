"""A full disk, a read-only one: nothing acknowledged is lost, and the error says what to do."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from enclave.keys import SigningKey
from microkernel.events import INPUT
from timemachine.errors import JournalError, JournalWriteError
from timemachine.journal import Journal, JournalSettings, Reader, open_log, verify
from timemachine.journal.ring_file import remove_ring

KEY = SigningKey.generate("example.org/store")
QUIET = JournalSettings(ring_bytes=1 << 18, checkpoint_seconds=3600)


@contextlib.contextmanager
def mounted(folder: Path, *arguments: str) -> Iterator[None]:
    """Mount something on ``folder`` for a while, or skip and say why."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system takes root")
    done = subprocess.run(
        ["mount", *arguments, str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"mounting a file system does not work here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def append_until_refused(journal: Journal, size: int) -> tuple[int, JournalWriteError]:
    count = 0
    while True:
        try:
            journal.append_event(INPUT, b"%d " % count + b"." * size)
        except JournalWriteError as error:
            return count, error
        count += 1


def numbers(directory: Path) -> list[int]:
    return [int(e.payload.split(b" ")[0]) for e in Reader(directory).events(kinds={"input"})]


@pytest.mark.parametrize("size", [500, 100_000], ids=["through-the-ring", "past-the-ring"])
def test_a_full_disk_stops_appends_and_goes_on_once_there_is_room(
    tmp_path: Path, size: int
) -> None:
    with mounted(tmp_path, "-t", "tmpfs", "-o", "size=2m", "tmpfs"):
        filler = tmp_path / "filler"
        filler.write_bytes(bytes(1 << 20))
        with open_log(tmp_path / "journal", KEY, settings=QUIET) as journal:
            count, error = append_until_refused(journal, size)
            assert count > 0
            assert os.strerror(errno.ENOSPC) in str(error)
            assert "make room" in error.remedy
            if size == 500:
                # An event past the ring is withdrawn when it is refused, and nothing waits then.
                with pytest.raises(JournalWriteError):
                    journal.sync()
            # The journal on disk, with the ring, is what was acknowledged, all the time.
            assert numbers(tmp_path / "journal") == list(range(count))
            assert verify(tmp_path / "journal", [KEY.public]).ok
            filler.unlink()
            while True:
                try:
                    journal.append_event(INPUT, b"%d " % count)
                except JournalWriteError:
                    continue
                break
            journal.sync(30)
        assert numbers(tmp_path / "journal") == list(range(count + 1))
        report = verify(tmp_path / "journal", [KEY.public])
        assert report.findings == ()
        assert report.logs[0].signed_frames == count + 1


def test_closing_on_a_full_disk_keeps_the_events_for_the_next_opening(tmp_path: Path) -> None:
    with mounted(tmp_path, "-t", "tmpfs", "-o", "size=1m", "tmpfs"):
        filler = tmp_path / "filler"
        filler.write_bytes(bytes(1 << 19))
        journal = open_log(tmp_path / "journal", KEY, settings=QUIET)
        count, _ = append_until_refused(journal, 500)
        with pytest.raises(JournalWriteError, match="cannot be written"):
            journal.close()
        assert numbers(tmp_path / "journal") == list(range(count))
        filler.unlink()
        with open_log(tmp_path / "journal", KEY, settings=QUIET) as again:
            assert again.log_id == journal.log_id
            assert again.recovery.ring_events > 0
        assert numbers(tmp_path / "journal") == list(range(count))
        assert verify(tmp_path / "journal", [KEY.public]).findings == ()


def test_a_limit_on_the_size_of_files_is_a_write_error(tmp_path: Path) -> None:
    """The same without root: the system refuses to let the segment grow."""
    program = """
import resource, signal, sys
from enclave.keys import SigningKey
from microkernel.events import INPUT
from timemachine.errors import JournalWriteError
from timemachine.journal import JournalSettings, Reader, open_log
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
settings = JournalSettings(ring_bytes=1 << 17, checkpoint_seconds=3600)
journal = open_log(sys.argv[1], SigningKey.generate("example.org/store"), settings=settings)
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 18, hard))
count = 0
try:
    while True:
        journal.append_event(INPUT, b"%d" % count + b" " * 500)
        count += 1
except JournalWriteError as error:
    print(error)
assert count > 100
found = [int(e.payload) for e in Reader(sys.argv[1]).events()]
assert found == list(range(count)), (len(found), count)
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
while True:
    try:
        journal.append_event(INPUT, b"%d" % count)
    except JournalWriteError:
        continue
    break
journal.close()
found = [int(e.payload) for e in Reader(sys.argv[1]).events()]
assert found == list(range(count + 1)), (len(found), count)
"""
    soft, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if soft != resource.RLIM_INFINITY and soft < 1 << 19:
        pytest.skip(f"the size of files is limited to {soft} bytes already")
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert os.strerror(errno.EFBIG) in done.stdout


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    if os.geteuid() == 0:
        with mounted(folder, "--bind", str(folder)):
            done = subprocess.run(
                ["mount", "-o", "remount,bind,ro", str(folder)],
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                pytest.skip(f"a read-only mount does not work here: {done.stderr.strip()}")
            yield
        return
    paths = [folder, *folder.rglob("*")]
    rights = {path: path.stat().st_mode for path in paths}
    for path in paths:
        path.chmod(rights[path] & ~0o222)
    try:
        yield
    finally:
        for path in paths:
            path.chmod(rights[path])


def test_a_read_only_store_can_be_read_and_verified_but_not_written(tmp_path: Path) -> None:
    store = tmp_path / "journal"
    with open_log(store, KEY, settings=QUIET) as journal:
        journal.append_event(INPUT, b"0 x")
    with read_only(store):
        assert numbers(store) == [0]
        assert verify(store, [KEY.public]).findings == ()
        with pytest.raises(JournalError, match="cannot be opened for writing") as caught:
            open_log(store, KEY)
        assert "rights of the directory" in caught.value.remedy
        with pytest.raises(JournalError, match="cannot be made"):
            Journal.open(store / ("ab" * 16), KEY)
    assert [path.name for path in store.iterdir()] == [journal.log_id]


def test_a_killed_writers_events_are_read_from_a_read_only_store(tmp_path: Path) -> None:
    store = tmp_path / "journal"
    program = """
import os, sys
from enclave.keys import SigningKey
from microkernel.events import INPUT
from timemachine.journal import JournalSettings, open_log
settings = JournalSettings(flush_interval_ms=60000, flush_bytes=1 << 30)
journal = open_log(sys.argv[1], SigningKey.generate("example.org/store"), settings=settings)
for i in range(10):
    journal.append_event(INPUT, b"%d x" % i)
os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", program, str(store)], timeout=60, check=False)
    with read_only(store):
        assert numbers(store) == list(range(10))
    for log in store.iterdir():
        remove_ring(log)
