"""Micro-batches: everybody gets the answer to their own row, and only a poison row fails."""

import asyncio
import threading
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frameworks.serving import (
    Batcher,
    Model,
    ModelFailed,
    Predictions,
    Replica,
    ReplicaSettings,
    RowInvalid,
    ServingError,
)

POISON = -13.0


class Doubling:
    """Doubles its column; raises when a row is poison; can be held up by a gate."""

    outputs = ("double",)

    def __init__(self):
        self.sizes = []
        self.entered = threading.Event()
        self.gate = threading.Event()
        self.gate.set()

    def predict(self, rows):
        self.entered.set()
        assert self.gate.wait(30)
        self.sizes.append(len(rows))
        if (rows == POISON).any():
            raise ArithmeticError("poison")
        return rows * 2


class Kept(Predictions):
    """Predictions that also keep the batches at hand."""

    def __init__(self, replica):
        super().__init__(replica)
        self.batches = []

    def record(self, batch):
        super().record(batch)
        self.batches.append(batch)


def a_batcher(max_batch=64):
    model = Model("double", "cd" * 32, "onnx", ("x",), ("double",), "invariant")
    replica = Replica(model, Doubling(), ReplicaSettings(warm_up=()))
    kept = Kept(replica)
    return Batcher(replica, max_batch=max_batch, predictions=kept), replica.predictor, kept.batches


def in_threads(calls):
    outcomes = [None] * len(calls)

    def run(index):
        try:
            outcomes[index] = calls[index]()
        except BaseException as error:
            outcomes[index] = error

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    return outcomes


def queued(batcher, count):
    """Wait until ``count`` rows are in the queue."""
    for _ in range(10_000):
        if len(batcher._queue) >= count:
            return
        threading.Event().wait(0.001)
    raise AssertionError(f"{len(batcher._queue)} of {count} rows came")


def behind_a_busy_replica(batcher, model, values):
    """Call for ``values`` in threads while the replica is busy with the row 0.0."""
    model.gate.clear()
    first = threading.Thread(target=batcher.predict, args=([0.0],))
    first.start()
    assert model.entered.wait(30)
    outcomes = []
    rest = threading.Thread(
        target=lambda: outcomes.extend(
            in_threads([lambda value=value: batcher.predict([value]) for value in values])
        )
    )
    rest.start()
    queued(batcher, len(values))
    model.gate.set()
    first.join(60)
    rest.join(60)
    return outcomes


def test_a_lone_call_is_a_batch_of_one():
    batcher, model, batches = a_batcher()
    assert batcher.predict([3.0]).tolist() == [6.0]
    assert model.sizes == [1]
    assert batches[0].rows.tolist() == [[3.0]]
    assert batches[0].decisions == (None,)


def test_what_arrives_while_the_replica_is_busy_is_one_batch():
    batcher, model, batches = a_batcher()
    values = [float(value) for value in range(1, 21)]
    outcomes = behind_a_busy_replica(batcher, model, values)
    assert [outcome.tolist() for outcome in outcomes] == [[2 * value] for value in values]
    assert model.sizes == [1, 20]
    assert sorted(batches[1].rows[:, 0]) == values


def test_a_batch_has_at_most_so_many_rows():
    batcher, model, _ = a_batcher(max_batch=8)
    outcomes = behind_a_busy_replica(batcher, model, [float(value) for value in range(20)])
    assert [outcome.tolist() for outcome in outcomes] == [[2.0 * value] for value in range(20)]
    assert model.sizes[0] == 1
    assert max(model.sizes) == 8
    assert sum(model.sizes) == 21
    with pytest.raises(ServingError, match="max_batch"):
        a_batcher(max_batch=0)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=24))
def test_only_the_poison_rows_of_a_batch_fail(poisoned):
    batcher, model, batches = a_batcher()
    values = [POISON if bad else float(index) for index, bad in enumerate(poisoned)]
    outcomes = behind_a_busy_replica(batcher, model, values)
    for value, outcome in zip(values, outcomes, strict=True):
        if value == POISON:
            assert isinstance(outcome, ModelFailed)
            assert isinstance(outcome.__cause__, ArithmeticError)
        else:
            assert outcome.tolist() == [2 * value]
    answered = Counter(value for batch in batches for value in batch.rows[:, 0])
    assert answered == Counter(value for value in [0.0, *values] if value != POISON)


def test_a_row_that_does_not_fit_never_enters_a_batch():
    batcher, model, _ = a_batcher()
    with pytest.raises(RowInvalid):
        batcher.predict([float("nan")])
    with pytest.raises(RowInvalid):
        asyncio.run(batcher.apredict({"y": 1.0}))
    assert model.sizes == []


