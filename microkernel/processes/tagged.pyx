"""Tags and lengths: how the codec of payloads puts values into bytes and takes them out.

Lengths have one byte or four, integers none, four or eight, in the machine's own byte order. NumPy
arrays and scalars of plain numbers have tags too: to pickle one takes ten times as long.
"""
import sys

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy

from microkernel.values cimport Writer, reserve, write_raw

from microkernel.errors import NotSendable, PayloadDamaged

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL

# A type's code is its place; append only.
cdef tuple _TYPES = ("?", "b", "B", "h", "H", "i", "I", "l", "L", "q", "Q", "e", "f", "d", "F", "D")
cdef object _array_type = None
cdef object _from_buffer = None
cdef list _dtypes = []
cdef dict _codes = {}
cdef dict _scalar_codes = {}


cdef int put_sized(Writer *w, int tag, size_t n) except -1:
    cdef uint32_t length = <uint32_t>n
    if n > 0xffffffff:
        raise too_long("a value", n)
    reserve(w, 5)
    w.data[w.length] = <unsigned char>tag
    memcpy(w.data + w.length + 1, &length, 4)
    w.length += 5
    return 1


cdef int put_object(Writer *w, int tag, uint64_t handle, uint64_t offset, uint64_t n) except -1:
    cdef uint64_t[3] where
    where[0] = handle
    where[1] = offset
    where[2] = n
    put_tag(w, tag)
    write_raw(w, where, 24)
    return 1


cdef int write_sized(Writer *w, int tag, const void *data, size_t n) except -1:
    put_sized(w, tag, n)
    write_raw(w, data, n)
    return 1


cdef int write_text_in_place(Writer *w, str text) except -1:
    cdef Py_ssize_t n
    cdef const char *raw = PyUnicode_AsUTF8AndSize(text, &n)
    return write_short(w, TEXT1, raw, n)


cdef int write_long(Writer *w, object value) except -1:
    """An integer of more than 64 bits."""
    cdef bytes raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return write_sized(w, LONG, PyBytes_AS_STRING(raw), PyBytes_GET_SIZE(raw))


cdef object damaged(str how):
    return PayloadDamaged(
        f"a message's payload is damaged: {how}", what=how,
        expected="bytes that a process of this kernel has written",
        remedy="report this as a bug, with how to bring it about")


cdef object too_long(str what, size_t n):
    return NotSendable(f"{what} of {n} bytes cannot be sent in one piece", what=what,
                       expected="less than 4 GiB", remedy="send it as an array, or in parts")


cdef object array_type():
    """numpy.ndarray, or None as long as nobody has imported NumPy."""
    global _array_type
    if _array_type is None and "numpy" in sys.modules:
        learn_types()
    return _array_type


cdef object from_buffer():
    """numpy.frombuffer, of a process that has read or written an array."""
    return _from_buffer


cdef int learn_types() except -1:
    global _array_type, _from_buffer
    import numpy

    if not _dtypes:
        for code, name in enumerate(_TYPES):
            _dtypes.append(numpy.dtype(name))
            _codes.setdefault(_dtypes[code], code)
            _scalar_codes[_dtypes[code].type] = code
    _from_buffer = numpy.frombuffer
    _array_type = numpy.ndarray
    return 0


cdef int code_of(object dtype) except? -1:
    """The code of a NumPy type, -1 of one that is left to pickle."""
    if dtype.metadata is not None:
        return -1
    return _codes.get(dtype, -1)


cdef int scalar_code_of(type kind) except? -1:
    """The code of the type of a NumPy scalar, -1 of any other type."""
    return _scalar_codes.get(kind, -1)


cdef object dtype_of(size_t code):
    if not _dtypes:
        learn_types()
    if code >= <size_t>len(_dtypes):
        raise damaged("an array of unknown type")
    return _dtypes[code]
