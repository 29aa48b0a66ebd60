"""The codec of recorded values: plain msgpack, with extension types where msgpack would forget.

A recorded value must come back as *exactly* what the program saw: a tuple as a tuple, an integer of
any size, ``numpy.float32(0.1)`` with its type and bits. So this writes standard msgpack
(https://github.com/msgpack/msgpack/blob/master/spec.md) that any library reads, and uses
application extension types for the rest. Never pickle: an auditor may open a stranger's store, and
decoding runs no code of the store's.

Extension types: 1 tuple, 2 set, 3 frozenset, 4 integer beyond 64 bits (two's complement,
big-endian), 5 ndarray [dtype, shape, order "C" or "F", bytes], 6 NumPy scalar [dtype, bytes],
7 datetime [ISO 8601, zone, fold], 8 date, 9 time [ISO 8601, zone, fold] (zone: the IANA name, the
name of a fixed offset in a list, or nil), 10 timedelta [days, seconds, microseconds], 11 Decimal,
12 UUID, 13 complex [real, imaginary], 14 a registered codec [name, bytes]. Sets are written in the
order of their members' encodings, so equal values have equal bytes.
"""
import datetime
import sys

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memmove

from microkernel.errors import ValueNotRecordable

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL
    long long PyLong_AsLongLongAndOverflow(object n, int *overflow) except? -1

cdef enum:
    MAX_DEPTH = 64

cdef str _DATA_KINDS = "biufcmMSU"     # the NumPy types whose bytes are their values

cdef dict _encoders = {}
cdef dict _decoders = {}


def register(type cls, str name, encode, decode):
    """Register a codec for ``cls``: ``encode(value) -> bytes`` and ``decode(bytes) -> value``.

    The type is matched exactly, not through inheritance. Raises ``ValueNotRecordable`` when the
    name is taken by another type.
    """
    known = _decoders.get(name)
    if known is not None and known[0] is not cls:
        raise ValueNotRecordable(
            f"the codec name {name!r} belongs to {known[0].__qualname__}",
            what=name, expected="a name of its own", remedy="choose another name")
    _encoders[cls] = (name, encode)
    _decoders[name] = (cls, decode)


def encode(value):
    """The bytes of ``value``; raises ``ValueNotRecordable`` when it, or a part of it, has no codec.

    >>> decode(encode({"income": 4.2, "terms": (12, 24)}))
    {'income': 4.2, 'terms': (12, 24)}
    """
    return encode_at(value, 0)


def decode(bytes data not None):
    """The value whose bytes these are; raises ``ValueError`` on anything malformed or left over."""
    cdef Cursor c
    c.at = <const unsigned char *>PyBytes_AS_STRING(data)
    c.end = c.at + PyBytes_GET_SIZE(data)
    value = read_value(&c, 0)
    if c.at != c.end:
        raise ValueError(f"{c.end - c.at} bytes are left over after the value")
    return value


def decode_all(bytes data not None):
    """The list of values that stand one after the other in these bytes; raises ``ValueError``."""
    cdef Cursor c
    c.at = <const unsigned char *>PyBytes_AS_STRING(data)
    c.end = c.at + PyBytes_GET_SIZE(data)
    values = []
    while c.at != c.end:
        values.append(read_value(&c, 0))
    return values


cdef int grow(Writer *w, size_t n) except -1:
    cdef size_t capacity = max(2 * w.capacity, w.length + n, <size_t>512)
    cdef unsigned char *data = <unsigned char *>realloc(w.data, capacity)
    if data == NULL:
        raise MemoryError()
    w.data = data
    w.capacity = capacity
    return 0


cdef int put_length(Writer *w, size_t n, int tag8, int tag16, int tag32) except -1:
    if n < 0x100 and tag8:
        return put_tagged(w, <unsigned char>tag8, n, 1)
    if n < 0x10000:
        return put_tagged(w, <unsigned char>tag16, n, 2)
    if n < 0x100000000ULL:
        return put_tagged(w, <unsigned char>tag32, n, 4)
    raise ValueNotRecordable(
        f"a part of the value has {n} bytes or members", what=str(n), expected="fewer than 2**32",
        remedy="store it as a file and record its digest")


cdef int write_long_array_header(Writer *w, size_t n) except -1:
    return put_length(w, n, 0, 0xdc, 0xdd)


cdef int write_long_uint(Writer *w, unsigned long long n) except -1:
    if n < 0x100:
        return put_tagged(w, 0xcc, n, 1)
    if n < 0x10000:
        return put_tagged(w, 0xcd, n, 2)
    if n < 0x100000000ULL:
        return put_tagged(w, 0xce, n, 4)
    return put_tagged(w, 0xcf, n, 8)


