"""Actors and recorded decisions: what is an input, what runs again in a replay."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from microkernel import (
    Kernel,
    KernelError,
    MemorySink,
    ReplayDivergence,
    Replaying,
    ValueNotRecordable,
    boundary,
    events,
    read_inputs,
)
from microkernel.actors import ActorOptions, ActorRef
from microkernel.errors import ActorDied, DeadlineMissed, TaskCancelled

pytestmark = pytest.mark.timeout(20)


class Policy:
    """Has a state that a decision does not know."""

    def __init__(self) -> None:
        self.asked = 0

    def score(self, x: int) -> int:
        self.asked += 1
        return x + self.asked

    def fail(self) -> None:
        raise LookupError("no such customer")

    def unrecordable(self) -> object:
        return object()

    def read(self, key: str) -> str:
        return boundary.read("table", key, lambda: f"row {key}")

    def hold(self, gate: threading.Event) -> None:
        gate.wait(30)


@pytest.fixture
def sink() -> MemorySink:
    return MemorySink()


@pytest.fixture
def kernel(sink: MemorySink) -> Iterator[Kernel]:
    with Kernel(sink=sink) as opened:
        yield opened


@pytest.fixture(params=["inline", "thread"])
def policy(request: pytest.FixtureRequest, kernel: Kernel) -> ActorRef:
    return kernel.spawn(Policy, options=ActorOptions(placement=request.param))


def inputs_of(sink: MemorySink, decision: bytes) -> list[tuple[int, bytes]]:
    return [
        (seq, payload)
        for seq, (kind, _, owner, payload) in enumerate(sink.events)
        if kind == events.INPUT and owner == decision
    ]


def recorded(sink: MemorySink, decision: bytes) -> list[tuple[str, str, Any]]:
    found = []
    for seq, payload in inputs_of(sink, decision):
        found += [(i.kind, i.source.rpartition(":")[2], i.key) for i in read_inputs(payload, seq)]
    return found


def last_decision(sink: MemorySink) -> bytes:
    return next(d for kind, _, d, _ in reversed(sink.events) if kind == events.DECISION_OPENED)


def test_an_outside_actors_answers_are_inputs(
    kernel: Kernel, policy: ActorRef, sink: MemorySink
) -> None:
    def decide(x: int) -> list[int]:
        refs = [policy.score(x), policy.score(x)]
        return [kernel.get(ref) for ref in refs]

    kernel.get(policy.score(0))
    decision = kernel.decision(decide, 10)
    assert decision.answer == [12, 13]
    assert recorded(sink, decision.id) == [("actor", "Policy", "score")] * 2
    boundary = Replaying(inputs_of(sink, decision.id))
    assert kernel.replay(decision.id, boundary, decide, 10).answer == [12, 13]
    assert boundary.unread() == []
    # The replay asked nobody.
    assert kernel.get(policy.score(0)) == 4


def test_what_an_outside_actor_reads_is_not_read_by_the_decision(
    kernel: Kernel, policy: ActorRef, sink: MemorySink
) -> None:
    def decide() -> str:
        return kernel.get(policy.read("7"))

    decision = kernel.decision(decide)
    assert decision.answer == "row 7"
    assert recorded(sink, decision.id) == [("actor", "Policy", "read")]


def test_an_error_of_an_actor_is_an_input(
    kernel: Kernel, policy: ActorRef, sink: MemorySink
) -> None:
    def decide() -> str:
        try:
            kernel.get(policy.fail())
        except LookupError as error:
            return str(error)
        return "none"

    decision = kernel.decision(decide)
    assert decision.answer == "no such customer"
    boundary = Replaying(inputs_of(sink, decision.id))
    assert kernel.replay(decision.id, boundary, decide).answer == decision.answer
    assert boundary.unread() == []


def test_an_answer_that_cannot_be_recorded_is_not_given(
    kernel: Kernel, policy: ActorRef, sink: MemorySink
) -> None:
    def decide() -> str:
        try:
            kernel.get(policy.unrecordable())
        except ValueNotRecordable:
            return "refused"
        return "given"

    decision = kernel.decision(decide)
    assert decision.answer == "refused"
    boundary = Replaying(inputs_of(sink, decision.id))
    assert kernel.replay(decision.id, boundary, decide).answer == "refused"


def test_answers_are_arguments_of_tasks_and_of_other_calls(
    kernel: Kernel, policy: ActorRef, sink: MemorySink
) -> None:
    def decide() -> int:
        first = policy.score(kernel.submit(int, "1"))
        return kernel.get(kernel.submit(lambda a, b: a * b, first, policy.score(first)))

    decision = kernel.decision(decide)
    assert decision.answer == 2 * 4
    boundary = Replaying(inputs_of(sink, decision.id))
    assert kernel.replay(decision.id, boundary, decide).answer == 8
    assert boundary.unread() == []


def test_an_answer_nobody_asked_for_belongs_to_the_decision(
    kernel: Kernel, policy: ActorRef, sink: MemorySink
) -> None:
    def decide() -> int:
        policy.score(1)
        return 1

    decision = kernel.decision(decide)
    assert recorded(sink, decision.id) == [("actor", "Policy", "score")]
    boundary = Replaying(inputs_of(sink, decision.id))
    kernel.replay(decision.id, boundary, decide)
    assert boundary.unread() == []


def test_code_that_asks_more_than_the_record_holds_diverges_or_asks_now(
    kernel: Kernel, policy: ActorRef, sink: MemorySink
) -> None:
    def decide() -> int:
        return kernel.get(policy.score(1))

    def patched() -> int:
        return kernel.get(policy.score(1)) + kernel.get(policy.score(100))

    decision = kernel.decision(decide)
    assert decision.answer == 2
    with pytest.raises(ReplayDivergence, match="actor of"):
        kernel.replay(decision.id, Replaying(inputs_of(sink, decision.id)), patched)
    live = Replaying(inputs_of(sink, decision.id), policy="live")
    assert kernel.replay(decision.id, live, patched).answer == 2 + 102


@pytest.mark.parametrize("placement", ["inline", "thread"])
def test_an_actor_of_the_decision_runs_again(
    kernel: Kernel, sink: MemorySink, placement: str
) -> None:
    made: list[Policy] = []

    class Own(Policy):
        def __init__(self) -> None:
            super().__init__()
            made.append(self)

    def decide() -> list[Any]:
        own = kernel.spawn(Own, options=ActorOptions(placement=placement, name="own"))
        same = kernel.actor("own")
        return kernel.get([own.score(1), same.score(2), own.read("7")])

    decision = kernel.decision(decide)
    assert decision.answer == [2, 4, "row 7"]
    assert recorded(sink, decision.id) == [("read", "table", "7")]
    boundary = Replaying(inputs_of(sink, decision.id))
    assert kernel.replay(decision.id, boundary, decide).answer == decision.answer
    assert boundary.unread() == []
    assert len(made) == 2
    with pytest.raises(KernelError, match="no actor is named"):
        kernel.actor("own")


def test_an_actor_ends_with_its_decision(kernel: Kernel) -> None:
    kept: list[ActorRef] = []

    def decide() -> int:
        kept.append(kernel.spawn(Policy))
        return kernel.get(kept[0].score(1))

    assert kernel.decision(decide).answer == 2
    with pytest.raises(ActorDied):
        kernel.get(kept[0].score(1))


def test_only_the_task_that_spawned_it_calls_a_decisions_own_actor(kernel: Kernel) -> None:
    def decide() -> None:
        own = kernel.spawn(Policy)
        kernel.get(kernel.submit(lambda: kernel.get(own.score(1))))

    with pytest.raises(KernelError, match="another task"):
        kernel.decision(decide)


def test_without_a_record_any_task_of_the_decision_calls_its_actor() -> None:
    with Kernel() as kernel:

        def decide() -> Any:
            own = kernel.spawn(Policy)
            return kernel.get(kernel.submit(lambda: kernel.get(own.score(1))))

        assert kernel.decision(decide).answer == 2


def test_a_named_actor_need_not_live_in_a_replay(sink: MemorySink) -> None:
    def decide(kernel: Kernel) -> Any:
        return kernel.get(kernel.actor("shared").score(1))

    class Deciding:
        kernel: Kernel

        def __call__(self) -> Any:
            return decide(self.kernel)

    deciding = Deciding()
    with Kernel(sink=sink) as deciding.kernel:
        deciding.kernel.spawn(Policy, options=ActorOptions(name="shared", placement="thread"))
        decision = deciding.kernel.decision(deciding)
    with Kernel() as deciding.kernel:
        boundary = Replaying(inputs_of(sink, decision.id))
        again = deciding.kernel.replay(decision.id, boundary, deciding)
        assert again.answer == decision.answer == 2
        assert boundary.unread() == []

        def more() -> Any:
            return deciding() + deciding()

        live = Replaying(inputs_of(sink, decision.id), policy="live")
        with pytest.raises(KernelError, match="no actor is named 'shared'"):
            deciding.kernel.replay(decision.id, live, more)


def test_deadlines_and_cancellations_of_calls_are_repeated(
    kernel: Kernel, sink: MemorySink
) -> None:
    gate = threading.Event()
    policy = kernel.spawn(Policy, options=ActorOptions(placement="thread"))

    def decide() -> list[str]:
        held = policy.hold(gate)
        late = policy.score.options(deadline=0.01)(1)
        given_up = policy.score(1)
        found = []
        assert kernel.cancel(given_up)
        for ref in (late, given_up):
            try:
                kernel.get(ref)
            except (DeadlineMissed, TaskCancelled) as error:
                found.append(type(error).__name__)
        gate.set()
        kernel.get(held)
        return found

    decision = kernel.decision(decide)
    assert decision.answer == ["DeadlineMissed", "TaskCancelled"]
    boundary = Replaying(inputs_of(sink, decision.id))
    assert kernel.replay(decision.id, boundary, decide).answer == decision.answer
    assert boundary.unread() == []
    assert kernel.get(policy.score(0)) == 1


def test_coroutine_decisions_await_actors(
    kernel: Kernel, policy: ActorRef, sink: MemorySink
) -> None:
    import asyncio

    async def decide() -> list[int]:
        return [await policy.score(1), await policy.score(2)]

    decision = asyncio.run(kernel.decision(decide))
    assert decision.answer == [2, 4]

    async def again() -> Any:
        boundary = Replaying(inputs_of(sink, decision.id))
        return await kernel.replay(decision.id, boundary, decide)

    assert asyncio.run(again()).answer == [2, 4]


def test_a_failing_decision_gives_its_calls_up(kernel: Kernel, sink: MemorySink) -> None:
    gate = threading.Event()
    policy = kernel.spawn(Policy, options=ActorOptions(placement="thread"))

    def decide() -> None:
        policy.hold(gate)
        policy.score(1)
        raise LookupError("over")

    with pytest.raises(LookupError):
        kernel.decision(decide)
    gate.set()
    assert kernel.get(policy.score(0)) == 1
    assert last_decision(sink)
