"""A recorded decision's predictions are computed again, and every difference is said."""

import asyncio
import math
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from enclave.keys import KeyRing
from frameworks.serving import (
    Batch,
    Batcher,
    Model,
    ModelFailed,
    Predictions,
    Replica,
    ReplicaSettings,
    ServingError,
    batches_in,
    load_replica,
    register,
)
from microkernel import Kernel, ReplayDivergence, Replaying, boundary
from timemachine.exactness import ExactnessSettings
from timemachine.journal import Reader, open_log

FEATURES = tuple(f"x{index}" for index in range(6))


class BatchDependent:
    """Its answer to a row depends on the whole batch, as the last bits of a matrix product do."""

    outputs = ("score",)

    def predict(self, rows):
        time.time()  # what a model reads is its own affair and no input of the decision
        return rows[:, :1] + np.arange(len(rows))[:, None] * 2.0**-40 + len(rows) * 2.0**-30


def a_replica(exactness, predictor=None, name="m", digest="ef" * 32):
    model = Model(name, digest, "onnx", ("x", "y"), ("score",), exactness)
    return Replica(model, predictor or BatchDependent(), ReplicaSettings(audited=False))


@pytest.fixture
def journal(tmp_path, key):
    with open_log(tmp_path / "journal", key) as opened:
        yield opened


@pytest.fixture
def kernel(journal):
    with Kernel(sink=journal, run_id=journal.run_id) as opened:
        yield opened


def recorder(kernel, replica):
    return Batcher(replica, predictions=Predictions(replica, events=kernel.events))


def replayer(reader, replica):
    return Batcher(replica, predictions=Predictions(replica, batches=batches_in(reader)))


def replay(kernel, reader, decision, function, *args, **options):
    payloads = [(event.seq, event.payload) for event in reader.events(decision, kinds=("input",))]
    inputs = Replaying(payloads, **options)
    return kernel.replay(decision, inputs, function, *args).answer, inputs


def decide(batcher, row):
    return float(batcher.predict(row)[0])


async def adecide(batcher, row):
    return float((await batcher.apredict(row))[0])


def recorded_together(kernel, batcher, rows):
    """One decision a row, all in one batch; returns them in the order of ``rows``."""

    async def main():
        return await asyncio.gather(
            *(kernel.decision(adecide_alone, index) for index in range(len(rows)))
        )

    async def adecide_alone(index):
        return await adecide(batcher, rows[index])

    return asyncio.run(main())


@pytest.mark.parametrize("exactness", ["invariant", "shape-stable", "batch-bound"])
def test_a_lone_prediction_replays_with_the_same_bits(kernel, journal, exactness):
    replica = a_replica(exactness)
    batcher = recorder(kernel, replica)
    decision = kernel.decision(lambda: decide(batcher, [1.5, 2.0]))
    journal.sync()
    reader = Reader(journal.directory)
    again = replayer(reader, replica)
    answer, inputs = replay(kernel, reader, decision.id, lambda: decide(again, [1.5, 2.0]))
    assert answer == decision.answer == 1.5 + 2.0**-30
    assert inputs.differences == []
    assert inputs.unread() == []


def test_a_row_of_a_batch_replays_with_its_company(kernel, journal):
    replica = a_replica("batch-bound")
    rows = [[float(value), 0.0] for value in range(5)]
    decisions = recorded_together(kernel, recorder(kernel, replica), rows)
    assert (
        len({decision.answer - row[0] for decision, row in zip(decisions, rows, strict=True)}) == 5
    )
    reader = Reader(journal.directory)
    again = replayer(reader, replica)
    for decision, row in zip(decisions, rows, strict=True):

        async def once_more(row=row):
            return await adecide(again, row)

        payloads = [
            (event.seq, event.payload) for event in reader.events(decision.id, kinds=("input",))
        ]
        inputs = Replaying(payloads)
        answer = asyncio.run(awaited(kernel.replay(decision.id, inputs, once_more)))
        assert answer.answer == decision.answer
        assert inputs.differences == []


async def awaited(something):
    return await something


def test_a_class_that_promises_too_much_is_found_out(kernel, journal):
    recording = a_replica("invariant")
    decisions = recorded_together(kernel, recorder(kernel, recording), [[1.0, 0.0], [2.0, 0.0]])
    reader = Reader(journal.directory)
    together = replayer(reader, recording)
    answer, inputs = replay(kernel, reader, decisions[1].id, lambda: decide(together, [2.0, 0.0]))
    assert answer == decisions[1].answer
    assert inputs.differences == []
    # Without the batch only the row is left, which is enough for a model that keeps its promise.
    again = Batcher(recording, predictions=Predictions(recording))
    answer, inputs = replay(kernel, reader, decisions[1].id, lambda: decide(again, [2.0, 0.0]))
    ((source, difference),) = inputs.differences
    assert source == "m"
    assert difference.kind == "output"
    assert difference.exact
    assert difference.comparison.max_ulps == (decisions[1].answer - answer) / math.ulp(2.0)
    # What the model answers now is what the decision gets: the recorded output replaces nothing.
    assert answer == 2.0 + 2.0**-30
    assert float(difference.recorded[0]) == decisions[1].answer
    assert str(difference).startswith("the output of model 'm' differs by at most ")