cdef int write_int(Writer *w, object value) except -1:
    cdef int overflow
    cdef long long n = PyLong_AsLongLongAndOverflow(value, &overflow)
    cdef bytes raw
    if overflow == 0:
        if n >= 0:
            return write_uint(w, <unsigned long long>n)
        if n >= -32:
            return put_tagged(w, <unsigned char>(n & 0xff), 0, 0)
        if n >= -0x80:
            return put_tagged(w, 0xd0, <uint64_t>n, 1)
        if n >= -0x8000:
            return put_tagged(w, 0xd1, <uint64_t>n, 2)
        if n >= -0x80000000LL:
            return put_tagged(w, 0xd2, <uint64_t>n, 4)
        return put_tagged(w, 0xd3, <uint64_t>n, 8)
    if overflow > 0 and value < 18446744073709551616:
        return write_uint(w, <unsigned long long>value)
    raw = value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)
    return write_extension(w, 4, raw)


cdef int write_double(Writer *w, double value) except -1:
    cdef uint64_t bits
    memcpy(&bits, &value, 8)
    return put_tagged(w, 0xcb, bits, 8)


cdef int write_text(Writer *w, str text) except -1:
    cdef Py_ssize_t n
    cdef const char *raw
    try:
        raw = PyUnicode_AsUTF8AndSize(text, &n)
    except UnicodeEncodeError:
        raise ValueNotRecordable(
            "a text holds lone surrogates", what="str", expected="valid Unicode",
            remedy="record the bytes instead") from None
    if n < 32:
        put_tagged(w, <unsigned char>(0xa0 | n), 0, 0)
    else:
        put_length(w, n, 0xd9, 0xda, 0xdb)
    return write_raw(w, raw, n)


cdef int write_binary(Writer *w, const void *data, size_t n) except -1:
    put_length(w, n, 0xc4, 0xc5, 0xc6)
    return write_raw(w, data, n)


cdef int write_extension(Writer *w, unsigned char kind, bytes payload) except -1:
    put_length(w, len(payload), 0xc7, 0xc8, 0xc9)
    put_tagged(w, kind, 0, 0)
    return write_raw(w, PyBytes_AS_STRING(payload), len(payload))


cdef int write_members(Writer *w, object values, int depth) except -1:
    write_array_header(w, len(values))
    for member in values:
        write_value(w, member, depth)
    return 0


cdef bytes encode_members(object values, int depth):
    cdef Writer w
    w.data = NULL
    w.length = w.capacity = 0
    try:
        write_members(&w, values, depth)
        return PyBytes_FromStringAndSize(<char *>w.data, w.length)
    finally:
        free(w.data)


cdef int write_value(Writer *w, object value, int depth) except -1:
    cdef type kind = type(value)
    if kind is float:
        return write_double(w, value)
    if kind is int:
        return write_int(w, value)
    if kind is str:
        return write_text(w, value)
    if value is None:
        return put_tagged(w, 0xc0, 0, 0)
    if kind is bool:
        return put_tagged(w, 0xc3 if value else 0xc2, 0, 0)
    if kind is bytes:
        return write_binary(w, PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))
    if depth >= MAX_DEPTH:
        raise ValueNotRecordable(
            f"the value is nested more than {MAX_DEPTH} deep, or holds itself",
            what=kind.__qualname__, expected=f"at most {MAX_DEPTH} levels",
            remedy="record a flatter value")
    if kind is list:
        return write_members(w, value, depth + 1)
    if kind is dict:
        put_map_header(w, len(value))
        for key, member in (<dict>value).items():
            write_value(w, key, depth + 1)
            write_value(w, member, depth + 1)
        return 0
    if kind is tuple:
        return write_tuple(w, value, depth + 1)
    return write_other(w, value, kind, depth + 1)


cdef int write_tuple(Writer *w, tuple value, int depth) except -1:
    """Extension 1, written in place: its length is known only once the members are there."""
    cdef size_t start = w.length
    cdef size_t n
    cdef int width, i
    reserve(w, 3)
    w.length += 3
    write_members(w, value, depth)
    n = w.length - start - 3
    width = 1 if n < 0x100 else 2 if n < 0x10000 else 4
    if n >= 0x100000000ULL:
        put_length(w, n, 0, 0, 0)       # raises
    if width > 1:
        reserve(w, 3)
        memmove(w.data + start + 2 + width, w.data + start + 3, n)
    w.data[start] = 0xc7 if width == 1 else 0xc8 if width == 2 else 0xc9
    for i in range(width):
        w.data[start + 1 + i] = <unsigned char>(n >> (8 * (width - 1 - i)))
    w.data[start + 1 + width] = 1
    w.length = start + 2 + width + n
    return 0


