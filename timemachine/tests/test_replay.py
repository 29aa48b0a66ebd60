"""Replays of decisions from a real journal: what is the same, and what is named when it is not."""

import asyncio
import contextvars

import pytest

from enclave.keys import SigningKey
from microkernel import Kernel, boundary, events, values
from timemachine import JournalDamaged
from timemachine.errors import DecisionNotFound, ReplayImpossible
from timemachine.journal import Reader, open_log
from timemachine.replay import Outcome, Records, Replayer

KEY = SigningKey.generate("example.org/replay")
TABLE = {"ada": 52.0, "bob": 20.0}
FACTOR = contextvars.ContextVar("factor", default=2.0)


def income(name):
    return boundary.read("table", (name, "income"), lambda: TABLE[name])


def grant(name):
    return {"answer": income(name) > 30, "score": income(name) / 3}


async def grant_later(name):
    await asyncio.sleep(0)
    return {"answer": income(name) > 30, "score": income(name) / 3 * FACTOR.get()}


def raise_for(name):
    raise LookupError(f"no {name}", 7)


FUNCTIONS = {f"{__name__}:{f.__name__}": f for f in (grant, grant_later, raise_for)}


def resolve(name):
    return FUNCTIONS[name]


@pytest.fixture
def store(tmp_path):
    """A journal of five decisions: grant ada, grant bob, both again later, and one that raised."""
    with open_log(tmp_path, KEY) as journal, Kernel(sink=journal, run_id=journal.run_id) as kernel:
        for name in TABLE:
            kernel.decision(grant, name, subject=name, policy="p", versions=("ab", "cd"))

        async def later():
            await asyncio.gather(*(kernel.decision(grant_later, name) for name in TABLE))

        asyncio.run(later())
        with pytest.raises(LookupError):
            kernel.decision(raise_for, "eve")
    return tmp_path


@pytest.fixture
def records(store):
    return list(Records(Reader(store)))


@pytest.fixture
def replayer():
    with Kernel() as kernel, Replayer(kernel, resolve) as replayer:
        yield replayer


def test_a_record_tells_what_was_asked_under_which_code_and_what_came_out(records):
    first = records[0]
    assert (first.name, first.args, first.kwargs) == (f"{__name__}:grant", ("ada",), {})
    assert (first.subject, first.policy, first.versions) == ("ada", "p", ("ab", "cd"))
    assert first.outcome == Outcome(True, {"answer": True, "score": 52.0 / 3})
    assert [(one.source, one.key, one.ordinal, one.value) for one in first.inputs] == [
        ("table", ("ada", "income"), 0, 52.0),
        ("table", ("ada", "income"), 1, 52.0),
    ]
    assert records[-1].outcome == Outcome(False, ["builtins:LookupError", ["no eve", 7]])


def test_every_recorded_decision_replays_exactly_and_asks_no_source(records, replayer, monkeypatch):
    monkeypatch.setitem(TABLE, "ada", -1.0)
    replays = replayer.exact_all(records)
    assert [one.decision for one in replays] == [one.id for one in records]
    assert all(one.exact and one.first_difference is None for one in replays)
    assert all(one.comparison.max_ulps == 0 for one in replays)
    assert replays[0].to_json()["exact"] is True


def test_the_last_bit_of_an_answer_is_compared_and_its_place_is_named(records, replayer):
    def slightly_off(name):
        answer = grant(name)
        return {**answer, "score": answer["score"] * (1 + 2**-52)}

    (replay,) = replayer.patched(records[:1], slightly_off)
    assert not replay.same_bits
    assert replay.comparison.max_ulps == 1
    assert replay.first_difference.startswith("the answer differs at score")
    assert replay.code_changed


@pytest.mark.parametrize(
    ("function", "named"),
    [
        (lambda name: income(name) + boundary.read("o", 1, lambda: 1), "read of 'o', key 1"),
        (lambda name: {"answer": True, "score": 52.0 / 3}, "was recorded and not asked for"),
        (raise_for, "the replay ended with LookupError('no ada', 7)"),
    ],
)
def test_the_first_difference_is_named(records, replayer, function, named):
    (replay,) = replayer.patched(records[:1], function)
    assert not replay.exact
    assert named in replay.first_difference