def test_an_unstable_model_is_compared_and_marked_as_not_exact(kernel, journal):
    generator = np.random.default_rng(0)

    class Noisy(BatchDependent):
        def predict(self, rows):
            return super().predict(rows) + generator.normal()

    replica = a_replica("unstable", Noisy())
    batcher = recorder(kernel, replica)
    decision = kernel.decision(lambda: decide(batcher, [1.0, 2.0]))
    reader = Reader(journal.directory)
    again = replayer(reader, replica)
    _, inputs = replay(kernel, reader, decision.id, lambda: decide(again, [1.0, 2.0]))
    assert [difference.exact for _, difference in inputs.differences] == [False]


def test_one_flipped_bit_in_the_model_is_reported_with_its_distance(kernel, journal):
    class Nudged(BatchDependent):
        def predict(self, rows):
            return np.nextafter(super().predict(rows), np.inf)

    batcher = recorder(kernel, a_replica("batch-bound"))
    decision = kernel.decision(lambda: decide(batcher, [1.0, 2.0]))
    reader = Reader(journal.directory)
    again = replayer(reader, a_replica("batch-bound", Nudged()))
    _, inputs = replay(kernel, reader, decision.id, lambda: decide(again, [1.0, 2.0]))
    ((_, difference),) = inputs.differences
    assert (difference.kind, difference.comparison.max_ulps) == ("output", 1)


def test_another_row_is_reported_and_answered_by_the_model_itself(kernel, journal):
    replica = a_replica("batch-bound")
    batcher = recorder(kernel, replica)

    def read_and_decide(with_batcher):
        x = boundary.read("table", "x", lambda: 1.0)
        return decide(with_batcher, [x, 2.0])

    decision = kernel.decision(lambda: read_and_decide(batcher))
    reader = Reader(journal.directory)
    again = replayer(reader, replica)
    answer, inputs = replay(
        kernel,
        reader,
        decision.id,
        lambda: read_and_decide(again),
        overrides={("table", "x"): 8.0},
    )
    assert answer == 8.0 + 2.0**-30
    ((_, difference),) = inputs.differences
    assert difference.kind == "row"
    assert difference.comparison.first == (0,)
    assert difference.recorded.tolist() == [1.0, 2.0]
    assert difference.replayed.tolist() == [8.0, 2.0]


def test_a_patched_model_is_asked_where_the_policy_allows_it(kernel, journal):
    class Negative(BatchDependent):
        def predict(self, rows):
            return -rows[:, :1]

    batcher = recorder(kernel, a_replica("invariant"))
    decision = kernel.decision(lambda: decide(batcher, [1.0, 2.0]))
    reader = Reader(journal.directory)
    patched = replayer(reader, a_replica("invariant", Negative(), digest="aa" * 32))
    with pytest.raises(ReplayDivergence, match="prediction"):
        replay(kernel, reader, decision.id, lambda: decide(patched, [1.0, 2.0]))
    answer, inputs = replay(
        kernel, reader, decision.id, lambda: decide(patched, [1.0, 2.0]), policy="live"
    )
    assert answer == -1.0
    assert len(inputs.extra) == len(inputs.unread()) == 1
    answer, _ = replay(
        kernel,
        reader,
        decision.id,
        lambda: float(patched.predict([1.0, 2.0])),
        policy="default",
        default=0.25,
    )
    assert answer == 0.25


def test_a_failure_of_the_model_is_recorded_and_raised_again(kernel, journal):
    class Failing(BatchDependent):
        def predict(self, rows):
            if rows.any():
                raise ArithmeticError("no answer")
            return super().predict(rows)

    def decide_anyway(batcher):
        try:
            return decide(batcher, [1.0, 2.0])
        except ModelFailed as error:
            return str(error)

    batcher = recorder(kernel, a_replica("invariant", Failing()))
    decision = kernel.decision(lambda: decide_anyway(batcher))
    reader = Reader(journal.directory)
    again = replayer(reader, a_replica("invariant"))
    answer, _ = replay(kernel, reader, decision.id, lambda: decide_anyway(again))
    assert "no answer" in answer
    assert answer == decision.answer


def test_several_predictions_of_one_decision_keep_their_order(kernel, journal):
    replica = a_replica("batch-bound")

    def three(batcher):
        return [decide(batcher, [float(value), 0.0]) for value in (3, 1, 2)]

    batcher = recorder(kernel, replica)
    decision = kernel.decision(lambda: three(batcher))
    reader = Reader(journal.directory)
    again = replayer(reader, replica)
    answer, inputs = replay(kernel, reader, decision.id, lambda: three(again))
    assert answer == decision.answer
    assert inputs.differences == []


