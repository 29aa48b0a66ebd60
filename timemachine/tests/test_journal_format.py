"""A second reader of the journal's files, written from docs/journal.md with the standard library.

It shares no code with the journal: if both agree, the page says what the files are.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import struct
from base64 import b64decode
from dataclasses import dataclass
from pathlib import Path

import pytest

from enclave.keys import SigningKey
from microkernel.events import INPUT, TASKS
from timemachine.journal import Journal, JournalSettings, Reader

KEY = SigningKey.generate("example.org/store")
CRC = []
for value in range(256):
    for _ in range(8):
        value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
    CRC.append(value)


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = CRC[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


@dataclass
class PlainFrame:
    seq: int
    lamport: int
    decision: bytes
    kind: int
    parents: list[tuple[int, int]]
    flags: int
    payload: bytes
    leaf: bytes


def read_segment(path: Path) -> tuple[dict, bytes, list[PlainFrame]]:
    data = path.read_bytes()
    magic, version, length, crc, zero = struct.unpack_from("<8sIIII", data)
    assert (magic, version, zero, length % 8) == (b"SRDSJRN1", 1, 0, 0)
    block = data[: 24 + length]
    assert crc32c(block[24:]) == crc
    frames = []
    at = 24 + length
    while at < len(data):
        length, crc = struct.unpack_from("<II", data, at)
        body = data[at + 8 : at + 8 + length]
        assert 104 <= length <= 88 + 65535 * 16 + 16 + (64 << 20)
        assert crc32c(body) == crc
        seq, lamport, _wall, decision, kind, count, key_id, flags, commitment = struct.unpack_from(
            "<QQQ16sHHIQ32s", body
        )
        assert key_id == 0
        head = 88 + 16 * count
        parents = [struct.unpack_from("<QQ", body, 88 + 16 * i) for i in range(count)]
        salt, payload = body[head : head + 16], body[head + 16 :]
        assert hmac.digest(salt, payload, "sha256") == commitment
        leaf = hashlib.sha256(b"\0" + body[:head]).digest()
        frames.append(PlainFrame(seq, lamport, decision, kind, parents, flags, payload, leaf))
        end = at + 8 + length
        at = (end + 7) // 8 * 8
        assert not any(data[end:at])
    leaves = path.with_suffix(".leaves").read_bytes()
    assert leaves == b"".join(frame.leaf for frame in frames)
    return json.loads(block[24:]), block, frames


def root_of(leaves: list[bytes]) -> bytes:
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    both = root_of(leaves[:split]) + root_of(leaves[split:])
    return hashlib.sha256(b"\1" + both).digest()


def test_a_reader_with_nothing_but_the_standard_library_reads_the_journal(tmp_path: Path) -> None:
    log = tmp_path / ("ab" * 16)
    settings = JournalSettings(segment_bytes=4096)
    with Journal.open(log, KEY, settings=settings, fingerprint={"cpu": "x"}) as journal:
        for i in range(60):
            journal.append_event(
                INPUT if i % 3 else TASKS,
                bytes([i]) * (i * 7),
                decision=bytes([1 + i % 2]) * 16,
                flags=i << 40,
                parents=[(7, i), (8, i)] if i % 5 == 0 else (),
            )
            journal.sync()
        run_id = journal.run_id
    paths = sorted(log.glob("*.seg"))
    assert len(paths) > 2
    frames: list[PlainFrame] = []
    chain = bytes(32)
    for path in paths:
        header, block, found = read_segment(path)
        assert header["log_id"] == log.name
        assert header["run_id"] == run_id.hex()
        assert header["first_seq"] == int(path.stem) == len(frames)
        assert header["fingerprint"] == {"cpu": "x"}
        assert header["kinds"]["input"]["number"] == INPUT
        assert header["previous"]["size"] == len(frames)
        assert header["previous"]["headers"] == chain.hex()
        frames += found
        chain = hashlib.sha256(chain + block).digest()
    assert [frame.seq for frame in frames] == list(range(60))
    assert [frame.lamport for frame in frames] == list(range(1, 61))

    note = (log / "checkpoint").read_text()
    origin, size, root, extension = note.split("\n\n")[0].split("\n")
    assert (origin, size) == (f"srds/journal/{log.name}", "60")
    assert b64decode(root) == root_of([frame.leaf for frame in frames])
    word, count, headers = extension.split(" ")
    assert (word, int(count), b64decode(headers)) == ("headers", len(paths), chain)

    events = list(Reader(log).events())
    assert [
        (e.seq, e.lamport, e.decision, e.flags, list(e.parents), e.payload) for e in events
    ] == [(f.seq, f.lamport, f.decision, f.flags, f.parents, f.payload) for f in frames]
    assert {e.kind for e in events} == {"input", "tasks"}


def test_the_example_in_the_documentation_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = Path(__file__).parents[2] / "docs" / "journal.md"
    example = page.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    exec(compile(example, str(page), "exec"), {})
    assert capsys.readouterr().out == "0 input b'income=52000'\n"
