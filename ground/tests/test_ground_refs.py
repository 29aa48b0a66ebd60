"""References move only by compare-and-set, and every move is kept."""

from __future__ import annotations

import multiprocessing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from enclave.authority import Principal
from ground import (
    AmbiguousVersion,
    BadName,
    CompareAndSetFailed,
    Ground,
    UnknownItem,
    UnknownRef,
    UnknownVersion,
    Version,
)

PROCESSES = 4
MOVES_EACH = 25


def test_a_move_from_elsewhere_names_what_it_found(ground: Ground) -> None:
    item = ground.item("model", "m")
    one, two, three = (ground.version(item, content={"n": n}) for n in range(3))
    production = item.ref("production")
    ground.move(production, None, one)
    ground.move("model/m@production", one, two)
    with pytest.raises(CompareAndSetFailed) as failed:
        ground.move(production, one, three)
    assert failed.value.found == two.hash
    assert failed.value.expected == one.hash
    assert failed.value.what == "model/m@production"
    assert ground.resolve(production) == two


def test_history_tells_which_version_was_in_production_when(ground: Ground) -> None:
    item = ground.item("model", "m")
    one, two = (ground.version(item, content={"n": n}) for n in range(2))
    production = item.ref("production")
    moves = [
        ground.move(production, None, one),
        ground.move(production, one, two),
        ground.move(production, two, one),
        ground.move(production, one, None),
    ]
    assert ground.history(production).entries == tuple(reversed(moves))
    first, second, third, last = (move.origin.at for move in moves)
    assert ground.resolve(production, at=first) == one
    assert ground.resolve(production, at=second) == two
    assert ground.resolve(production, at=third - 1) == two
    assert ground.resolve(production, at=third) == one
    for nowhere in (first - 1, last, None):
        with pytest.raises(UnknownRef):
            ground.resolve(production, at=nowhere)
    page = ground.history(production, limit=3)
    assert page.cursor is not None
    rest = ground.history(production, limit=3, cursor=page.cursor)
    assert page.entries + rest.entries == tuple(reversed(moves))
    assert rest.cursor is None


def test_a_reference_points_to_versions_of_its_own_item_only(ground: Ground) -> None:
    other = ground.version(ground.item("model", "other"))
    item = ground.item("model", "m")
    for stranger in (other.hash, "0" * 64):
        with pytest.raises(UnknownVersion):
            ground.move(item.ref("production"), None, stranger)
    with pytest.raises(UnknownItem):
        ground.move("model/none@production", None, other)
    with pytest.raises(UnknownRef):
        ground.resolve(item.ref("production"))
    assert ground.history(item.ref("production")).entries == ()


def test_a_prefix_finds_the_version_or_says_why_not(ground: Ground) -> None:
    item = ground.item("model", "m")
    with ground.batch():
        versions = [ground.version(item, content={"n": n}) for n in range(1500)]
    assert ground.version_by_hash(versions[7].hash[:16].upper()) == versions[7]
    assert ground.version_by_hash(versions[7].hash).content == {"n": 7}
    prefixes = [version.hash[:4] for version in versions]
    twice = next(prefix for prefix in prefixes if prefixes.count(prefix) > 1)
    with pytest.raises(AmbiguousVersion) as ambiguous:
        ground.version_by_hash(twice)
    assert len(ambiguous.value.candidates) > 1
    assert all(found.startswith(twice) for found in ambiguous.value.candidates)
    with pytest.raises(UnknownVersion):
        ground.version_by_hash("0" * 64)
    for bad in ("abc", "wxyz", "0" * 65, "", "%%%%"):
        with pytest.raises(BadName):
            ground.version_by_hash(bad)


def test_find_goes_on_where_a_page_ended(ground: Ground) -> None:
    item = ground.item("model", "m")
    versions = [
        ground.version(item, content={"n": n}, tags={"even": n % 2 == 0, "x": 1}) for n in range(9)
    ]
    found: list[Version] = []
    cursor = None
    while True:
        page = ground.find("model", tags={"even": True}, limit=2, cursor=cursor)
        assert len(page.entries) <= 2
        found += page.entries
        if (cursor := page.cursor) is None:
            break
    assert found == versions[::2][::-1]
    assert ground.find(tags={"even": 1}).entries == ()
    assert len(ground.find(tags={"x": 1.0}).entries) == 9


def _count_up(path: str, name: str, events: Any) -> None:
    """Move a counter reference on, each time from where it was found."""
    with Ground.open(
        path,
        append=lambda kind, payload: events.put(payload),
        principal=Principal("alice"),
        patience=60.0,
    ) as ground:
        ref = ground.item("counter", "c").ref("now")
        for _ in range(MOVES_EACH):
            found = ground.resolve(ref)
            while True:
                content = found.content or {}
                on = ground.version(ref.item, content={"n": content["n"] + 1, "by": name})
                try:
                    ground.move(ref, found, on)
                    break
                except CompareAndSetFailed as failed:
                    found = ground.version_by_hash(str(failed.found))


@pytest.mark.timeout(240)
def test_no_update_of_four_processes_is_lost(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    events = context.Queue()
    path = tmp_path / "ground.db"
    with Ground.open(
        path, append=lambda kind, payload: events.put(payload), principal=Principal("alice")
    ) as ground:
        item = ground.item("counter", "c")
        ground.move(item.ref("now"), None, ground.version(item, content={"n": 0, "by": ""}))
        workers = [
            context.Process(target=_count_up, args=(str(path), f"p{n}", events))
            for n in range(PROCESSES)
        ]
        for worker in workers:
            worker.start()
        payloads = []
        # Emptied before joining: a process ends only when its queue has been read.
        total = 3 + PROCESSES * MOVES_EACH
        moves = 0
        while moves < total - 2:
            payloads.append(events.get(timeout=120))
            moves += b'{"move":' in payloads[-1]
        for worker in workers:
            worker.join(timeout=60)
            assert worker.exitcode == 0
        last = ground.resolve(item.ref("now"))
        assert last.content is not None
        assert last.content["n"] == PROCESSES * MOVES_EACH
        history = ground.history(item.ref("now")).entries
        assert len(history) == PROCESSES * MOVES_EACH + 1
        assert all(later.old == sooner.new for later, sooner in pairwise(history))
    # The events of all processes, in the order in which they happened to arrive, are one history.
    assert Ground.rebuild(tmp_path / "again.db", payloads) == len(payloads)
    with Ground.open(tmp_path / "again.db", append=None, principal=Principal("alice")) as again:
        assert again.history("counter/c@now").entries == history