def test_the_batch_is_journalled_once_with_all_its_decisions(kernel, journal):
    replica = a_replica("batch-bound")
    rows = [[float(value), 0.0] for value in range(3)]
    decisions = recorded_together(kernel, recorder(kernel, replica), rows)
    (event,) = Reader(journal.directory).events(kinds=("serving.batch",))
    batch = Batch.decode(event.payload)
    assert event.decision == batch.home == decisions[0].id
    assert batch.decisions == tuple(decision.id for decision in decisions)
    assert batch.rows.tolist() == rows
    assert batch.outputs[:, 0].tolist() == [decision.answer for decision in decisions]
    assert (batch.digest, batch.exactness, batch.threads) == ("ef" * 32, "batch-bound", 1)


def test_a_batch_without_a_decision_is_not_journalled(kernel, journal):
    batcher = recorder(kernel, a_replica("batch-bound"))
    batcher.predict([1.0, 2.0])
    assert list(Reader(journal.directory).events(kinds=("serving.batch", "input"))) == []


def test_a_payload_that_is_no_batch_is_refused():
    for payload in (b"", b"\x01", b"\x91\x01"):
        with pytest.raises(ServingError, match="no recorded batch"):
            Batch.decode(payload)


def test_a_batch_that_is_not_at_hand_is_named(kernel, journal):
    replica = a_replica("batch-bound")
    batcher = recorder(kernel, replica)
    decision = kernel.decision(lambda: decide(batcher, [1.0, 2.0]))
    reader = Reader(journal.directory)
    for predictions in (
        Predictions(replica),
        Predictions(replica, batches=lambda home, batch: None),
    ):
        alone = Batcher(replica, predictions=predictions)
        with pytest.raises(ServingError, match="not at hand") as missing:
            replay(kernel, reader, decision.id, lambda alone=alone: decide(alone, [1.0, 2.0]))
        assert "journal that recorded" in missing.value.remedy


def test_decisions_of_many_threads_share_batches_and_all_replay(kernel, journal):
    replica = a_replica("batch-bound")
    batcher = recorder(kernel, replica)
    decisions = {}

    def work(thread):
        for index in range(25):
            row = [float(thread * 100 + index), 1.0]
            decisions[thread, index] = kernel.decision(lambda row=row: decide(batcher, row))

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    reader = Reader(journal.directory)
    again = replayer(reader, replica)
    for (thread, index), decision in decisions.items():
        row = [float(thread * 100 + index), 1.0]
        answer, inputs = replay(kernel, reader, decision.id, lambda row=row: decide(again, row))
        assert answer == decision.answer
        assert inputs.differences == []


def test_real_models_replay_with_the_same_bits_in_a_fresh_process(
    tmp_path, store, key, table, estimators
):
    rows, _ = table
    quick = ExactnessSettings(rounds=2, budget_s=0.3)
    names = ("logistic", "forest", "mlp")
    models = {
        name: register(
            store, name, estimators[name], features=FEATURES, sample=rows, key=key, settings=quick
        ).model
        for name in names
    }
    trusted = KeyRing([key.public])
    answers = {}
    with (
        open_log(tmp_path / "journal", key) as journal,
        Kernel(sink=journal, run_id=journal.run_id) as kernel,
    ):
        for model in models.values():
            batcher = recorder(kernel, load_replica(store, model, trusted))
            for index, decision in enumerate(recorded_together(kernel, batcher, rows[:7])):
                answers[decision.id.hex()] = (model.as_dict(), index, decision.answer.hex())
    np.save(tmp_path / "rows.npy", rows[:7])
    (tmp_path / "cases").write_text(repr((answers, str(key.public))))
    program = (
        "import ast, asyncio, pathlib, sys\n"
        "import numpy as np\n"
        "from enclave.keys import KeyRing\n"
        "from frameworks.serving import *\n"
        "from microkernel import Kernel, Replaying\n"
        "from timemachine.journal import Reader\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "answers, key = ast.literal_eval((folder / 'cases').read_text())\n"
        "rows = np.load(folder / 'rows.npy')\n"
        "store, reader = ArtefactStore(folder / 'objects'), Reader(folder / 'journal')\n"
        "batchers = {}\n"
        "def batcher_of(fields):\n"
        "    if fields['name'] not in batchers:\n"
        "        model = Model.from_dict(fields)\n"
        "        replica = load_replica(store, model, KeyRing.parse(key))\n"
        "        predictions = Predictions(replica, batches=batches_in(reader))\n"
        "        batchers[fields['name']] = Batcher(replica, predictions=predictions)\n"
        "    return batchers[fields['name']]\n"
        "async def main():\n"
        "    for name, (fields, index, answer) in answers.items():\n"
        "        events = reader.events(bytes.fromhex(name), kinds=('input',))\n"
        "        inputs = Replaying([(event.seq, event.payload) for event in events])\n"
        "        batcher = batcher_of(fields)\n"
        "        async def decide():\n"
        "            return float((await batcher.apredict(rows[index]))[0])\n"
        "        again = await kernel.replay(bytes.fromhex(name), inputs, decide)\n"
        "        assert again.answer.hex() == answer, (fields['name'], index)\n"
        "        assert not inputs.differences, inputs.differences\n"
        "with Kernel() as kernel:\n"
        "    asyncio.run(main())\n"
        "print(len(answers), 'replayed')\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert finished.stdout == "21 replayed\n", finished.stderr