cdef int put_map_header(Writer *w, size_t n) except -1:
    if n < 16:
        return put_tagged(w, <unsigned char>(0x80 | n), 0, 0)
    return put_length(w, n, 0, 0xde, 0xdf)


cdef int write_other(Writer *w, object value, type kind, int depth) except -1:
    if kind is set or kind is frozenset:
        members = sorted([encode_at(member, depth) for member in value])
        count = encode_array_header(len(members))
        return write_extension(w, 2 if kind is set else 3, count + b"".join(members))
    if kind is complex:
        return write_extension(w, 13, encode_members([value.real, value.imag], depth))
    if kind is datetime.datetime:
        zone = zone_name(value)
        return write_extension(w, 7, encode_members(
            [value.replace(tzinfo=None).isoformat() if type(zone) is str else value.isoformat(),
             zone, value.fold], depth))
    if kind is datetime.date:
        return write_extension(w, 8, value.isoformat().encode())
    if kind is datetime.time and (value.tzinfo is None or fixed_zone(value)):
        return write_extension(w, 9, encode_members(
            [value.isoformat(), zone_name(value), value.fold], depth))
    if kind is datetime.timedelta:
        return write_extension(w, 10, encode_members(
            [value.days, value.seconds, value.microseconds], depth))
    registered = _encoders.get(kind)
    if registered is not None:
        return write_extension(w, 14, encode_members([registered[0], registered[1](value)], depth))
    module = kind.__module__
    if module == "decimal" and kind.__qualname__ == "Decimal":
        return write_extension(w, 11, str(value).encode())
    if module == "uuid" and kind.__qualname__ == "UUID":
        return write_extension(w, 12, value.bytes)
    what = f"{module}.{kind.__qualname__}"
    if module == "numpy":
        numpy = sys.modules["numpy"]
        if kind is numpy.ndarray or isinstance(value, numpy.generic):
            what += f" of dtype {value.dtype}"
            if value.dtype.kind in _DATA_KINDS and (value.dtype.itemsize or kind != numpy.ndarray):
                if kind is numpy.ndarray:
                    # Memory order is kept: the same product over the other order has other bits.
                    order = "F" if value.flags.fnc else "C"
                    return write_extension(w, 5, encode_members(
                        [value.dtype.str, list(value.shape), order, value.tobytes(order)], depth))
                return write_extension(w, 6, encode_members(
                    [value.dtype.str, scalar_bytes(value)], depth))
    raise ValueNotRecordable(
        f"a value of type {what} cannot be recorded", what=what,
        expected="scalars, text, bytes, dates, lists, tuples, dicts, sets, NumPy arrays",
        remedy="return plain data, or call microkernel.values.register for the type")


cdef bytes scalar_bytes(object value):
    """The bytes of a NumPy scalar; of text the text itself, because an array of one such element
    would lose its trailing NULs."""
    if value.dtype.kind == "S":
        return bytes(value)
    if value.dtype.kind == "U":
        return value.encode("utf-8", "surrogatepass")
    return value.tobytes()


cdef bytes encode_at(object value, int depth):
    cdef Writer w
    w.data = NULL
    w.length = w.capacity = 0
    try:
        write_value(&w, value, depth)
        return PyBytes_FromStringAndSize(<char *>w.data, w.length)
    finally:
        free(w.data)


cdef bytes encode_array_header(size_t n):
    cdef Writer w
    w.data = NULL
    w.length = w.capacity = 0
    try:
        write_array_header(&w, n)
        return PyBytes_FromStringAndSize(<char *>w.data, w.length)
    finally:
        free(w.data)


cdef object zone_name(object moment):
    """The IANA name of a ``zoneinfo`` time zone; [name] of a fixed offset that was given a name;
    None for naive times and other fixed offsets."""
    zone = moment.tzinfo
    if zone is None or zone is datetime.timezone.utc:
        return None
    if fixed_zone(moment):
        name = zone.tzname(None)
        return None if datetime.timezone(zone.utcoffset(None)).tzname(None) == name else [name]
    zoneinfo = sys.modules.get("zoneinfo")
    if zoneinfo is None or type(zone) is not zoneinfo.ZoneInfo or zone.key is None:
        raise ValueNotRecordable(
            f"the time zone {type(zone).__qualname__} cannot be recorded",
            what=type(zone).__qualname__, expected="datetime.timezone or zoneinfo.ZoneInfo",
            remedy="convert the time with .astimezone(datetime.timezone.utc)")
    return zone.key


