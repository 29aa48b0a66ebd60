"""The registry of event kinds."""

from __future__ import annotations

import pytest

from microkernel import KernelError, events

COLUMNS = (("payload", "binary"),)


def test_a_kind_registered_twice_is_one_kind() -> None:
    number = events.register("tests.twice", COLUMNS)
    assert events.register("tests.twice", COLUMNS) == number
    assert events.kind_named("tests.twice") == events.EventKind(number, "tests.twice", COLUMNS)


def test_kinds_have_numbers_of_their_own() -> None:
    events.register("tests.one", COLUMNS)
    events.register("tests.two", COLUMNS)
    numbers = [kind.number for kind in events.kinds()]
    assert numbers == sorted(set(numbers))


def test_the_numbers_of_the_kernels_own_kinds_are_fixed() -> None:
    assert {kind.name: kind.number for kind in events.kinds() if kind.number < 32} == {
        "journal.kind": 1,
        "journal.checkpoint": 2,
        "decision.opened": 3,
        "decision.closed": 4,
        "input": 5,
        "tasks": 6,
    }


def test_a_name_keeps_its_columns() -> None:
    events.register("tests.columns", COLUMNS)
    with pytest.raises(KernelError, match=r"tests\.columns") as caught:
        events.register("tests.columns", (("other", "int64"),))
    assert caught.value.expected == str(COLUMNS)


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(KernelError, match="no event kind is named 'nobody'") as caught:
        events.kind_named("nobody")
    assert "decision.opened" in caught.value.expected
