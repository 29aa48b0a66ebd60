"""What is sent to another process comes out as it went in, or says why it cannot."""

from __future__ import annotations

import datetime
import math
import mmap
import os
import pickle
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microkernel import Kernel, KernelError
from microkernel.errors import NotRebuilt, NotSendable, PayloadDamaged
from microkernel.objects.store import ObjectStore
from microkernel.processes.function_table import FunctionTable
from microkernel.processes.payload import Payloads
from microkernel.processes.pickling import UnfinishedReferences, register_reducer

REPOSITORY = Path(__file__).parents[3]


def tables(count: int = 2) -> list[FunctionTable]:
    memory = mmap.mmap(-1, count << 20)
    return [FunctionTable.over(memory, station, stations=count) for station in range(count)]


HERE, THERE = (Payloads(None, table) for table in tables())


def sent(value: Any) -> Any:
    payload, held = HERE.encode_result(value)
    assert held == []
    return THERE.decode_result(payload)


def sent_as_arguments(*args: Any, **kwargs: Any) -> Any:
    payload, _ = HERE.encode_arguments(args, kwargs)
    return THERE.decode_arguments(payload)


def same(one: Any, other: Any) -> bool:
    """Equal, with equal types all the way down and equal bits in floats."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return struct.pack("d", one) == struct.pack("d", other)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return same(list(one.items()), list(other.items()))
    return bool(one == other)


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=-(2**70), max_value=2**70)
    | st.floats()
    | st.binary(max_size=300)
    | st.text(st.characters(exclude_categories=()), max_size=300)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.lists(inner, max_size=5).map(tuple)
        | st.dictionaries(SCALARS, inner, max_size=4)
    ),
    max_leaves=30,
)


@given(value=VALUES)
def test_plain_values_come_back_as_they_were(value: Any) -> None:
    assert same(sent(value), value)


@given(args=st.lists(VALUES, max_size=4), kwargs=st.dictionaries(st.text(), VALUES, max_size=3))
def test_arguments_come_back_as_they_were(args: list[Any], kwargs: dict[str, Any]) -> None:
    payload, _ = HERE.encode_arguments(tuple(args), kwargs)
    there_args, there_kwargs = THERE.decode_arguments(payload)
    assert same(there_args, tuple(args))
    assert same(there_kwargs or {}, kwargs)


@pytest.mark.parametrize(
    "n", [0, 127, 128, -1, 2**31 - 1, 2**31, -(2**31) - 1, 2**63 - 1, -(2**63), 2**63, -(2**64)]
)
def test_integers_at_the_edges_of_their_tags_come_back(n: int) -> None:
    assert same(sent(n), n)


def test_a_call_without_arguments_and_the_result_none_have_no_bytes() -> None:
    assert HERE.encode_arguments(()) == (b"", [])
    assert HERE.encode_arguments((), {}) == (b"", [])
    assert THERE.decode_arguments(b"") == ((), None)
    assert HERE.encode_result(None) == (b"", [])
    assert THERE.decode_result(b"") is None


def test_more_than_254_arguments_come_back() -> None:
    args, kwargs = sent_as_arguments(*range(1000), **{f"n{i}": i for i in range(300)})
    assert args == tuple(range(1000))
    assert kwargs == {f"n{i}": i for i in range(300)}


class Point(NamedTuple):
    x: float
    y: float


@dataclass
class Loan:
    income: float
    terms: list[int]


class Text(str):
    pass


@pytest.mark.parametrize(
    "value",
    [
        Text("a subclass of str"),
        Point(1.0, 2.0),
        Loan(4583.0, [12, 24]),
        datetime.datetime(2024, 3, 1, tzinfo=datetime.UTC),
        {1, 2, 3},
        frozenset("ab"),
        bytearray(b"grows"),
        1 + 2j,
        range(3),
        [[[[[[[[[[[[[[[[[[[["deep"]]]]]]]]]]]]]]]]]]]],
        list(range(1000)),
        {n: str(n) for n in range(1000)},
        ("x" * 5000, b"y" * 5000),
        "\ud800",
        Loan,
        math.sin,
        len,
        test_more_than_254_arguments_come_back,
        np.float32(0.1),
        np.dtype([("a", "i4")]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_other_values_come_back_with_their_type(value: Any) -> None:
    there = sent(value)
    assert type(there) is type(value)
    assert there == value


ARRAYS = [
    np.arange(6.0).reshape(2, 3),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.arange(10)[::2],
    np.arange(24).reshape(2, 3, 4).transpose(1, 0, 2),
    np.zeros((0, 3), "f4"),
    np.array(3.5),
    np.array([True, False]),
    np.array(["a", "bc"]),
    np.array(["2024-01-01"], "M8[D]"),
    np.array([1, 2], ">i4"),
    np.array([(1, 2.0)], [("a", "i4"), ("b", "f8")]),
    np.array([1 + 2j], "c8"),
    np.float16([1.5]),
    np.arange(1000.0),
    np.array([{"a": 1}, None], dtype=object),
    np.ma.masked_array([1.0, 2.0], [False, True]),
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}{array.shape}")
def test_arrays_come_back_with_type_shape_and_order(array: Any) -> None:
    for there in (sent(array), sent([array, {1}])[0], sent({"a": (array,)})["a"][0]):
        assert type(there) is type(array)
        assert there.dtype == array.dtype
        assert there.shape == array.shape
        assert there.flags.fnc == array.flags.fnc
        np.testing.assert_array_equal(there, array)


@pytest.mark.parametrize(
    "kind",
    [
        *(np.bool_, np.int8, np.uint16, np.int64, np.uint64, np.longlong, np.intc),
        *(np.float16, np.float32, np.float64, np.longdouble, np.complex64, np.complex128),
    ],
)
def test_scalars_of_numpy_come_back_with_their_type(kind: Any) -> None:
    for value in (kind(1), [kind(0)]):
        there = sent(value)
        assert there == value
        assert type(there) is type(value)
        inner, given = (there[0], value[0]) if isinstance(value, list) else (there, value)
        assert type(inner) is kind
        assert inner.tobytes() == given.tobytes()


@pytest.mark.parametrize("length", [3, 100_000])
def test_an_array_is_read_only_whatever_its_length(
    length: int, arena: tuple[Payloads, Payloads]
) -> None:
    here, there = arena
    for value in (np.ones(length), [np.ones(length), {1}]):
        payload, held = here.encode_result(value)
        result = there.decode_result(payload)
        array = result if isinstance(result, np.ndarray) else result[0]
        assert not array.flags.writeable
        assert len(held) == (length > 1000)


def test_what_arguments_share_they_share_on_the_other_side() -> None:
    inner: list[Any] = [1]
    (one, other), _ = sent_as_arguments(inner, inner)
    assert one is other
    (one, other), _ = sent_as_arguments(inner, {"a": (inner,)})
    assert other["a"][0] is one
    (one, other, _), _ = sent_as_arguments(inner, Loan(1.0, inner), 3)
    assert other.terms is one
    array = np.ones(3)
    (one, other), _ = sent_as_arguments(array, [array])
    assert other[0] is one


def test_a_value_that_holds_itself_comes_back() -> None:
    value: list[Any] = []
    value.append(value)
    there = sent(value)
    assert there[0] is there


def test_functions_and_classes_that_no_other_process_can_import_go_by_value() -> None:
    base = 10

    class Local:
        factor = 2

        def times(self, n: int) -> int:
            return self.factor * n + base

    there = sent((lambda n: Local().times(n), Local()))
    assert there[0](3) == 16
    assert there[1].times(1) == 12


@pytest.fixture
def arena() -> Iterator[tuple[Payloads, Payloads]]:
    """Two processes' payloads that share an object arena."""
    store = ObjectStore.create(64 << 20)
    other = ObjectStore.attach(store.fd, 1)
    one, two = tables()
    yield Payloads(store, one), Payloads(other, two)
    other.close()
    store.close()


