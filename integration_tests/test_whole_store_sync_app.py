"""A small app of plain functions: many threads, tasks in decisions, errors, nested decisions."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import srds
from srds.store import Store
from timemachine.journal import verify
from timemachine.replay import Records

THREADS, CALLS = 8, 200

app = srds.App("toll")
prices = {f"road-{number}": 0.25 + number for number in range(16)}


class RoadClosed(Exception):
    """A decision's own error."""


@app.decision(subject="car")
def toll(car: str, road: str) -> dict[str, Any]:
    price = srds.read("prices", road, lambda: prices[road])
    return {"car": car, "price": price * (1 + random.random()), "thread": "any"}


@app.decision(subject="car")
def route(car: str, roads: list[str]) -> dict[str, Any]:
    """Price the roads in tasks side by side and take the cheapest."""
    quotes = app.kernel.get([app.kernel.submit(quote, road) for road in roads])
    cheapest = min(range(len(roads)), key=lambda at: quotes[at])
    return {"road": roads[cheapest], "price": quotes[cheapest], "dice": random.randrange(6)}


def quote(road: str) -> float:
    return srds.read("prices", road, lambda: prices[road]) * (1 + random.random())


@app.decision(subject="car")
def enter(car: str, road: str) -> str:
    if srds.read("closed", road, lambda: road == "road-7"):
        raise RoadClosed(road, 7)
    return "enter"


@app.decision
def journey(car: str) -> dict[str, Any]:
    """A decision that asks for another one, which is a part of it."""
    luck = random.random()
    first = toll.decide(car, "road-1")
    return {"luck": luck, "first": first.answer["price"], "id": first.id.hex()}


@app.decision
def read_nothing_known(road: str) -> float:
    return float(srds.read("prices", road, lambda: prices[road]))


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Any]:
    with app.open(tmp_path / "store") as opened:
        yield opened


def records_by_id(opened: Any) -> dict[str, Any]:
    return {one.id: one for one in Records(opened.store.reader())}


def test_decisions_of_many_threads_are_recorded_and_replay(opened: Any) -> None:
    start = threading.Barrier(THREADS)

    def drive(number: int) -> list[tuple[str, Any]]:
        start.wait(30)
        made = [
            toll.decide(f"car-{number}-{call}", f"road-{(number * call) % 16}")
            for call in range(CALLS)
        ]
        return [(one.id.hex(), one.answer) for one in made]

    with ThreadPoolExecutor(THREADS) as threads:
        driven = list(threads.map(drive, range(THREADS)))
    answers = dict(pair for pairs in driven for pair in pairs)
    assert len(answers) == THREADS * CALLS
    assert len({answer["price"] for answer in answers.values()}) == THREADS * CALLS
    records = records_by_id(opened)
    assert set(records) == set(answers)
    for identity, answer in answers.items():
        record = records[identity]
        assert record.outcome.value == answer
        assert record.args[0] == record.subject == answer["car"]
        [price] = [one for one in record.inputs if one.kind == "read"]
        assert price.value == prices[record.args[1]]
    with opened.replayer() as replayer:
        for replay in replayer.exact_all(list(records.values())):
            assert replay.exact, replay.first_difference
    opened.journal.sync()
    assert verify(opened.store.journal, list(opened.store.trusted())).ok


def test_tasks_inside_decisions_of_many_threads_replay(opened: Any) -> None:
    roads = list(prices)
    with ThreadPoolExecutor(THREADS) as threads:
        made = list(
            threads.map(lambda n: route.decide(f"car-{n}", roads[n % 8 : n % 8 + 5]), range(400))
        )
    records = records_by_id(opened)
    assert set(records) == {one.id.hex() for one in made}
    for one in made:
        record = records[one.id.hex()]
        assert len(record.tasks) == 5
        assert {task.parent for task in record.tasks} <= {record.id}
        assert record.outcome.value == one.answer
        assert sorted(r.key for r in record.inputs if r.kind == "read") == sorted(record.args[1])
    with opened.replayer() as replayer:
        for replay in replayer.exact_all(list(records.values())):
            assert replay.exact, replay.first_difference


