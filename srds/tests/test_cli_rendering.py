"""How values look in a terminal and as JSON."""

from __future__ import annotations

import io
import json
import math
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from srds.rendering import bar, duration, local_time, plain, print_tree, safe, shown

scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
    | st.datetimes() | st.complex_numbers()
)  # fmt: skip
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers() | st.binary(), inner)
        | st.sets(st.integers() | st.text())
    ),
    max_leaves=20,
)


@given(values)
def test_any_recorded_value_is_strict_json(value: Any) -> None:
    text = json.dumps(plain(value), allow_nan=False)
    assert json.loads(text) == plain(value)


@given(values, st.integers(4, 80))
def test_any_value_is_one_printable_line_of_limited_length(value: Any, limit: int) -> None:
    text = shown(value, limit)
    assert len(text) <= limit
    assert text.isprintable()


@given(st.text())
def test_safe_text_is_printable_and_printable_text_is_itself(text: str) -> None:
    assert safe(text).isprintable()
    if text.isprintable():
        assert safe(text) == text


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (math.nan, "NaN"),
        (math.inf, "Infinity"),
        (np.float32(0.5), 0.5),
        (np.int64(7), 7),
        (np.bool_(True), True),
        (np.array([[1.0, math.nan]]), [[1.0, "NaN"]]),
        (np.datetime64("2020-01-02"), "2020-01-02"),
        (2**70, 2**70),
        ({(1, 2): b"\x00"}, {"(1, 2)": "AA=="}),
        (frozenset({"b", "a"}), ["a", "b"]),
    ],
)
def test_values_in_plain_json_types(value: Any, expected: Any) -> None:
    assert plain(value) == expected
    assert type(plain(value)) is type(expected)


def test_a_long_array_is_shortened() -> None:
    assert shown(np.zeros(10_000)).endswith("…") or len(shown(np.zeros(10_000))) <= 60
    assert shown(np.array([1.5, 2.0])) == "[1.5, 2]"


@pytest.mark.parametrize(
    ("nanoseconds", "expected"),
    [(0, "0 ns"), (999, "999 ns"), (1_500, "1.5 µs"), (2_000_000, "2 ms"), (61 * 10**9, "61 s")],
)
def test_durations(nanoseconds: int, expected: str) -> None:
    assert duration(nanoseconds) == expected


def test_a_moment_is_told_in_local_time() -> None:
    moment = datetime(2024, 5, 6, 7, 8, 9, 123_456, tzinfo=UTC)
    local = moment.astimezone()
    text = local_time(int(moment.timestamp() * 10**9))
    assert text == f"{local:%Y-%m-%d %H:%M:%S}.123"


def test_indented_lines_become_a_tree_in_a_terminal() -> None:
    lines = ["root", "  one", "    deep [red]", "  two"]
    drawn = io.StringIO()
    print_tree(Console(file=drawn, force_terminal=True, markup=False, no_color=True), lines)
    text = [line.rstrip() for line in drawn.getvalue().splitlines()]
    assert [line.lstrip("│├└─ ") for line in text[1:]] == ["one", "deep [red]", "two"]
    assert text[1].startswith("├── ")
    assert text[3].startswith("└── ")


def test_lines_stay_as_they_are_in_a_pipe() -> None:
    written = io.StringIO()
    print_tree(Console(file=written), ["root", "  one"])
    assert written.getvalue() == "root\n  one\n"


def test_a_bar_is_as_long_as_its_share() -> None:
    assert len(bar(5.0, 10.0).plain) == 10
    assert len(bar(-10.0, 10.0).plain) == 20
    assert len(bar(1e-9, 10.0).plain) == 1
    assert bar(0.0, 0.0).plain == ""