def test_large_bytes_and_text_go_through_the_object_arena(
    arena: tuple[Payloads, Payloads],
) -> None:
    here, there = arena
    values = (b"\0\1" * 50_000, "é" * 50_000, [b"x" * 2000], {"a": "y" * 2000})
    payload, held = here.encode_arguments(values)
    assert len(payload) < 200
    assert len(held) == 4
    assert same(there.decode_arguments(payload)[0], values)


def test_a_large_stream_goes_through_the_object_arena(arena: tuple[Payloads, Payloads]) -> None:
    here, there = arena
    payload, held = here.encode_result({str(n) for n in range(10_000)})
    assert len(payload) < 200
    assert len(held) == 1
    assert there.decode_result(payload) == {str(n) for n in range(10_000)}


def test_an_array_that_lies_in_the_arena_is_sent_on_without_a_copy(
    arena: tuple[Payloads, Payloads],
) -> None:
    here, there = arena
    payload, first = here.encode_result(np.arange(100_000.0).reshape(100, 1000))
    array = there.decode_result(payload)
    for value in (array, array[10:20], [array, {1}], array.T):
        payload, held = there.encode_result(value)
        assert [block.handle for block in held] == [first[0].handle]
        result = here.decode_result(payload)
        result = result[0] if isinstance(result, list) else result
        np.testing.assert_array_equal(result, value[0] if isinstance(value, list) else value)


