"""A function is sent once; every process of the kernel then knows it by its number."""

from __future__ import annotations

import functools
import gc
import mmap
import threading
import weakref
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microkernel import code_digest
from microkernel.errors import NotSendable, PayloadDamaged
from microkernel.function import Function
from microkernel.processes.function_table import FunctionTable
from microkernel.processes.payload import Payloads

SIZE = 1 << 20


def pair(size: int = SIZE) -> tuple[FunctionTable, FunctionTable]:
    memory = mmap.mmap(-1, 2 * size)
    return FunctionTable.over(memory, 0, stations=2), FunctionTable.over(memory, 1, stations=2)


def plain(n: int) -> int:
    return n + 1


def test_a_function_that_can_be_imported_is_itself_in_every_process() -> None:
    here, there = pair()
    number = here.number_of_call(Function(plain))
    assert number
    assert there.function_of(number).call is plain
    assert here.number_of_call(Function(plain)) == number


def test_the_name_and_the_digest_travel_with_the_function() -> None:
    here, there = pair()
    function = Function(lambda n: n * 2)
    copy = there.function_of(here.number_of_call(function))
    assert copy.name == function.name
    assert copy.code == function.code == code_digest(function.call)
    assert copy.is_async is False
    assert copy.call(4) == 8


def test_an_async_function_stays_one() -> None:
    async def later() -> int:
        return 1

    here, there = pair()
    assert there.function_of(here.number_of_call(Function(later))).is_async


def test_a_lambda_of_a_loop_is_sent_once() -> None:
    here, _ = pair()
    numbers = {here.number_of_call(Function(make())) for make in [lambda: lambda n: n] * 10}
    assert len(numbers) == 1
    assert numbers != {0}


def as_sent(here: FunctionTable, there: FunctionTable, call: Any) -> tuple[int, Any]:
    """(bytes beside the task's own, the function) as another process gets it for one task."""
    function = Function(call)
    number = here.number_of_call(function)
    if number:
        return 0, there.function_of(number)
    payload, _ = Payloads(None, here).encode_function(function)
    return len(payload), Payloads(None, there).decode_function(payload)[0]


def test_of_a_closure_over_numbers_and_texts_only_these_are_sent_again() -> None:
    here, there = pair()

    def adder(n: int, *, name: str = "n") -> Any:
        def add(m: int, times: int = n, *, unit: str = name) -> tuple[int, str]:
            return n + m * times, unit

        return add

    as_sent(here, there, adder(0))
    for n in range(3):
        one = adder(n, name=f"n{n}")
        size, copy = as_sent(here, there, one)
        assert 0 < size < 100
        assert copy.call(10) == one(10)
        assert copy.call(10, 5, unit="m") == one(10, 5, unit="m")
        assert copy.call.__qualname__ == one.__qualname__
        assert (copy.name, copy.code) == (Function(one).name, Function(one).code)


def test_a_closure_over_objects_gets_a_number_when_it_is_sent_again() -> None:
    here, there = pair()

    def adder(n: int) -> Any:
        numbers = [n]
        return lambda m: numbers[0] + m

    one, other = adder(1), adder(2)
    for _ in range(2):
        assert as_sent(here, there, one)[1].call(10) == 11
        assert as_sent(here, there, other)[1].call(10) == 12
    first, second = (here.number_of_call(Function(call)) for call in (one, other))
    assert 0 != first != second != 0
    assert here.number_of_call(Function(one)) == first


def test_a_closure_that_calls_itself_is_sent() -> None:
    here, there = pair()

    def outer() -> Any:
        def down(n: int) -> int:
            return 0 if n == 0 else 1 + down(n - 1)

        return down

    assert as_sent(here, there, outer())[1].call(5) == 5


def test_a_closure_keeps_the_values_it_was_sent_with() -> None:
    here, there = pair()
    values = [1]

    def total() -> int:
        return sum(values)

    for _ in range(3):
        assert as_sent(here, there, total)[1].call() == 1
        values.append(2)
    assert total() == 7


def test_the_table_keeps_no_closure_alive() -> None:
    here, there = pair()

    class Data:
        pass

    data = Data()
    alive = weakref.ref(data)

    use = functools.partial(lambda held: lambda: held, data)()
    for _ in range(3):
        as_sent(here, there, use)
    del use, data
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize(
    "call",
    [functools.partial(plain, 1), [1, 2].count, type("Callable", (), {"__call__": plain})()],
    ids=["partial", "method", "object"],
)
def test_what_may_change_between_calls_is_sent_with_each_task(call: Any) -> None:
    here, _ = pair()
    for _ in range(3):
        assert here.number_of_call(Function(call)) == 0


def test_a_function_without_a_number_travels_with_its_task() -> None:
    here, there = pair()
    one, other = Payloads(None, here), Payloads(None, there)
    payload, _ = one.encode_function(Function(functools.partial(max, 3)))
    copy, taken = other.decode_function(payload + b"arguments")
    assert taken == len(payload)
    assert copy.call(1) == 3
    assert copy.name == "builtins:max"


