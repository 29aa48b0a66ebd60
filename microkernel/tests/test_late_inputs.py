"""What a source answers after the decision has ended is no part of its record."""

import threading

import pytest

from microkernel import Kernel, MemorySink, boundary, events


def test_an_answer_that_comes_after_the_end_is_not_recorded() -> None:
    asked, ended, answered = threading.Event(), threading.Event(), threading.Event()
    sink = MemorySink()

    def slow_source() -> bytes:
        asked.set()
        ended.wait(30)
        return bytes(8192)  # more than a block, which is appended as soon as it is full

    def child() -> None:
        try:
            boundary.read("table", "slow", slow_source)
        finally:
            answered.set()

    with Kernel(sink=sink) as kernel:

        def decide() -> None:
            kernel.options(placement="thread").submit(child)
            assert asked.wait(30)
            raise LookupError("no such applicant")

        with pytest.raises(LookupError):
            kernel.decision(decide)
        closed = list(sink.events)
        ended.set()
        assert answered.wait(30)
    assert closed[-1][0] == events.DECISION_CLOSED
    assert sink.events == closed
