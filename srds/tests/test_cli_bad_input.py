"""Altered journals, foreign stores and unknown decisions: named, and nothing lost."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from srds.tests.desk import Left, errors, run


def test_verify_finds_a_genuine_journal_whole(left: Left) -> None:
    text = left("verify")
    assert "whole" in text
    assert "frames are as they were written" in text
    document = left.json("verify")
    assert document["ok"]
    assert document["findings"] == []
    log = document["logs"][0]
    assert log["signed_frames"] == log["frames"] > 0
    assert left.json("verify", "--log", log["log"][:6])["frames"] == document["frames"]
    assert "no logs begin with" in errors("verify", "--log", "zz", "--store", str(left.store))


def test_an_altered_byte_is_named_and_refused(left: Left, bob: str, tmp_path: Path) -> None:
    copy = left.copy(tmp_path / "copy")
    seq = left.json("show", bob)["inputs"][2]["event"]
    content = bytearray(copy.segment.read_bytes())
    content[content.index(b"Salem")] ^= 1
    copy.segment.write_bytes(content)
    document = copy.json("verify", exit_code=1)
    (finding,) = document["findings"]
    assert (finding["severity"], finding["seq"]) == ("damage", seq)
    assert finding["decision"] == bob
    text = copy("verify", exit_code=1)
    assert f"frame {seq}" in text
    assert "NOT as it was written" in text
    assert "damaged" in text
    told = errors("replay", bob, "--app", str(left.file), "--store", str(copy.store))
    assert f"event {seq}" in told
    assert "srds verify" in told


def test_a_cut_journal_is_damage(left: Left, tmp_path: Path) -> None:
    copy = left.copy(tmp_path / "copy")
    with open(copy.segment, "r+b") as file:
        file.truncate(copy.segment.stat().st_size - 400)
    document = copy.json("verify", exit_code=1)
    assert any("were signed" in one["message"] for one in document["findings"])


def test_a_segment_of_a_newer_format_is_refused(left: Left, tmp_path: Path) -> None:
    copy = left.copy(tmp_path / "copy")
    with open(copy.segment, "r+b") as file:
        file.seek(8)
        file.write((9).to_bytes(4, "little"))
    assert "format version 9" in errors("log", "--store", str(copy.store))
    assert "format version 9" in errors("verify", "--store", str(copy.store))


def test_keys_that_others_may_read_are_refused(left: Left, tmp_path: Path) -> None:
    copy = left.copy(tmp_path / "copy")
    (copy.store / "keys" / "journal.key").chmod(0o644)
    assert "journal.key" in errors("verify", "--store", str(copy.store))


def test_a_missing_store_is_named(tmp_path: Path) -> None:
    told = errors("log", "--store", str(tmp_path / "nowhere"))
    assert f"there is no store at {tmp_path / 'nowhere'}" in told
    assert "--store" in told


def test_a_foreign_directory_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear all")
    for command in (["log"], ["show", "abcd"], ["verify"], ["replay", "--all"]):
        assert "there is no store" in errors(*command, "--store", str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_a_newer_store_is_refused_and_untouched(left: Left, tmp_path: Path) -> None:
    copy = left.copy(tmp_path / "copy")
    mark = copy.store / "store.json"
    text = json.dumps({"format": 99, "id": "0" * 16})
    mark.write_text(text)
    assert "format 99" in errors("log", "--store", str(copy.store))
    error = copy.json("log", exit_code=1)["error"]
    assert error["type"] == "StoreError"
    assert error["what"] == "format 99"
    assert error["remedy"]
    assert mark.read_text() == text


@pytest.mark.parametrize("mark", ["", "{", "[]", '{"format": "1", "id": 2}', "\x00"])
def test_a_damaged_mark_is_named(left: Left, tmp_path: Path, mark: str) -> None:
    copy = left.copy(tmp_path / "copy")
    (copy.store / "store.json").write_text(mark)
    assert "does not describe a store" in errors("log", "--store", str(copy.store))


def test_an_unreadable_store_is_named(left: Left, tmp_path: Path) -> None:
    copy = left.copy(tmp_path / "copy")
    mark = copy.store / "store.json"
    mark.unlink()
    mark.mkdir()  # nobody can read a directory as a file, not even root
    assert "cannot be read" in errors("log", "--store", str(copy.store))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_segment_of_another_user_is_named(left: Left, tmp_path: Path) -> None:
    copy = left.copy(tmp_path / "copy")
    copy.segment.chmod(0)
    assert copy.segment.name in errors("log", "--store", str(copy.store))


def test_an_unknown_decision_is_named(left: Left) -> None:
    store = ["--store", str(left.store)]
    for command in ("show", "why", "replay", "explain"):
        assert "no decision begins with ffff" in errors(command, "ffffffffffff", *store)
    assert "is no decision id" in errors("show", "bob", *store)
    assert "is no decision id" in errors("show", "ab", *store)


def test_an_ambiguous_prefix_lists_the_candidates(tmp_path: Path) -> None:
    from microkernel.events import DECISION_OPENED
    from microkernel.values import encode
    from srds.store import Store
    from timemachine.journal import open_log

    store = Store.make(tmp_path / "store")
    ids = [bytes.fromhex("abcd" + "0" * 27 + digit) for digit in "12"]
    with open_log(store.journal, store.signing_key(), fingerprint={}) as journal:
        for identity in ids:
            payload = encode(["loan:grant", bytes(16), [], {}, None, None, []])
            journal.append_event(DECISION_OPENED, payload, decision=identity)
    told = errors("show", "abcd", "--store", str(store.path))
    assert "2 decisions begin with abcd" in told
    assert all(identity.hex() in told for identity in ids)
    assert run("show", ids[0].hex(), "--store", str(store.path)).startswith("decision")