cdef bint fixed_zone(object moment):
    return type(moment.tzinfo) is datetime.timezone


cdef uint64_t take(Cursor *c, int width) except? 0:
    """The next ``width`` bytes as a big-endian number."""
    cdef uint64_t n = 0
    cdef int i
    if c.end - c.at < width:
        raise ValueError("the value is cut short")
    for i in range(width):
        n = (n << 8) | c.at[i]
    c.at += width
    return n


cdef bytes take_bytes(Cursor *c, size_t n):
    if <size_t>(c.end - c.at) < n:
        raise ValueError("the value is cut short")
    cdef bytes raw = PyBytes_FromStringAndSize(<const char *>c.at, n)
    c.at += n
    return raw


cdef str take_text(Cursor *c, size_t n):
    if <size_t>(c.end - c.at) < n:
        raise ValueError("the value is cut short")
    text = PyUnicode_DecodeUTF8(<const char *>c.at, n, NULL)
    c.at += n
    return text


cdef list take_members(Cursor *c, size_t n, int depth):
    # Every member has at least one byte: a hostile count must not make us allocate.
    if <size_t>(c.end - c.at) < n:
        raise ValueError("the value is cut short")
    cdef list members = []
    cdef size_t _
    for _ in range(n):
        members.append(read_value(c, depth))
    return members


cdef dict take_map(Cursor *c, size_t n, int depth):
    if <size_t>(c.end - c.at) < 2 * n:
        raise ValueError("the value is cut short")
    cdef dict members = {}
    cdef size_t _
    for _ in range(n):
        key = read_value(c, depth)
        try:
            members[key] = read_value(c, depth)
        except TypeError:
            raise ValueError(f"a {type(key).__name__} cannot be a key") from None
    return members


cdef object read_value(Cursor *c, int depth):
    cdef uint64_t n
    cdef double real
    cdef unsigned int tag
    if depth > 2 * MAX_DEPTH:
        raise ValueError("the value is nested too deep")
    tag = <unsigned int>take(c, 1)
    if tag < 0x80:
        return tag
    if tag < 0x90:
        return take_map(c, tag & 0x0f, depth + 1)
    if tag < 0xa0:
        return take_members(c, tag & 0x0f, depth + 1)
    if tag < 0xc0:
        return take_text(c, tag & 0x1f)
    if tag >= 0xe0:
        return <int>tag - 0x100
    if tag == 0xcb:
        n = take(c, 8)
        memcpy(&real, &n, 8)
        return real
    if tag == 0xc0:
        return None
    if tag == 0xc2:
        return False
    if tag == 0xc3:
        return True
    if 0xcc <= tag <= 0xcf:
        return take(c, 1 << (tag - 0xcc))
    if tag == 0xd0:
        return <signed char>take(c, 1)
    if tag == 0xd1:
        return <short>take(c, 2)
    if tag == 0xd2:
        return <int>take(c, 4)
    if tag == 0xd3:
        return <int64_t>take(c, 8)
    if 0xc4 <= tag <= 0xc6:
        return take_bytes(c, take(c, 1 << (tag - 0xc4)))
    if 0xd9 <= tag <= 0xdb:
        return take_text(c, take(c, 1 << (tag - 0xd9)))
    if tag == 0xdc or tag == 0xdd:
        return take_members(c, take(c, 2 if tag == 0xdc else 4), depth + 1)
    if tag == 0xde or tag == 0xdf:
        return take_map(c, take(c, 2 if tag == 0xde else 4), depth + 1)
    if 0xc7 <= tag <= 0xc9:
        n = take(c, 1 << (tag - 0xc7))
        return read_extension(c, n, depth + 1)
    raise ValueError(f"0x{tag:02x} is no tag of a recorded value")


cdef object read_extension(Cursor *c, size_t n, int depth):
    cdef int kind = <int>take(c, 1)
    cdef Cursor inner
    if <size_t>(c.end - c.at) < n:
        raise ValueError("the value is cut short")
    inner.at = c.at
    inner.end = c.at + n
    c.at += n
    if kind == 4:
        return int.from_bytes(take_bytes(&inner, n), "big", signed=True)
    if kind == 8:
        return datetime.date.fromisoformat(take_text(&inner, n))
    if kind == 11:
        from decimal import Decimal, InvalidOperation
        try:
            return Decimal(take_text(&inner, n))
        except InvalidOperation:
            raise ValueError("not a decimal number") from None
    if kind == 12:
        from uuid import UUID
        return UUID(bytes=take_bytes(&inner, n))
    members = read_value(&inner, depth)
    if inner.at != inner.end or type(members) is not list:
        raise ValueError(f"extension {kind} is malformed")
    try:
        return build_extension(kind, members)
    except Exception as error:
        # Hostile members lead libraries into errors of any kind.
        raise ValueError(f"extension {kind} is malformed: {error}") from error


