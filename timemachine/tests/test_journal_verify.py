"""Whoever changes a journal is caught, and the report names what was changed."""

from __future__ import annotations

import hmac
import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from enclave.keys import SigningKey
from enclave.transparency import tree_root
from microkernel.events import INPUT
from timemachine.errors import JournalError
from timemachine.journal import Finding, Journal, JournalSettings, Reader, VerifyReport, verify
from timemachine.journal.checkpoint import SignedHead, save_head, sign_head
from timemachine.journal.digest import crc32c
from timemachine.journal.frame import leaf_of
from timemachine.journal.header import read_header

KEY = SigningKey.generate("example.org/store")
LOG = "ef" * 16
COUNT = 40


@pytest.fixture(scope="module")
def genuine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of several segments, with several signed heads in it."""
    folder = tmp_path_factory.mktemp("genuine")
    # A header lists the event kinds of this process: the frames that fit must not depend on it.
    with Journal.open(folder / ("0" * 32), KEY) as scratch:
        header = read_header(next(scratch.directory.glob("*.seg"))).size
    shutil.rmtree(folder / ("0" * 32))
    log = folder / LOG
    settings = JournalSettings(
        segment_bytes=header + 3400, checkpoint_seconds=3600, checkpoint_events=1 << 40
    )
    with Journal.open(log, KEY, settings=settings) as journal:
        for i in range(COUNT):
            payload = b"decision %d of the day" % i * 5
            journal.append_event(INPUT, payload, decision=bytes([i + 1]) * 16)
            journal.sync()
            if i % 15 == 14:
                journal._checkpoint()
                journal.sync()
    return log


@pytest.fixture
def log(genuine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(genuine, tmp_path / LOG))


def segments(log: Path) -> list[Path]:
    return sorted(log.glob("*.seg"))


def frames(path: Path) -> list[tuple[int, bytes]]:
    data = path.read_bytes()
    found, at = [], read_header(path).size
    while at < len(data):
        end = (at + 8 + struct.unpack_from("<I", data, at)[0] + 7) // 8 * 8
        found.append((at, data[at:end]))
        at = end
    return found


def rewrite(path: Path, change: Callable[[list[bytes]], list[bytes]]) -> None:
    head = path.read_bytes()[: read_header(path).size]
    path.write_bytes(head + b"".join(change([frame for _, frame in frames(path)])))


def seal(frame: bytearray) -> bytes:
    """Fix the CRC."""
    length = struct.unpack_from("<I", frame)[0]
    struct.pack_into("<I", frame, 4, crc32c(frame[8 : 8 + length]))
    return bytes(frame)


def commit(frame: bytearray) -> bytes:
    """Fix the commitment, then the CRC."""
    end = 8 + struct.unpack_from("<I", frame)[0]
    frame[64:96] = hmac.digest(bytes(frame[96:112]), bytes(frame[112:end]), "sha256")
    return seal(frame)


def damage(report: VerifyReport) -> list[Finding]:
    assert not report.ok
    return [finding for finding in report.findings if finding.severity == "damage"]


def check(log: Path) -> VerifyReport:
    return verify(log, [KEY.public])


def test_a_genuine_log_has_no_findings(genuine: Path) -> None:
    assert len(segments(genuine)) > 2
    report = check(genuine)
    assert report.findings == ()
    assert report.ok
    (only,) = report.logs
    assert (only.log, only.frames, only.signed_frames) == (LOG, COUNT + 2, COUNT + 2)
    assert only.checkpoints == 3
    assert verify(genuine.parent, [KEY.public]).logs == report.logs


def altered(log: Path, segment: int, index: int, forge: Callable[[bytearray], bytes]) -> Finding:
    """The one finding after the payload of a frame was altered and then forged."""
    path = segments(log)[segment]
    offset, frame = frames(path)[index]

    def change(all_frames: list[bytes]) -> list[bytes]:
        mine = bytearray(all_frames[index])
        mine[115] ^= 1
        all_frames[index] = forge(mine)
        return all_frames

    rewrite(path, change)
    (finding,) = damage(check(log))
    assert (finding.log, finding.segment, finding.offset) == (LOG, path.name, offset)
    assert finding.seq == struct.unpack_from("<Q", frame, 8)[0]
    assert finding.decision == frame[32:48]
    assert finding.decision.hex() in str(finding)
    return finding


@pytest.mark.parametrize("segment", [0, 1, -1])
def test_an_altered_payload_is_named(log: Path, segment: int) -> None:
    assert "fails its checksum" in altered(log, segment, 2, bytes).message


@pytest.mark.parametrize("segment", [0, 1, -1])
def test_a_forger_who_fixes_the_crc_is_named(log: Path, segment: int) -> None:
    assert "does not fit its commitment" in altered(log, segment, 2, seal).message


@pytest.mark.parametrize("segment", [0, 1, -1])
def test_a_forger_who_fixes_the_commitment_too_is_named(log: Path, segment: int) -> None:
    assert "leaf hash, which is signed for" in altered(log, segment, 2, commit).message


def test_a_forger_who_fixes_the_sidecar_too_does_not_get_past_the_signed_root(log: Path) -> None:
    path = segments(log)[1]
    seq = struct.unpack_from("<Q", frames(path)[2][1], 8)[0]

    def change(all_frames: list[bytes]) -> list[bytes]:
        mine = bytearray(all_frames[2])
        mine[115] ^= 1
        all_frames[2] = commit(mine)
        leaves = bytearray(path.with_suffix(".leaves").read_bytes())
        leaves[64:96] = leaf_of(all_frames[2])
        path.with_suffix(".leaves").write_bytes(leaves)
        return all_frames

    rewrite(path, change)
    messages = [finding.message for finding in damage(check(log))]
    ranges = [m for m in messages if "not what was signed: the root is another" in m]
    begin, end = (int(word) for word in ranges[0].split() if word.isdigit())
    assert begin <= seq <= end


def test_an_altered_sidecar_is_told_from_an_altered_frame(log: Path) -> None:
    path = segments(log)[1]
    leaves = bytearray(path.with_suffix(".leaves").read_bytes())
    leaves[70] ^= 1
    path.with_suffix(".leaves").write_bytes(leaves)
    (finding,) = damage(check(log))
    assert "the frame is genuine" in finding.message
    assert finding.offset == frames(path)[2][0]


def test_every_field_of_the_frame_is_covered(log: Path) -> None:
    path = segments(log)[0]
    data = path.read_bytes()
    for at in (16, 24, 32, 48, 52, 56):  # lamport, time, decision, kind, key, flags

        def change(all_frames: list[bytes], at: int = at) -> list[bytes]:
            mine = bytearray(all_frames[1])
            mine[at] ^= 1
            all_frames[1] = seal(mine)
            return all_frames

        rewrite(path, change)
        (finding,) = damage(check(log))
        assert finding.seq == 1
        path.write_bytes(data)


@pytest.mark.parametrize("segment", [0, -1])
def test_truncation_below_the_checkpoint_is_caught(log: Path, segment: int) -> None:
    path = segments(log)[segment]
    rewrite(path, lambda all_frames: all_frames[:2])
    found = damage(check(log))
    assert any(
        "missing" in f.message or "were signed, but" in f.message or "more frames" in f.message
        for f in found
    )


def test_truncation_with_the_sidecar_is_caught_by_the_signature(log: Path) -> None:
    path = segments(log)[-1]
    rewrite(path, lambda all_frames: all_frames[:1])
    leaves = path.with_suffix(".leaves")
    leaves.write_bytes(leaves.read_bytes()[:32])
    (finding,) = damage(check(log))
    left = int(path.stem) + 1
    assert finding.message == f"{COUNT + 2} frames were signed, but the log ends after {left}"


def test_swapped_frames_are_both_named(log: Path) -> None:
    path = segments(log)[1]
    first = int(path.stem)

    def swap(all_frames: list[bytes]) -> list[bytes]:
        all_frames[1], all_frames[4] = all_frames[4], all_frames[1]
        return all_frames

    rewrite(path, swap)
    found = damage(check(log))
    assert [(f.seq, f.message) for f in found] == [
        (first + 1, f"frame {first + 4} stands in the place of frame {first + 1}"),
        (first + 4, f"frame {first + 1} stands in the place of frame {first + 4}"),
    ]


def test_swapped_neighbours_are_both_named(log: Path) -> None:
    path = segments(log)[0]

    def swap(all_frames: list[bytes]) -> list[bytes]:
        all_frames[2], all_frames[3] = all_frames[3], all_frames[2]
        return all_frames

    rewrite(path, swap)
    assert [finding.seq for finding in damage(check(log))] == [2, 3]


def test_a_renumbered_swap_is_caught(log: Path) -> None:
    path = segments(log)[0]

    def swap(all_frames: list[bytes]) -> list[bytes]:
        one, two = bytearray(all_frames[2]), bytearray(all_frames[3])
        one[8:16], two[8:16] = two[8:16], one[8:16]
        all_frames[2], all_frames[3] = seal(two), seal(one)
        return all_frames

    rewrite(path, swap)
    assert [finding.seq for finding in damage(check(log))] == [2, 3]


def test_a_deleted_frame_is_named(log: Path) -> None:
    rewrite(segments(log)[0], lambda all_frames: all_frames[:3] + all_frames[5:])
    (finding,) = damage(check(log))
    assert (finding.seq, finding.message) == (3, "frames 3 to 4 are missing here; frame 5 follows")


def test_a_repeated_frame_is_named(log: Path) -> None:
    rewrite(segments(log)[0], lambda all_frames: all_frames[:3] + all_frames[1:2] + all_frames[3:])
    (finding,) = damage(check(log))
    assert (finding.seq, finding.message) == (1, "frame 1 stands here again")


@pytest.mark.parametrize("segment", [0, 1, -1])
@pytest.mark.parametrize("with_leaves", [False, True])
def test_a_deleted_segment_is_caught(log: Path, segment: int, with_leaves: bool) -> None:
    path = segments(log)[segment]
    path.unlink()
    if with_leaves:
        path.with_suffix(".leaves").unlink()
    first = damage(check(log))[0]
    assert first.seq == int(path.stem)
    assert "missing before this segment" in first.message or "were signed, but" in first.message


def test_all_segments_deleted_is_caught(log: Path) -> None:
    for path in segments(log):
        path.unlink()
    (finding,) = damage(check(log))
    assert "were signed, but the log ends after 0" in finding.message


def test_a_checkpoint_of_another_log_is_caught(log: Path, tmp_path: Path) -> None:
    with Journal.open(tmp_path / ("12" * 16), KEY) as journal:
        journal.append_event(INPUT, b"x")
    shutil.copy(journal.directory / "checkpoint", log / "checkpoint")
    (finding,) = damage(check(log))
    assert f"srds/journal/{'12' * 16}" in finding.message


def test_a_whole_log_under_another_name_is_caught(log: Path) -> None:
    other = log.with_name("34" * 16)
    log.rename(other)
    assert any("belongs to log" in finding.message for finding in damage(check(other)))


def test_an_older_genuine_checkpoint_is_caught(log: Path) -> None:
    note = next(e.payload for e in Reader(log).events(kinds={"journal.checkpoint"}))
    (log / "checkpoint").write_bytes(note)
    (finding,) = damage(check(log))
    assert "older than one in the log" in finding.message


def test_a_removed_checkpoint_is_caught(log: Path) -> None:
    (log / "checkpoint").unlink()
    (finding,) = damage(check(log))
    assert finding.message == "the log has no checkpoint"


def test_a_checkpoint_by_an_unknown_key_is_caught(log: Path) -> None:
    report = verify(log, [SigningKey.generate("example.org/store").public])
    assert all("cannot be trusted" in finding.message for finding in damage(report))
    assert len(report.findings) == 3
    assert not verify(log, []).ok


def test_a_signed_root_that_is_none_of_the_logs_is_caught(log: Path) -> None:
    save_head(log, sign_head(KEY, LOG, SignedHead(COUNT + 2, tree_root([bytes(32)]), 1, bytes(32))))
    messages = [finding.message for finding in damage(check(log))]
    assert any("the root is another" in message for message in messages)
    assert any("segment headers" in message for message in messages)


@pytest.mark.parametrize("segment", [0, 1, -1])
def test_a_forged_header_is_named(log: Path, segment: int) -> None:
    """The kinds, the run and the environment are no leaves, but signed for all the same."""
    path = segments(log)[segment]
    data = bytearray(path.read_bytes())
    size = read_header(path).size
    data[24:size] = bytes(data[24:size]).replace(b'"input"', b'"other"')
    struct.pack_into("<I", data, 16, crc32c(bytes(data[24:size])))
    path.write_bytes(data)
    found = damage(check(log))
    names = [p.name for p in segments(log)]
    at = names.index(path.name)
    assert {finding.segment for finding in found} <= set(names[at : at + 2])
    assert any("header" in finding.message for finding in found)


def test_a_header_with_another_frontier_is_named(log: Path) -> None:
    path = segments(log)[1]
    data = path.read_bytes()
    header = read_header(path)
    body = json.loads(data[24 : header.size])
    body["previous"]["frontier"][0] = "00" * 32
    text = json.dumps(body, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    head = struct.pack("<8sIIII", b"SRDSJRN1", 1, len(text), crc32c(text), 0)
    path.write_bytes(head + text + data[header.size :])
    assert any(
        finding.segment == path.name and "does not go on" in finding.message
        for finding in damage(check(log))
    )


def test_damage_at_two_places_gives_two_findings(log: Path) -> None:
    for segment, index in ((0, 1), (1, 3)):
        path = segments(log)[segment]
        data = bytearray(path.read_bytes())
        data[frames(path)[index][0] + 120] ^= 0xFF
        path.write_bytes(data)
    found = damage(check(log))
    assert [finding.seq for finding in found] == [1, int(segments(log)[1].stem) + 3]


def test_an_unfinished_batch_is_a_notice_and_no_damage(tmp_path: Path) -> None:
    settings = JournalSettings(checkpoint_seconds=3600)
    with Journal.open(tmp_path / LOG, KEY, settings=settings) as journal:
        for _ in range(3):
            journal.append_event(INPUT, b"x" * 50)
        journal.sync()
        copy = Path(shutil.copytree(journal.directory, tmp_path / "copy" / LOG))
    (path,) = segments(copy)
    path.write_bytes(path.read_bytes()[:-20])
    leaves = path.with_suffix(".leaves")
    leaves.write_bytes(leaves.read_bytes()[:-32])
    report = check(copy)
    assert report.ok
    (notice,) = report.findings
    assert (notice.severity, notice.segment) == ("notice", path.name)
    assert (report.logs[0].frames, report.logs[0].signed_frames) == (2, 0)


def test_an_alteration_that_nothing_signed_covers_is_still_caught(tmp_path: Path) -> None:
    settings = JournalSettings(checkpoint_seconds=3600)
    with Journal.open(tmp_path / LOG, KEY, settings=settings) as journal:
        for _ in range(3):
            journal.append_event(INPUT, b"x" * 50)
        journal.sync()
        copy = Path(shutil.copytree(journal.directory, tmp_path / "copy" / LOG))

    def change(all_frames: list[bytes]) -> list[bytes]:
        mine = bytearray(all_frames[1])
        mine[120] ^= 1
        all_frames[1] = commit(mine)
        return all_frames

    rewrite(segments(copy)[0], change)
    (finding,) = damage(check(copy))
    assert (finding.seq, "nothing signed tells" in finding.message) == (1, True)


def test_a_live_log_verifies_while_it_grows(tmp_path: Path) -> None:
    often = JournalSettings(
        ring_bytes=1 << 16, segment_bytes=1 << 16, checkpoint_seconds=0.01, flush_interval_ms=0.1
    )
    with Journal.open(tmp_path / LOG, KEY, settings=often) as journal:
        for _ in range(25):
            for i in range(300):
                journal.append_event(INPUT, b"x" * i)
            report = verify(journal.directory, [KEY.public])
            assert report.ok, [str(finding) for finding in report.findings]


def test_there_must_be_a_journal_to_verify(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="there is no journal"):
        verify(tmp_path / "nowhere", [KEY.public])
    assert verify(tmp_path, [KEY.public]).logs == ()
