"""Bits, and how far apart two floats are."""

import math
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from timemachine.ulps import bit_view, compare, ulps_between


def float_of(bits):
    return struct.unpack("<d", struct.pack("<Q", bits))[0]


FLOATS = st.floats(allow_nan=True, allow_infinity=True)


@given(FLOATS)
def test_a_float_has_the_bits_of_itself(value):
    assert compare(value, float_of(struct.unpack("<Q", struct.pack("<d", value))[0])).bits_equal


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(1, 50))
def test_the_distance_counts_the_floats_between(value, steps):
    other = value
    for _ in range(steps):
        other = math.nextafter(other, math.inf)
    if math.isinf(other):
        return
    assert compare(value, other).max_ulps == steps


@given(FLOATS, FLOATS)
def test_the_distance_of_scalars_and_of_arrays_is_one(a, b):
    scalar = compare(a, b)
    array = compare(np.array([a]), np.array([b]))
    assert (scalar.bits_equal, scalar.max_ulps) == (array.bits_equal, array.max_ulps)


@given(arrays(np.float32, array_shapes(max_dims=3), elements=st.floats(width=32)), st.data())
def test_the_first_difference_of_an_array_is_named(array, data):
    index = data.draw(st.tuples(*(st.integers(0, size - 1) for size in array.shape)))
    changed = array.copy()
    changed.view(np.uint32)[index] ^= 1
    assert compare(array, changed).first == index
    assert compare(array, array.copy()).bits_equal


def test_not_a_number_is_equal_only_with_the_same_payload():
    quiet, other = float_of(0x7FF8000000000000), float_of(0x7FF8000000000001)
    assert compare(quiet, quiet).bits_equal
    assert compare(quiet, other) == compare(np.float64(quiet), np.float64(other))
    assert compare(quiet, other).max_ulps is None


def test_the_two_zeros_differ_in_bits_and_not_in_distance():
    assert compare(0.0, -0.0).bits_equal is False
    assert compare(0.0, -0.0).max_ulps == 0
    assert compare(-5e-324, 5e-324).max_ulps == 2


def test_the_greatest_float_is_as_far_from_its_negative_as_there_are_floats():
    greatest = np.array([np.finfo(np.float64).max])
    assert ulps_between(greatest, -greatest) == 2 * 0x7FEFFFFFFFFFFFFF


def test_half_precision_is_counted_in_its_own_units():
    a = np.array([1.0], np.float16)
    assert compare(a, np.nextafter(a, np.float16(2))).max_ulps == 1


def test_big_endian_and_strided_arrays_are_compared_by_value():
    a = np.arange(12, dtype=">f8").reshape(3, 4)[:, ::2]
    b = a.copy()
    b[2, 1] = np.nextafter(10.0, 11)
    assert compare(a, a.copy()).bits_equal
    assert compare(a, b).first == (2, 1)
    assert compare(a, b).max_ulps == 1


def test_complex_numbers_are_compared_by_their_parts():
    a = np.array([1 + 2j])
    b = np.array([complex(1, math.nextafter(2, 3))])
    assert compare(a, b).max_ulps == 1
    assert compare(1 + 2j, complex(1, math.nextafter(2, 3))).max_ulps == 1


def test_long_doubles_are_compared_without_their_padding():
    a = np.array([1.5], np.longdouble)
    b = a.copy()
    if a.dtype.itemsize == 16:
        b.view(np.uint8)[12] ^= 0xFF
    assert compare(a, b).bits_equal
    assert not compare(a, np.nextafter(a, np.longdouble(2))).bits_equal


@pytest.mark.parametrize(
    ("recorded", "replayed", "first"),
    [
        ({"p": [0.5, 0.25]}, {"p": [0.5, 0.75]}, ("p", 1)),
        ({"p": 1.0}, {"q": 1.0}, ("p",)),
        ((1, "a"), (1, "b"), (1,)),
        ([1, 2], [1, 2, 3], (2,)),
        (1, 1.0, ()),
        (1, True, ()),
        (np.float32(1), np.float64(1), ()),
        (np.zeros(2), np.zeros(3), ()),
        (np.array(["a", "b"]), np.array(["a", "c"]), (1,)),
        (np.array([1, "a"], object), np.array([1, "b"], object), (1,)),
        (None, False, ()),
    ],
)
def test_the_path_to_the_first_difference_is_given(recorded, replayed, first):
    found = compare(recorded, replayed)
    assert found.first == first
    assert not found.bits_equal
    assert compare(recorded, recorded).bits_equal


def test_a_text_beside_a_float_leaves_no_distance():
    assert compare([1.0, "a"], [math.nextafter(1.0, 2), "b"]).max_ulps is None
    assert compare([1.0, "a"], [math.nextafter(1.0, 2), "a"]).max_ulps == 1


def test_scalars_have_bits_too():
    assert bit_view(np.float64(1.0)).tolist() == [0x3FF0000000000000]