cdef object build_extension(int kind, list members):
    if kind == 1:
        return tuple(members)
    if kind == 2:
        return set(members)
    if kind == 3:
        return frozenset(members)
    if kind == 5 or kind == 6:
        return build_numpy(kind, members)
    if kind == 7:
        text, zone, fold = members
        moment = named_zone(datetime.datetime.fromisoformat(text), zone)
        if type(zone) is str:
            from zoneinfo import ZoneInfo
            moment = moment.replace(tzinfo=ZoneInfo(zone))
        return moment.replace(fold=fold)
    if kind == 9:
        text, zone, fold = members
        return named_zone(datetime.time.fromisoformat(text), zone).replace(fold=fold)
    if kind == 10:
        return datetime.timedelta(*members)
    if kind == 13:
        return complex(*members)
    if kind == 14:
        name, payload = members
        if name not in _decoders:
            raise ValueError(f"no codec named {name!r} is registered")
        return _decoders[name][1](payload)
    raise ValueError(f"{kind} is no extension of a recorded value")


cdef object named_zone(object moment, object zone):
    """``moment`` with the name that its fixed offset was given."""
    if type(zone) is not list:
        return moment
    return moment.replace(tzinfo=datetime.timezone(moment.utcoffset(), zone[0]))


cdef object build_numpy(int kind, list members):
    import numpy
    name, raw = members[0], members[-1]
    if type(name) is not str or type(raw) is not bytes:
        raise ValueError("an array is a type and bytes")
    dtype = numpy.dtype(name)
    if dtype.kind not in _DATA_KINDS or dtype.str != name:
        raise ValueError(f"arrays of {dtype} are not data")
    if kind == 6:
        if dtype.kind == "S":
            return numpy.bytes_(raw)
        if dtype.kind == "U":
            return numpy.str_(raw.decode("utf-8", "surrogatepass"))
        if len(raw) != dtype.itemsize:
            raise ValueError("a scalar has one element")
        return numpy.frombuffer(raw, dtype=dtype)[0]
    if dtype.itemsize == 0:
        raise ValueError("the elements of an array have bytes")
    # A copy, because the program that recorded it could write to it.
    array = numpy.frombuffer(raw, dtype=dtype)
    return array.reshape(members[1], order=members[2]).copy(members[2])


cdef int skip_value(Cursor *c, int depth) except -1:
    """Pass over one value without building it; extensions are passed over whole."""
    cdef unsigned int tag
    cdef uint64_t n = 0, _
    if depth > 2 * MAX_DEPTH:
        raise ValueError("the value is nested too deep")
    tag = <unsigned int>take(c, 1)
    if tag < 0x80 or tag >= 0xe0 or tag in (0xc0, 0xc2, 0xc3):
        return 0
    if tag < 0x90:
        n = 2 * (tag & 0x0f)
    elif tag < 0xa0:
        n = tag & 0x0f
    elif tag == 0xdc or tag == 0xdd:
        n = take(c, 2 if tag == 0xdc else 4)
    elif tag == 0xde or tag == 0xdf:
        n = 2 * take(c, 2 if tag == 0xde else 4)
    else:
        return skip_bytes(c, tag)
    for _ in range(n):
        skip_value(c, depth + 1)
    return 0


cdef int skip_bytes(Cursor *c, unsigned int tag) except -1:
    cdef uint64_t n
    if tag < 0xc0:
        n = tag & 0x1f
    elif 0xcc <= tag <= 0xcf:
        n = 1 << (tag - 0xcc)
    elif 0xd0 <= tag <= 0xd3:
        n = 1 << (tag - 0xd0)
    elif tag == 0xcb:
        n = 8
    elif 0xc4 <= tag <= 0xc6:
        n = take(c, 1 << (tag - 0xc4))
    elif 0xc7 <= tag <= 0xc9:
        n = take(c, 1 << (tag - 0xc7)) + 1
    elif 0xd9 <= tag <= 0xdb:
        n = take(c, 1 << (tag - 0xd9))
    else:
        raise ValueError(f"0x{tag:02x} is no tag of a recorded value")
    if <uint64_t>(c.end - c.at) < n:
        raise ValueError("the value is cut short")
    c.at += n
    return 0