def test_an_error_is_recorded_and_the_replay_ends_with_the_same_one(opened: Any) -> None:
    with pytest.raises(RoadClosed) as raised:
        enter("car", "road-7")
    assert raised.value.args == ("road-7", 7)
    assert enter("car", "road-8") == "enter"
    failed, passed = Records(opened.store.reader())
    assert not failed.outcome.ok
    name, arguments = failed.outcome.value
    assert name.endswith(":RoadClosed")
    assert list(arguments) == ["road-7", 7]
    assert passed.outcome.value == "enter"
    with opened.replayer() as replayer:
        again = replayer.exact(failed)
        assert again.exact, again.first_difference
        assert not again.replayed.ok
        # With the road open, the same decision would have been another one.
        [turned] = replayer.perturbed(failed, [{("closed", "road-7"): False}])
        assert turned.replayed.ok
        assert turned.replayed.value == "enter"


def test_an_error_of_a_source_is_recorded_as_that_source_s(opened: Any) -> None:
    with pytest.raises(KeyError):
        read_nothing_known("road-99")
    [record] = Records(opened.store.reader())
    [read] = record.inputs
    assert not read.ok
    prices["road-99"] = 1.0  # the replay must not ask it again
    try:
        with opened.replayer() as replayer:
            replay = replayer.exact(record)
    finally:
        del prices["road-99"]
    assert replay.exact, replay.first_difference
    assert not replay.replayed.ok


def test_a_decision_inside_a_decision_is_a_task_of_it(opened: Any) -> None:
    made = journey.decide("car")
    [record] = Records(opened.store.reader())
    assert made.id.hex() == made.answer["id"] == record.id
    assert [task.name for task in record.tasks] == [f"{toll.function.__module__}:toll"]
    assert [one.key for one in record.inputs if one.kind == "read"] == ["road-1"]
    with opened.replayer() as replayer:
        replay = replayer.exact(record)
        assert replay.exact, replay.first_difference
        [dear] = replayer.perturbed(record, [{("prices", "road-1"): 1000.0}])
    assert dear.replayed.value["first"] >= 1000.0
    assert dear.replayed.value["luck"] == made.answer["luck"]


def test_a_decision_outside_of_the_open_app_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(srds.AppError, match="'toll' is not open") as refused:
        toll("car", "road-1")
    assert "with app.open()" in refused.value.expected
    assert refused.value.remedy
    with app.open(tmp_path / "store"):
        toll("car", "road-1")
    with pytest.raises(srds.AppError, match="not open"):
        toll("car", "road-1")
    assert len(Records(Store.open(tmp_path / "store").reader()).ids()) == 1


def test_an_app_is_open_once_at_a_time(opened: Any, tmp_path: Path) -> None:
    with pytest.raises(srds.AppError, match="open already"), app.open(tmp_path / "other"):
        pass
    assert not (tmp_path / "other").exists()
    assert toll("car", "road-1")["car"] == "car"


def test_arguments_that_no_journal_can_hold_are_refused_and_nothing_is_decided(
    opened: Any,
) -> None:
    from microkernel.errors import KernelError

    with pytest.raises(KernelError) as refused:
        toll(object(), "road-1")
    assert "object" in str(refused.value)
    assert refused.value.remedy
    assert toll("car", "road-2")["car"] == "car"
    answered = [one for one in Records(opened.store.reader()) if one.outcome and one.outcome.ok]
    assert [one.args for one in answered] == [("car", "road-2")]


def test_a_decision_without_recording_leaves_nothing(opened: Any, tmp_path: Path) -> None:
    before = len(Records(opened.store.reader()).ids())
    assert before == 0
    assert toll.function("car", "road-1")["price"] >= prices["road-1"]
    assert Records(opened.store.reader()).ids() == []


def test_what_a_name_in_a_record_may_run_is_only_this_app_s(opened: Any) -> None:
    for name in ("os:system", "builtins:eval", f"{__name__}:quote", "elsewhere:toll", ""):
        with pytest.raises(srds.AppError) as refused:
            app.resolve(name)
        assert "toll" in refused.value.expected
    assert app.resolve(f"{toll.function.__module__}:toll") is toll.function


def test_the_subject_must_be_a_parameter() -> None:
    other = srds.App("other")
    with pytest.raises(srds.AppError, match="no parameter 'nobody'"):

        @other.decision(subject="nobody")
        def decide(somebody: str) -> bool:
            return True

    assert other.functions == {}