def test_a_view_keeps_its_object(arena: tuple[Payloads, Payloads]) -> None:
    here, there = arena
    arrays = []
    for n in range(20):
        payload, held = here.encode_result(np.full(1000, n))
        arrays.append(there.decode_result(payload))
        del held
    assert [int(array[0]) for array in arrays] == list(range(20))


def test_a_failed_message_leaves_nothing_behind(arena: tuple[Payloads, Payloads]) -> None:
    here, _ = arena
    before = here.objects.statistics() if here.objects else None
    with pytest.raises(NotSendable):
        here.encode_arguments((b"x" * 5000, threading.Lock()))
    assert here.objects is not None
    assert here.objects.statistics() == before


# References and kernels


def test_a_reference_that_is_an_argument_is_replaced_by_its_result() -> None:
    with Kernel() as kernel:
        ref = kernel.submit(pow, 2, 10)
        table = kernel.put({"a": 1})
        with pytest.raises(UnfinishedReferences) as caught:
            HERE.encode_arguments((ref,), {"again": ref})
        assert caught.value.references == [ref, ref]
        kernel.get(ref)
        assert sent_as_arguments(ref, n=table) == ((1024,), {"n": {"a": 1}})


def test_a_reference_within_a_value_carries_its_result_or_its_error() -> None:
    with Kernel() as kernel:
        good, bad = kernel.submit(pow, 2, 10), kernel.submit(int, "no number")
        with pytest.raises(UnfinishedReferences) as caught:
            HERE.encode_arguments(([good, bad],))
        assert caught.value.references == [good, bad]
        kernel.wait([good, bad], count=2)
        ((there_good, there_bad),), _ = sent_as_arguments([good, bad])
        assert kernel.get(there_good) == 1024
        assert there_good.task_id == good.task_id
        assert there_good.name == good.name
        with pytest.raises(ValueError, match="no number"):
            kernel.get(there_bad)


def test_a_registered_reducer_says_how_a_type_is_sent() -> None:
    class Handle:
        def __init__(self, n: int) -> None:
            self.n = n
            self.lock = threading.Lock()

    register_reducer(Handle, lambda handle: (complex, (handle.n, 1)))
    assert sent(Handle(4)) == 4 + 1j
    assert sent((Handle(4), lambda: 0))[0] == 4 + 1j


def test_an_object_may_send_others_while_it_is_sent() -> None:
    class Busy:
        def __reduce__(self) -> Any:
            return tuple, (sent([{1}, {2}]),)

    assert sent([Busy(), {3}, Busy()]) == [({1}, {2}), {3}, ({1}, {2})]


