"""What is recorded comes back as exactly what the program saw, and hostile bytes do no harm."""

from __future__ import annotations

import contextlib
import datetime
import decimal
import math
import struct
import uuid
import zoneinfo
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from microkernel import ValueNotRecordable
from microkernel.values import decode, decode_all, encode, register

ZONES = st.one_of(
    st.none(),
    st.just(datetime.UTC),
    st.integers(-86399, 86399).map(lambda s: datetime.timezone(datetime.timedelta(seconds=s))),
    st.integers(-1439, 1439).map(lambda m: datetime.timezone(datetime.timedelta(minutes=m), "X")),
)
NAMED_ZONES = st.sampled_from(["Europe/Berlin", "America/New_York"]).map(zoneinfo.ZoneInfo)
KEYS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(),
    st.binary(),
    st.dates(),
    st.uuids(),
)
SCALARS = st.one_of(
    KEYS,
    st.floats(),
    st.complex_numbers(),
    st.datetimes(timezones=ZONES, allow_imaginary=True),
    st.datetimes(timezones=NAMED_ZONES),
    st.times(timezones=ZONES),
    st.timedeltas(),
    st.decimals(),
)
DTYPES = st.one_of(
    npst.boolean_dtypes(),
    npst.integer_dtypes(),
    npst.unsigned_integer_dtypes(),
    npst.floating_dtypes(),
    npst.complex_number_dtypes(),
    npst.datetime64_dtypes(),
    npst.timedelta64_dtypes(),
    npst.byte_string_dtypes(min_len=1),
    npst.unicode_string_dtypes(min_len=1),
)
ARRAYS = npst.arrays(DTYPES, npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
VALUES = st.recursive(
    st.one_of(SCALARS, ARRAYS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(KEYS, inner, max_size=4),
        st.sets(KEYS, max_size=4),
        st.frozensets(KEYS, max_size=4),
    ),
    max_leaves=12,
)


def same(a: Any, b: Any) -> bool:
    """Equal in type, in value, and in the bits of every number."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return struct.pack("d", a) == struct.pack("d", b)
    if isinstance(a, complex):
        return same(a.real, b.real) and same(a.imag, b.imag)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return same(list(a.items()), list(b.items()))
    if isinstance(a, set | frozenset):
        return same(sorted(a, key=encode), sorted(b, key=encode))
    if isinstance(a, np.ndarray):
        return (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    if isinstance(a, np.generic):
        return a.dtype == b.dtype and a.tobytes() == b.tobytes()
    if isinstance(a, datetime.datetime | datetime.time):
        return (a.replace(tzinfo=None), a.fold, repr(a.tzinfo)) == (
            b.replace(tzinfo=None),
            b.fold,
            repr(b.tzinfo),
        )
    if isinstance(a, decimal.Decimal):
        return a.as_tuple() == b.as_tuple()
    return bool(a == b)


@settings(max_examples=400, deadline=None)
@given(VALUES)
def test_a_value_comes_back_with_its_exact_type_and_bits(value: Any) -> None:
    assert same(decode(encode(value)), value)


@given(DTYPES.flatmap(lambda dtype: npst.arrays(dtype, 3)))
def test_numpy_scalars_come_back_with_their_type_and_bits(array: Any) -> None:
    for scalar in array:
        assert same(decode(encode(scalar)), scalar)


@pytest.mark.parametrize("scalar", [np.str_(""), np.str_("a\0"), np.bytes_(b""), np.bytes_(b"a\0")])
def test_numpy_text_keeps_its_ends(scalar: np.generic) -> None:
    assert same(decode(encode(scalar)), scalar)


@pytest.mark.parametrize("value", [np.longdouble("0.1"), np.array([[1, 2]], ">i4"), np.array(7)])
def test_unusual_numpy_values_come_back(value: Any) -> None:
    assert same(decode(encode(value)), value)


def test_the_memory_order_of_an_array_is_kept() -> None:
    array = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    back = decode(encode(array))
    assert isinstance(back, np.ndarray)
    assert back.flags.f_contiguous
    assert not back.flags.c_contiguous
    assert back.flags.writeable
    assert (back == array).all()


@pytest.mark.parametrize(
    "n", [0, 127, 128, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**63, 2**64 - 1, 2**64, 2**200]
)
def test_integers_at_the_edges_of_their_encodings_come_back(n: int) -> None:
    for value in (n, -n, -n - 1, -n + 1):
        assert same(decode(encode(value)), value)


@pytest.mark.parametrize("n", [0, 15, 16, 31, 32, 255, 256, 65535, 65536])
def test_lengths_at_the_edges_of_their_encodings_come_back(n: int) -> None:
    for value in ("x" * n, b"x" * n, [None] * n, (None,) * n, dict.fromkeys(range(n))):
        assert same(decode(encode(value)), value)


def test_a_nan_keeps_its_payload() -> None:
    odd = struct.unpack("d", struct.pack("Q", 0x7FF8000000000123))[0]
    assert struct.pack("d", decode(encode(odd))) == struct.pack("d", odd)  # type: ignore[arg-type]
    assert math.copysign(1, decode(encode(-0.0))) == -1  # type: ignore[arg-type]


@given(st.sets(KEYS, max_size=6))
def test_equal_sets_have_equal_bytes(members: set[Any]) -> None:
    other: set[Any] = set()
    for member in sorted(members, key=encode, reverse=True):
        other.add(member)
    assert encode(members) == encode(other)


@settings(deadline=None)
@given(VALUES)
def test_any_msgpack_library_reads_what_is_written(value: Any) -> None:
    msgpack.unpackb(
        encode(value),
        strict_map_key=False,
        ext_hook=lambda code, data: (code, data),
        use_list=False,
    )


PLAIN = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), st.text(),
        st.binary(),
    ),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)  # fmt: skip


@given(PLAIN)
def test_plain_data_is_plain_msgpack(value: Any) -> None:
    assert same(msgpack.unpackb(encode(value)), value)
    assert same(decode(msgpack.packb(value)), value)


class Money:
    """A type with a codec of its own."""

    def __init__(self, cents: int) -> None:
        self.cents = cents


def test_a_registered_type_is_recorded() -> None:
    register(Money, "money", lambda m: str(m.cents).encode(), lambda raw: Money(int(raw)))
    back = decode(encode({"due": Money(1250)}))
    assert isinstance(back, dict)
    assert back["due"].cents == 1250
    with pytest.raises(ValueError, match="malformed"):
        decode(encode(Money(1)).replace(b"\xc4\x011", b"\xc4\x01x"))


def test_the_name_of_a_codec_belongs_to_one_type() -> None:
    register(Money, "money", lambda m: str(m.cents).encode(), lambda raw: Money(int(raw)))
    with pytest.raises(ValueNotRecordable, match="money"):
        register(int, "money", lambda n: b"", lambda raw: 0)


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (object(), "builtins.object"),
        ({"rows": [1, lambda: 0]}, "builtins.function"),
        (np.array([object()]), "numpy.ndarray of dtype object"),
        (np.zeros(2, dtype=[("a", "f8")]), "numpy.ndarray of dtype"),
        (np.array(["text"], dtype=np.dtypes.StringDType()), "numpy.ndarray of dtype StringDType"),
        (np.ma.masked_array([1, 2]), "MaskedArray"),
        (range(3), "builtins.range"),
        (datetime.datetime.max.replace(tzinfo=type("Zone", (datetime.tzinfo,), {})()), "Zone"),
    ],
)
def test_what_cannot_be_recorded_is_named(value: object, named: str) -> None:
    with pytest.raises(ValueNotRecordable) as caught:
        encode(value)
    assert named in str(caught.value)
    assert caught.value.remedy


def test_an_error_does_not_repeat_the_text_it_is_about() -> None:
    with pytest.raises(ValueNotRecordable) as caught:
        encode("secret \ud800")
    assert "secret" not in str(caught.value) + caught.value.what


def nested(wrap: Any, depth: int, core: Any = 7) -> Any:
    for _ in range(depth):
        core = wrap(core)
    return core


@pytest.mark.parametrize(
    "wrap",
    [lambda x: [x], lambda x: (x,), lambda x: {"k": x}, lambda x: frozenset([x])],
    ids=["list", "tuple", "dict", "frozenset"],
)
def test_nesting_is_bounded_and_everything_within_the_bound_comes_back(wrap: Any) -> None:
    depth = 32 if isinstance(wrap(1), frozenset) else 64
    assert decode(encode(nested(wrap, depth))) == nested(wrap, depth)
    with pytest.raises(ValueNotRecordable, match="deep"):
        encode(nested(wrap, 65))
    with pytest.raises(ValueNotRecordable, match="deep"):
        encode(nested(wrap, 50_000))


def test_a_value_that_holds_itself_is_refused() -> None:
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(ValueNotRecordable):
        encode(circle)


SAMPLE = encode(
    {
        "list": [1, -1, 2.5, None, True, "text", b"bytes", 2**70],
        "tuple": (1, (2,)),
        "sets": [{1}, frozenset({2})],
        "arrays": [np.arange(6).reshape(2, 3), np.float32(1)],
        "times": [
            datetime.datetime(2026, 1, 2, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")),
            datetime.date(2026, 1, 2),
            datetime.time(1, 2),
            datetime.timedelta(1),
        ],
        "more": [decimal.Decimal("1.5"), uuid.UUID(int=5), 1j],
    }
)


def test_a_value_cut_short_anywhere_is_an_error() -> None:
    assert decode(SAMPLE)
    for end in range(len(SAMPLE)):
        with pytest.raises(ValueError):  # noqa: PT011 (any of many reasons)
            decode(SAMPLE[:end])


def test_bytes_left_over_are_an_error() -> None:
    with pytest.raises(ValueError, match="left over"):
        decode(SAMPLE + b"\xc0")
    assert len(decode_all(SAMPLE + b"\xc0")) == 2


def decodes_or_refuses(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        decode(data)


@settings(max_examples=1000, deadline=None)
@given(st.data())
def test_altered_bytes_never_do_more_than_raise_a_value_error(data: st.DataObject) -> None:
    raw = bytearray(SAMPLE)
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    decodes_or_refuses(bytes(raw))


@settings(max_examples=1000)
@given(st.binary(max_size=60))
def test_any_bytes_never_do_more_than_raise_a_value_error(data: bytes) -> None:
    decodes_or_refuses(data)


def extension(kind: int, *members: object) -> bytes:
    payload = encode(list(members))
    return bytes([0xC7, len(payload), kind]) + payload


@pytest.mark.parametrize(
    "data",
    [
        extension(7, "2026-01-01T00:00:00", "America", 0),
        extension(7, "2026-01-01T00:00:00", "../../etc/passwd", 0),
        extension(7, "2026-01-01T00:00:00", "No/Where", 0),
        extension(7, "2026-01-01T00:00:00", 5, 7),
        extension(7, "2026-01-01T00:00:00", ["x"], 0),
        extension(5, "<f8", [10**15], "C", b""),
        extension(5, "<f8", [-1, -1], "C", b"12345678"),
        extension(5, "O", [1], "C", b"12345678"),
        extension(5, "|S0", [2**40], "C", b""),
        extension(5, {"names": ["a"]}, [1], "C", b""),
        extension(5, "<f8", [1], "X", b"12345678"),
        extension(6, "<f8", b""),
        extension(10, 10**20),
        extension(2, [1]),
        extension(14, "nobody", b""),
        extension(99),
        b"\x81\x90\x00",
        b"\xa1\xff",
        b"\xc1",
    ],
)
def test_hostile_extensions_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (any of many reasons)
        decode(data)


@pytest.mark.parametrize("tag", [b"\xdd", b"\xdf", b"\xc6", b"\xdb", b"\xc9"])
def test_a_huge_claimed_length_allocates_nothing(tag: bytes) -> None:
    import tracemalloc

    data = tag + b"\xff\xff\xff\xff" + bytes(100)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError):  # noqa: PT011 (worded by tag)
            decode(data)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("level", [b"\x91", b"\x81\x00", b"\xc7\xff\x01\x91"])
def test_deep_hostile_nesting_ends_in_an_error(level: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (worded by level)
        decode(level * 100_000 + b"\xc0")