def test_extra_reads_follow_the_policy(records, replayer):
    def with_more(name):
        return boundary.read("other", name, lambda: "live")

    live = replayer.patched(records[:2], with_more, policy="live")
    assert [one.replayed.value for one in live] == ["live", "live"]
    assert live[0].extra == (("read", "other", "ada", 0),)
    default = replayer.patched(records[:1], with_more, policy="default", default=0)
    assert default[0].replayed.value == 0
    assert replayer.patched(records[:1], with_more)[0].divergence is not None


def test_a_perturbed_replay_reads_the_other_value_and_keeps_the_rest(records, replayer):
    batch = [{("table", ("bob", "income")): value} for value in (20.0, 31.0, float("nan"))]
    replays = replayer.perturbed(records[1], batch)
    assert [one.replayed.value["answer"] for one in replays] == [False, True, False]
    assert replays[0].same_bits
    later = replayer.perturbed(records[3], batch)
    assert [one.replayed.value["answer"] for one in later] == [False, True, False]


def test_an_input_that_was_not_read_cannot_be_perturbed(records, replayer):
    with pytest.raises(ReplayImpossible, match="did not read"):
        replayer.perturbed(records[0], [{("table", ("bob", "income")): 1.0}])


def test_coroutines_are_replayed_in_the_context_of_the_caller(records, replayer):
    later = records[2:4]
    assert all(one.exact for one in replayer.exact_all(later))
    token = FACTOR.set(4.0)
    try:
        assert not any(one.exact for one in replayer.exact_all(later))
    finally:
        FACTOR.reset(token)
    assert all(one.exact for one in replayer.exact_all(later))


def test_overrides_of_a_patched_replay_are_made_for_each_record(records, replayer):
    replays = replayer.patched(
        records[:4], overrides=lambda record: {("table", (record.args[0], "income")): 90.0}
    )
    assert [one.replayed.value["answer"] for one in replays] == [True] * 4
    assert [one.decision for one in replays] == [one.id for one in records[:4]]


def test_a_decision_that_was_never_closed_is_shown_and_cannot_be_replayed(tmp_path, replayer):
    with open_log(tmp_path, KEY) as journal, Kernel(sink=journal, run_id=journal.run_id) as kernel:
        kernel.decision(grant, "ada")
        first = next(iter(Reader(tmp_path).events(kinds={"decision.opened"})))
        journal.append_event(events.DECISION_OPENED, first.payload, decision=b"u" * 16)
    unfinished = Records(Reader(tmp_path)).find((b"u" * 16).hex())
    assert unfinished.outcome is None
    with pytest.raises(ReplayImpossible, match="never closed"):
        replayer.exact(unfinished)


def test_a_decision_is_found_by_the_beginning_of_its_id(store, records):
    found = Records(Reader(store))
    assert found.find(records[0].id[:8].upper()).id == records[0].id
    for prefix, message in (("ab", "no decision id"), ("x" * 8, "no decision id")):
        with pytest.raises(DecisionNotFound, match=message):
            found.find(prefix)
    with pytest.raises(DecisionNotFound, match="no decision begins"):
        found.find("0" * 31)


def test_an_ambiguous_beginning_lists_the_candidates(tmp_path):
    with open_log(tmp_path, KEY) as journal:
        payload = values.encode(["m:f", b"c" * 16, [], {}, None, None, []])
        for last in (b"a", b"b"):
            journal.append_event(events.DECISION_OPENED, payload, decision=b"z" * 15 + last)
    with pytest.raises(DecisionNotFound, match="2 decisions begin") as caught:
        Records(Reader(tmp_path)).find("7a7a7a")
    assert (b"z" * 15 + b"a").hex() in caught.value.expected


def test_a_payload_that_is_no_record_is_damage_with_its_place(tmp_path):
    with open_log(tmp_path, KEY) as journal:
        journal.append_event(events.DECISION_OPENED, b"\x93\x01\x02", decision=b"q" * 16)
    with pytest.raises(JournalDamaged, match="event 0"):
        list(Records(Reader(tmp_path)))