def test_many_threads_send_at_once() -> None:
    wrong = []

    def send(n: int) -> None:
        for i in range(200):
            value = [{n}, Loan(i, [n]), np.full(3, n)]
            there = sent(value)
            if there[:2] != value[:2] or there[2].tolist() != [n] * 3:
                wrong.append(there)

    threads = [threading.Thread(target=send, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    assert wrong == []


# A result that is sent on


def test_a_pickled_result_can_stay_as_it_was_sent() -> None:
    payload, _ = HERE.encode_result(Loan(1.0, [2]))
    late = THERE.decode_result(payload, lazily=True)
    assert not late.is_decoded
    assert THERE.encode_result(late)[0] == payload
    assert late.get() == Loan(1.0, [2])
    assert late.get() is late.get()
    assert THERE.decode_result(HERE.encode_result([1, 2])[0], lazily=True) == [1, 2]


def test_a_result_that_stays_as_it_was_sent_keeps_its_objects(
    arena: tuple[Payloads, Payloads],
) -> None:
    here, there = arena
    payload, held = here.encode_result([np.arange(1000), {1}])
    late = there.decode_result(payload, lazily=True)
    del held
    for n in range(10):
        here.encode_result(np.full(1000, n))
    np.testing.assert_array_equal(late.get()[0], np.arange(1000))


def test_an_array_in_the_arena_stays_there_until_it_is_used(
    arena: tuple[Payloads, Payloads],
) -> None:
    here, there = arena
    payload, _ = here.encode_result(np.arange(1000.0).reshape(10, 100))
    late = there.decode_result(payload, lazily=True)
    assert not late.is_decoded
    assert there.encode_result(late)[0] == payload
    np.testing.assert_array_equal(late.get(), np.arange(1000.0).reshape(10, 100))


def test_a_short_array_is_read_at_once_whatever_is_in_it(
    arena: tuple[Payloads, Payloads],
) -> None:
    here, there = arena
    for byte in range(256):
        for n in (1, 13, 21, 25, 100):
            payload, _ = here.encode_result(np.full(n, byte, "u1"))
            assert there.decode_result(payload, lazily=True).tolist() == [byte] * n


# What cannot be sent


class Connection:
    def __init__(self) -> None:
        self.settings = {"retries": 3, "guards": [1, threading.Lock()]}


def test_the_part_that_cannot_be_sent_is_named() -> None:
    connection = Connection()
    with pytest.raises(NotSendable, match="item 1 of entry 'guards' of attribute 'settings'"):
        HERE.encode_result(connection)

    def work() -> object:
        return connection.settings

    with pytest.raises(NotSendable, match=r"function .*work cannot .* of variable 'connection'"):
        HERE.encode_result(work)
    assert sent(3) == 3


def test_a_value_that_is_nested_too_deep_is_refused() -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(NotSendable, match="item 0 of item 0 of … of item 0 of item 0 is a "):
        HERE.encode_result(value)
    while value:  # or its end would be as deep
        value = value[0]


def test_an_object_whose_own_code_fails_is_named() -> None:
    class Evil:
        def __reduce__(self) -> Any:
            raise ZeroDivisionError("evil")

        def __getstate__(self) -> Any:
            raise ZeroDivisionError("evil")

    with pytest.raises(NotSendable, match="evil") as caught:
        HERE.encode_arguments((1, [Evil()]))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_value_without_end_is_refused() -> None:
    class Endless:
        def __reduce__(self) -> Any:
            return Endless, (Endless(),)

    with pytest.raises(NotSendable):
        HERE.encode_result(Endless())


def test_a_value_that_cannot_be_rebuilt_says_why() -> None:
    class Broken:
        def __reduce__(self) -> Any:
            return int, ("no number",)

    payload, _ = HERE.encode_result(Broken())
    with pytest.raises(NotRebuilt, match="no number") as caught:
        THERE.decode_result(payload)
    assert isinstance(caught.value.__cause__, ValueError)


# Damage


def readable(read: Callable[[bytes], Any], payload: bytes) -> bool:
    try:
        read(payload)
    except NotRebuilt:
        return False
    return True


@given(payload=st.binary(max_size=200))
@settings(max_examples=200)
def test_random_bytes_give_a_clear_error_or_a_value(payload: bytes) -> None:
    for read in (
        THERE.decode_result,
        THERE.decode_arguments,
        THERE.decode_function,
        THERE.decode_error,
    ):
        readable(read, payload)


@given(
    args=st.lists(VALUES, min_size=1, max_size=3), where=st.floats(0, 1), byte=st.integers(0, 255)
)
@settings(max_examples=150)
def test_a_changed_byte_gives_a_clear_error_or_a_value(
    args: list[Any], where: float, byte: int
) -> None:
    payload = bytearray(HERE.encode_arguments(tuple(args))[0])
    payload[int(where * (len(payload) - 1))] = byte
    readable(THERE.decode_arguments, bytes(payload))


@given(where=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_changed_bit_of_a_pickle_is_noticed_before_it_is_read(where: int, bit: int) -> None:
    payload = bytearray(HERE.encode_result([Loan(1.0, [2]), {3}])[0])
    payload[where % len(payload)] ^= 1 << bit
    assert not readable(THERE.decode_result, bytes(payload))


@pytest.mark.parametrize(
    "args", [(1, "abc", (2.0, b"x")), (Loan(1.0, [2]), 3), (np.arange(3), {"k": [2**80]})]
)
def test_a_truncated_payload_is_refused_at_every_length(args: tuple[Any, ...]) -> None:
    payload, _ = HERE.encode_arguments(args, {"name": "value"})
    assert readable(THERE.decode_arguments, payload)
    for length in range(1, len(payload)):
        assert not readable(THERE.decode_arguments, payload[:length]), length
    assert not readable(THERE.decode_arguments, payload + b"\0")


def test_a_payload_that_nests_without_end_is_refused() -> None:
    for step in (b"\x8d\x01", b"\x8e\x01"):
        with pytest.raises(PayloadDamaged):
            THERE.decode_result(step * 50_000)


def test_an_object_that_is_not_there_is_refused(arena: tuple[Payloads, Payloads]) -> None:
    here, there = arena
    payload, held = here.encode_result(b"x" * 5000)
    beyond = payload[:-8] + struct.pack("Q", 1 << 40)
    with pytest.raises(KernelError):
        there.decode_result(beyond)
    with pytest.raises(KernelError):
        there.decode_result(payload[:1] + struct.pack("Q", 0xFFFFFFFF) + payload[9:])
    with pytest.raises(PayloadDamaged):
        THERE.decode_result(payload)
    del held


# In another process indeed

CHILD = """
import mmap, sys
from microkernel.objects.store import ObjectStore
from microkernel.processes.function_table import FunctionTable
from microkernel.processes.payload import Payloads

table_fd, arena_fd = map(int, sys.argv[1:])
table = FunctionTable.over(mmap.mmap(table_fd, 2 << 20), 1, stations=2)
payloads = Payloads(ObjectStore.attach(arena_fd, 1), table)
function, value = payloads.decode_arguments(sys.stdin.buffer.read())[0]
result, held = payloads.encode_result(function(value))
sys.stdout.buffer.write(result)
sys.stdout.buffer.flush()
"""


def called_elsewhere(function: Callable[[Any], Any], value: Any) -> Any:
    """``function(value)`` in a fresh process that shares a function table and an object arena."""
    table_fd = os.memfd_create("table")
    os.ftruncate(table_fd, 2 << 20)
    store = ObjectStore.create(64 << 20)
    try:
        table = FunctionTable.over(mmap.mmap(table_fd, 2 << 20), 0, stations=2)
        payloads = Payloads(store, table)
        payload, held = payloads.encode_arguments((function, value))
        done = subprocess.run(
            [sys.executable, "-c", CHILD, str(table_fd), str(store.fd)],
            input=payload,
            capture_output=True,
            check=False,
            timeout=60,
            cwd=REPOSITORY,
            pass_fds=(table_fd, store.fd),
        )
        assert done.returncode == 0, done.stderr.decode()
        del held
        return payloads.decode_result(done.stdout)
    finally:
        os.close(table_fd)


class Local:
    """Known to the test run only: its module is hidden from the other process."""

    calls = 0

    def __init__(self, values: Any) -> None:
        self.values = values


def test_an_object_of_a_class_that_only_this_process_has_comes_back_as_one_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Local, "__module__", "__main__")
    monkeypatch.setattr(Local, "calls", 5)

    def doubled(one: Local) -> Local:
        return type(one)(one.values * 2 + one.calls)

    result = called_elsewhere(doubled, Local(np.arange(3)))
    assert type(result) is Local
    assert result.values.tolist() == [5, 7, 9]
    assert Local.calls == 5


def test_a_module_made_by_hand_goes_by_value(monkeypatch: pytest.MonkeyPatch) -> None:
    module = type(sys)("made_by_hand")
    exec("def triple(n):\n    return [factor * n]\nfactor = 3", module.__dict__)
    monkeypatch.setitem(sys.modules, "made_by_hand", module)
    assert called_elsewhere(module.triple, 5) == [15]


def test_pickle_itself_is_what_other_processes_read() -> None:
    assert called_elsewhere(pickle.dumps, {1}) == pickle.dumps({1})