def test_many_threads_get_the_answers_to_their_own_rows():
    batcher, model, batches = a_batcher(max_batch=16)

    def work(thread):
        return [
            batcher.predict([value]).tolist() == [2 * value]
            for value in (float(thread * 1000 + index) for index in range(200))
        ]

    outcomes = in_threads([lambda thread=thread: work(thread) for thread in range(8)])
    assert all(all(outcome) for outcome in outcomes)
    assert sum(model.sizes) == 1600
    assert len({batch.id for batch in batches}) == len(batches)


def test_an_error_of_the_record_reaches_everybody_and_the_next_batch_runs():
    batcher, model, batches = a_batcher()
    full = OSError(28, "No space left on device")
    failing = [True]

    def record(batch):
        if failing[0] and len(batch.rows) > 1:
            raise full
        batches.append(batch)

    batcher._predictions.record = record
    outcomes = behind_a_busy_replica(batcher, model, [1.0, 2.0, 3.0])
    assert outcomes == [full] * 3
    failing[0] = False
    assert batcher.predict([4.0]).tolist() == [8.0]


def test_a_leader_that_is_interrupted_leaves_nobody_waiting():
    batcher, model, _ = a_batcher()

    def interrupted(rows):
        model.entered.set()
        assert model.gate.wait(30)
        if len(rows) == 1 and rows[0, 0] == 0.0:
            raise KeyboardInterrupt
        return rows * 2

    model.predict = interrupted
    model.gate.clear()
    first = []
    leader = threading.Thread(
        target=lambda: first.extend(in_threads([lambda: batcher.predict([0.0])]))
    )
    leader.start()
    assert model.entered.wait(30)
    rest = []
    followers = threading.Thread(
        target=lambda: rest.extend(in_threads([lambda: batcher.predict([5.0])] * 3))
    )
    followers.start()
    queued(batcher, 3)
    model.gate.set()
    leader.join(60)
    followers.join(60)
    assert isinstance(first[0], KeyboardInterrupt)
    assert [outcome.tolist() for outcome in rest] == [[10.0]] * 3


def test_one_pass_of_the_event_loop_is_one_batch():
    batcher, model, _ = a_batcher()

    async def main():
        return await asyncio.gather(*(batcher.apredict([float(value)]) for value in range(10)))

    outcomes = asyncio.run(main())
    assert [outcome.tolist() for outcome in outcomes] == [[2.0 * value] for value in range(10)]
    assert model.sizes == [10]


def test_poison_in_one_pass_fails_alone():
    batcher, _, _ = a_batcher(max_batch=4)

    async def main():
        values = [0.0, POISON, 2.0, 3.0, 4.0, POISON, 6.0]
        return await asyncio.gather(
            *(batcher.apredict([value]) for value in values), return_exceptions=True
        )

    outcomes = asyncio.run(main())
    assert [isinstance(outcome, ModelFailed) for outcome in outcomes] == [
        False,
        True,
        False,
        False,
        False,
        True,
        False,
    ]
    assert [outcomes[index].tolist() for index in (0, 2, 6)] == [[0.0], [4.0], [12.0]]


def test_a_caller_that_goes_away_is_left_out_and_the_others_are_answered():
    batcher, model, _ = a_batcher()

    async def main():
        calls = [asyncio.ensure_future(batcher.apredict([float(value)])) for value in range(4)]
        await asyncio.sleep(0)
        # All four wait for the end of this pass; one of them goes away before it.
        calls[1].cancel()
        return await asyncio.gather(*calls, return_exceptions=True)

    outcomes = asyncio.run(main())
    assert isinstance(outcomes[1], asyncio.CancelledError)
    assert [outcomes[index].tolist() for index in (0, 2, 3)] == [[0.0], [4.0], [6.0]]
    assert sum(model.sizes) in (3, 4)


def test_threads_and_several_event_loops_may_share_a_batcher():
    batcher, _, _ = a_batcher()

    def in_a_loop(start):
        async def main():
            return await asyncio.gather(
                *(batcher.apredict([float(start + index)]) for index in range(50))
            )

        return [outcome.tolist() for outcome in asyncio.run(main())]

    def in_a_thread(start):
        return [batcher.predict([float(start + index)]).tolist() for index in range(50)]

    outcomes = in_threads([lambda: in_a_loop(0), lambda: in_a_thread(100), lambda: in_a_loop(200)])
    for start, outcome in zip((0, 100, 200), outcomes, strict=True):
        assert outcome == [[2.0 * (start + index)] for index in range(50)]


def test_an_answer_does_not_change_with_its_neighbours():
    batcher, model, batches = a_batcher()
    outcomes = behind_a_busy_replica(batcher, model, [1.0, 2.0])
    outcomes[0][:] = 99.0
    assert sorted(batches[-1].outputs[:, 0]) == [2.0, 4.0]
    assert outcomes[1].tolist() == [4.0]
