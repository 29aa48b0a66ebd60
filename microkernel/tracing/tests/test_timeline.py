"""The timeline is a file that viewers open: whole, well formed, every task in its lane."""

from __future__ import annotations

import gzip
import json
import threading
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from microkernel import Kernel, KernelError, KernelSettings

pytestmark = pytest.mark.timeout(60)


def nothing() -> None:
    pass


@pytest.fixture
def kernel() -> Kernel:
    """One that has run nested tasks in two threads, a failing one and one that never ran."""
    with Kernel(KernelSettings(placement="thread", threads=2)) as kernel:

        def root() -> None:
            kernel.get([kernel.submit(nothing) for _ in range(20)])

        kernel.get([kernel.submit(root) for _ in range(5)])
        failed = kernel.submit(int, "no number")
        with pytest.raises(ValueError, match="invalid literal"):
            kernel.get(kernel.submit(abs, failed))
    return kernel


def events(document: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [one for one in document["traceEvents"] if one["ph"] == kind]


def test_every_task_is_an_event_in_a_named_lane(kernel: Kernel) -> None:
    document = json.loads(kernel.timeline())
    tasks = events(document, "X")
    assert len(tasks) == 106
    assert {one["args"]["id"] for one in tasks} == {
        entry.task_id.hex() for entry in kernel.trace() if entry.started_ns is not None
    }
    assert [one["name"] for one in events(document, "i")] == ["builtins:abs"]
    named = {one["tid"] for one in events(document, "M") if one["name"] == "thread_name"}
    assert {one["tid"] for one in tasks} <= named
    assert [one["args"]["status"] for one in tasks if one["name"] == "builtins:int"] == ["error"]
    assert document["otherData"]["lost"] == 0


def test_events_of_a_lane_lie_beside_or_within_each_other(kernel: Kernel) -> None:
    lanes: dict[int, list[tuple[float, float]]] = {}
    for one in events(json.loads(kernel.timeline()), "X"):
        lanes.setdefault(one["tid"], []).append((one["ts"], one["ts"] + one["dur"]))
    for spans in lanes.values():
        around: list[float] = []
        for begin, end in sorted(spans, key=lambda span: (span[0], -span[1])):
            while around and around[-1] <= begin + 1e-3:
                around.pop()
            assert not around or end <= around[-1] + 1e-3
            around.append(end)


def test_arrows_lead_from_a_task_to_those_it_submitted(kernel: Kernel) -> None:
    document = json.loads(kernel.timeline(arrows=True))
    starts, ends = events(document, "s"), events(document, "f")
    assert len(starts) == 100
    assert {one["id"] for one in starts} == {one["id"] for one in ends}
    assert events(json.loads(kernel.timeline()), "s") == []


def test_how_many_ran_at_a_time_begins_and_ends_at_none(kernel: Kernel) -> None:
    levels = [one["args"]["tasks"] for one in events(json.loads(kernel.timeline()), "C")]
    assert levels[-1] == 0
    assert min(levels) == 0
    assert max(levels) >= 1


def test_it_is_written_to_files(kernel: Kernel, tmp_path: Path) -> None:
    kernel.timeline(tmp_path / "a.json")
    kernel.timeline(str(tmp_path / "a.json.gz"))
    plain = json.loads((tmp_path / "a.json").read_text())
    with gzip.open(tmp_path / "a.json.gz", "rt") as packed:
        assert json.load(packed)["traceEvents"] == plain["traceEvents"]
    kernel.timeline(tmp_path / "a.svg")
    picture = ElementTree.parse(tmp_path / "a.svg")
    text = " ".join(picture.getroot().itertext())
    assert "srds-worker-0" in text
    assert "nothing" in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a.json.gz", "a.svg"]


def test_a_timeline_that_cannot_be_written_leaves_nothing_behind(
    kernel: Kernel, tmp_path: Path
) -> None:
    with pytest.raises(KernelError, match=r"notes\.txt"):
        kernel.timeline(tmp_path / "notes.txt")
    (tmp_path / "a.json").mkdir()
    with pytest.raises(OSError, match=r"a\.json"):
        kernel.timeline(tmp_path / "a.json")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_kernel_that_has_done_nothing_has_an_empty_timeline(tmp_path: Path) -> None:
    kernel = Kernel()
    assert [one["ph"] for one in json.loads(kernel.timeline())["traceEvents"]] == ["M"]
    kernel.timeline(tmp_path / "a.svg")
    ElementTree.parse(tmp_path / "a.svg")
    kernel.close()


def test_names_of_functions_are_quoted(tmp_path: Path) -> None:
    def odd() -> None:
        pass

    odd.__qualname__ = 'a "<&\\\n name\x00'
    with Kernel() as kernel:
        kernel.get(kernel.submit(odd))
    (task,) = events(json.loads(kernel.timeline()), "X")
    assert task["name"].endswith(':a "<&\\\n name\x00')
    kernel.timeline(tmp_path / "a.svg")
    assert b"&lt;&amp;" in (tmp_path / "a.svg").read_bytes()


def test_what_was_given_up_while_it_ran_is_an_event_of_its_own() -> None:
    begun = threading.Event()

    def endless() -> None:
        begun.set()
        while True:
            pass

    with Kernel(KernelSettings(placement="thread", threads=1)) as kernel:
        ref = kernel.submit(endless)
        assert begun.wait(30)
        kernel.cancel(ref)
    document = json.loads(kernel.timeline())
    assert [one["args"]["status"] for one in events(document, "b")] == ["cancelled"]
    assert len(events(document, "e")) == 1
