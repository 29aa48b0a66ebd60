"""The bytes that payloads are made of: a tag, and what follows it; see ``tagged.pyx``.

What every argument goes through is inline. The end of the bytes is checked here, by ``need``.
"""
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.string cimport memcpy

from microkernel.values cimport Cursor, Writer, reserve, write_raw

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    /* Not cryptographic: against damage, not against people. Unpickling damaged bytes may crash. */
    static inline uint64_t srds_checksum(const unsigned char *p, size_t n) {
        uint64_t h = 0x9e3779b97f4a7c15ULL ^ n, word;
        for (; n >= 8; p += 8, n -= 8) {
            memcpy(&word, p, 8);
            h = (h ^ word) * 0xff51afd7ed558ccdULL; h ^= h >> 32;
        }
        word = 0;
        memcpy(&word, p, n);
        h = (h ^ word) * 0xc4ceb9fe1a85ec53ULL;
        return h ^ (h >> 29);
    }
    """
    uint64_t checksum "srds_checksum"(const unsigned char *data, size_t n) noexcept nogil

cdef extern from "Python.h":
    long long PyLong_AsLongLongAndOverflow(object n, int *overflow) except? -1


cdef enum Tag:              # below 0x80: the integer itself
    NONE = 0x80
    FALSE = 0x81
    TRUE = 0x82
    INT4 = 0x83
    INT8 = 0x84
    LONG = 0x85             # length, two's complement
    FLOAT = 0x86
    TEXT1 = 0x87            # length in one byte, in four, in an object
    TEXT4 = 0x88
    TEXT_OBJECT = 0x89
    BYTES1 = 0x8a
    BYTES4 = 0x8b
    BYTES_OBJECT = 0x8c
    TUPLE = 0x8d            # count, members
    LIST = 0x8e
    DICT = 0x8f
    PICKLED = 0x90          # count of buffers, buffers, checksum of the stream, stream
    LEFT = 0x91             # an argument: the next of those that are pickled after all
    ARRAY = 0x92            # type, order, dimensions, shape, buffer
    INLINE = 0x93           # of buffers: length, bytes
    OBJECT = 0x94           # handle, offset, length
    TEMPLATE = 0x95         # of functions: number, then what was captured
    SCALAR = 0x96           # of NumPy: type, bytes


cdef enum:
    MAX_DEPTH = 16


cdef int put_sized(Writer *w, int tag, size_t n) except -1
cdef int put_object(Writer *w, int tag, uint64_t handle, uint64_t offset, uint64_t n) except -1
cdef int write_sized(Writer *w, int tag, const void *data, size_t n) except -1
cdef int write_text_in_place(Writer *w, str text) except -1
cdef int write_long(Writer *w, object value) except -1
cdef object damaged(str how)
cdef object too_long(str what, size_t n)
cdef object array_type()
cdef object from_buffer()
cdef int code_of(object dtype) except? -1
cdef int scalar_code_of(type kind) except? -1
cdef object dtype_of(size_t code)


cdef inline int put_tag(Writer *w, int tag) except -1:
    reserve(w, 1)
    w.data[w.length] = <unsigned char>tag
    w.length += 1
    return 1


cdef inline int put_counted(Writer *w, int tag, size_t n) except -1:
    reserve(w, 2)
    w.data[w.length] = <unsigned char>tag
    w.data[w.length + 1] = <unsigned char>n
    w.length += 2
    return 1


cdef inline int write_short(Writer *w, int tag, const void *data, size_t n) except -1:
    """Text or bytes: ``tag`` is that of a length in one byte."""
    if n > 0xff:
        return write_sized(w, tag + 1, data, n)
    put_counted(w, tag, n)
    write_raw(w, data, n)
    return 1


cdef inline int write_count(Writer *w, size_t n) except -1:
    if n < 0xff:
        return put_tag(w, <int>n)
    return put_sized(w, 0xff, n)


cdef inline int write_int(Writer *w, object value) except -1:
    cdef int overflow
    cdef int64_t n = PyLong_AsLongLongAndOverflow(value, &overflow)
    cdef int32_t small = <int32_t>n
    if overflow:
        return write_long(w, value)
    reserve(w, 9)
    if 0 <= n < 0x80:
        w.data[w.length] = <unsigned char>n
        w.length += 1
    elif n == small:
        w.data[w.length] = INT4
        memcpy(w.data + w.length + 1, &small, 4)
        w.length += 5
    else:
        w.data[w.length] = INT8
        memcpy(w.data + w.length + 1, &n, 8)
        w.length += 9
    return 1


cdef inline int need(Cursor *c, size_t n) except -1:
    if <size_t>(c.end - c.at) < n:
        raise damaged("cut off")
    return 0


cdef inline const unsigned char *take(Cursor *c, size_t n) except NULL:
    need(c, n)
    c.at += n
    return c.at - n


cdef inline int read_raw(Cursor *c, void *to, size_t n) except -1:
    memcpy(to, take(c, n), n)
    return 0


cdef inline size_t read_1(Cursor *c) except? 0xffffffffffffffff:
    return take(c, 1)[0]


cdef inline size_t read_4(Cursor *c) except? 0xffffffffffffffff:
    cdef uint32_t n
    read_raw(c, &n, 4)
    return n


cdef inline size_t read_count(Cursor *c) except? 0xffffffffffffffff:
    cdef size_t n = read_1(c)
    return read_4(c) if n == 0xff else n