def test_a_function_that_is_too_large_travels_with_its_task_and_is_pickled_once() -> None:
    here, there = pair()
    one, other = Payloads(None, here), Payloads(None, there)
    data = [bytes(SIZE // 2)]

    def use() -> int:
        return len(data[0]) + len(data)

    payloads = set()
    for _ in range(3):
        assert here.number_of_call(Function(use)) == 0
        payloads.add(one.encode_function(Function(use))[0])
        data.append(b"more")
    assert len(payloads) == 1
    for payload in payloads:
        assert other.decode_function(payload)[0].call() == SIZE // 2 + 1


def test_a_full_table_sends_functions_with_their_tasks() -> None:
    here, there = pair(1 << 14)
    numbers = []
    for i in range(100):
        space: dict[str, Any] = {"__name__": "__main__"}
        exec(f"def numbered_{i}(n): return n + {i}", space)
        numbers.append((i, here.number_of_call(Function(space[f"numbered_{i}"]))))
    assert numbers[0][1]
    assert not numbers[-1][1]
    for i, number in numbers:
        if number:
            assert there.function_of(number).call(1) == 1 + i


def test_classes_made_by_a_function_leave_room_for_others() -> None:
    here, there = pair(1 << 15)
    one, other = Payloads(None, here), Payloads(None, there)

    def made(n: int) -> Any:
        class Made:
            value = n

        return Made()

    for n in range(100):
        assert other.decode_result(one.encode_result(made(n))[0]).value == n
    space: dict[str, Any] = {"__name__": "__main__"}
    exec("def once(n): return n + 1", space)
    assert here.number_of_call(Function(space["once"]))


def test_every_station_has_numbers_of_its_own() -> None:
    memory = mmap.mmap(-1, 4 << 16)
    all_tables = [FunctionTable.over(memory, i, stations=4) for i in range(4)]
    numbers = [each.number_of_call(Function(plain)) for each in all_tables]
    assert [number >> 24 for number in numbers] == [0, 1, 2, 3]
    assert all(each.function_of(n).call is plain for each in all_tables for n in numbers)


def test_a_new_process_of_a_station_appends_to_what_the_old_one_sent() -> None:
    memory = mmap.mmap(-1, 2 << 16)
    there = FunctionTable.over(memory, 1, stations=2)
    first = FunctionTable.over(memory, 0, stations=2).number_of_call(Function(plain))
    second = FunctionTable.over(memory, 0, stations=2).number_of_call(Function(sum))
    assert first != second
    assert there.function_of(first).call is plain
    assert there.function_of(second).call is sum


def test_a_class_of_the_main_module_is_sent_once_and_comes_home_as_itself() -> None:
    here, there = pair()
    one, other = Payloads(None, here), Payloads(None, there)

    class Score:
        def __init__(self, points: int) -> None:
            self.points = points

        def better(self) -> Score:
            return Score(self.points + 1)

    first, _ = one.encode_result(Score(1))
    second, _ = one.encode_result(Score(2))
    assert len(first) == len(second) < 150
    back, _ = other.encode_result(other.decode_result(second).better())
    assert type(one.decode_result(back)) is Score
    assert one.decode_result(back).points == 3


def test_classes_that_refer_to_each_other_are_sent() -> None:
    here, there = pair()

    class One:
        def other(self) -> Any:
            return Other

    class Other:
        def one(self) -> Any:
            return One

    payload, _ = Payloads(None, here).encode_result((One(), Other()))
    one, other = Payloads(None, there).decode_result(payload)
    assert one.other() is type(other)
    assert other.one() is type(one)


def test_a_function_that_cannot_be_sent_says_which_variable_is_to_blame() -> None:
    here, there = pair()
    lock = threading.Lock()

    def work() -> object:
        return lock

    for _ in range(3):
        with pytest.raises(NotSendable, match=r"function .*work cannot be sent.*variable 'lock'"):
            as_sent(here, there, work)


@given(number=st.integers(0, 2**32 - 1))
def test_a_number_that_nobody_gave_is_refused(number: int) -> None:
    here, there = pair(1 << 16)
    given_one = here.number_of_call(Function(plain))
    if number != given_one:
        with pytest.raises(PayloadDamaged):
            there.function_of(number)


def test_a_damaged_entry_is_refused() -> None:
    memory = mmap.mmap(-1, 2 << 16)
    here, there = (FunctionTable.over(memory, station, stations=2) for station in range(2))
    number = here.number_of_call(Function(plain))
    at = (number & 0xFFFFFF) * 16
    for i in range(48):
        memory[at + i] ^= 0xFF
        with pytest.raises(PayloadDamaged):
            there.function_of(number)
        memory[at + i] ^= 0xFF
    assert there.function_of(number).call is plain
