"""Tasks that are begun again after an error: how often, after which, with which id and record."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from microkernel import (
    DeadlineMissed,
    Kernel,
    KernelSettings,
    MemorySink,
    Replaying,
    boundary,
    current_task,
    events,
)

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(params=["inline", "thread"])
def kernel(request: pytest.FixtureRequest) -> Iterator[Kernel]:
    with Kernel(KernelSettings(placement=request.param, threads=2)) as opened:
        yield opened


class Flaky:
    """Fails the first ``failures`` times with ``error``."""

    def __init__(self, failures: int, error: type[Exception] = OSError) -> None:
        self.failures = failures
        self.error = error
        self.ids: list[bytes] = []

    def __call__(self) -> int:
        task = current_task()
        assert task is not None
        self.ids.append(task.task_id)
        if len(self.ids) <= self.failures:
            raise self.error("not yet")
        return len(self.ids)


def test_a_task_is_begun_again_with_the_same_id(kernel: Kernel) -> None:
    flaky = Flaky(2)
    ref = kernel.options(retries=2).submit(flaky)
    after = kernel.submit(str, ref)
    assert kernel.get(after) == "3"
    assert flaky.ids == [ref.task_id] * 3
    assert ref.attempts == 3


def test_only_so_often_and_only_after_the_named_errors(kernel: Kernel) -> None:
    for options, failures, begun in (
        ({"retries": 1}, 5, 2),
        ({"retries": 5, "retry_on": (KeyError, OSError)}, 3, 4),
        ({"retries": 5, "retry_on": KeyError}, 3, 1),
        ({"retries": 5, "retry_on": lambda error: "not" in str(error)}, 3, 4),
        ({"retries": 5, "retry_on": lambda error: error.nothing}, 3, 1),
        ({}, 1, 1),
    ):
        flaky = Flaky(failures)
        ref = kernel.options(**options).submit(flaky)
        if begun > failures:
            assert kernel.get(ref) == begun
        else:
            with pytest.raises(OSError, match="not yet"):
                kernel.get(ref)
        assert len(flaky.ids) == begun


def test_a_pause_keeps_nobody_from_waiting_cancelling_or_closing(kernel: Kernel) -> None:
    assert kernel.get(kernel.options(retries=3, backoff=0.001).submit(Flaky(3))) == 4
    long = kernel.options(retries=1, backoff=1000.0)
    cancelled = long.submit(Flaky(1))
    assert kernel.wait([cancelled], timeout=0.02)[0] == []
    assert kernel.cancel(cancelled)
    late = kernel.options(retries=1, backoff=1000.0, deadline=0.02).submit(Flaky(1))
    with pytest.raises(DeadlineMissed):
        kernel.get(late)
    with Kernel(kernel.settings) as other:
        ref = other.options(retries=1, backoff=0.02).submit(Flaky(1))
    assert ref.done
    assert not ref.failed
    other = Kernel(kernel.settings)
    ref = other.options(retries=1, backoff=1000.0).submit(Flaky(1))
    other.wait([ref], timeout=0.02)
    other.close(cancel=True)
    assert ref.failed


def test_a_replay_goes_through_the_attempts_that_were_made(kernel: Kernel) -> None:
    """What an attempt reads and submits counts on from the one before: both are in the record."""
    source = random.Random(7)

    def unlucky() -> float:
        drawn = [boundary.read("dice", None, source.random) for _ in range(3)]
        drawn.append(kernel.get(kernel.submit(boundary.read, "die", 1, source.random)))
        if drawn[0] < 0.6:
            raise ValueError("bad luck")
        return sum(drawn)

    def decide() -> list[float]:
        again = kernel.options(retries=50, backoff=1e-6)
        return kernel.get([again.submit(unlucky) for _ in range(5)])

    sink = MemorySink()
    with Kernel(kernel.settings, sink=sink) as kernel:
        decision = kernel.decision(decide)
        inputs = [
            (seq, payload)
            for seq, (kind, _, owner, payload) in enumerate(sink.events)
            if kind == events.INPUT and owner == decision.id
        ]
        door = Replaying(inputs)
        assert kernel.replay(decision.id, door, decide).answer == decision.answer
        assert door.unread() == []
