"""Writing values into a message: what has a tag in place, the rest pickled; see ``payload.pyx``.

What is large goes into the object arena, and a buffer that lies there already is only named. Lists,
dictionaries and arrays are written in place where that changes nothing: once each, and not beside
pickles that may share them.
"""
from cpython.buffer cimport (
    PyBUF_ANY_CONTIGUOUS,
    PyBUF_ND,
    PyBUF_SIMPLE,
    PyBuffer_IsContiguous,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint64_t
from libc.string cimport memcpy

from microkernel.objects.store cimport Block
from microkernel.processes.payload_reader cimport PayloadReader
from microkernel.processes.pickling cimport Pickling
from microkernel.processes.tagged cimport (
    ARRAY,
    BYTES1,
    BYTES_OBJECT,
    DICT,
    FALSE,
    FLOAT,
    INLINE,
    LIST,
    MAX_DEPTH,
    NONE,
    OBJECT,
    PICKLED,
    SCALAR,
    TEXT1,
    TEXT_OBJECT,
    TRUE,
    TUPLE,
    array_type,
    checksum,
    code_of,
    put_counted,
    put_object,
    put_sized,
    put_tag,
    scalar_code_of,
    write_int,
    write_short,
    write_sized,
)
from microkernel.values cimport Writer, reserve, write_raw

from microkernel.processes.pickling import UnfinishedReferences

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL

cdef enum:
    LARGE = 1024            # goes into the object arena
    LARGE_STREAM = 4096
    MOST_MEMBERS = 255
    MOST_CONTAINERS = 16


cdef bint first_time(Coding *coding, object container) except -1:
    """Whether a list or dictionary may be written in place: neither met before nor one of many."""
    cdef int i
    if coding.scalars_only or coding.containers >= MOST_CONTAINERS:
        return False
    for i in range(coding.containers):
        if coding.seen[i] == <void *>container:
            return False
    coding.seen[coding.containers] = <void *>container
    coding.containers += 1
    return True


cdef int write_scalar(Writer *w, object value, int code) except -1:
    """A NumPy scalar."""
    cdef Py_buffer view
    if code < 0:
        return 0
    PyObject_GetBuffer(value, &view, PyBUF_SIMPLE)
    try:
        put_counted(w, SCALAR, code)
        write_raw(w, view.buf, view.len)
    finally:
        PyBuffer_Release(&view)
    return 1


cdef class PayloadWriter(PayloadReader):
    """Writes values so that the reader reads them."""

    cdef int write_value(self, Writer *w, object value, Coding *coding, list held,
                         int depth) except -1:
        """Write what has a tag; 0 if the value, or a part of it, has none."""
        cdef type kind = type(value)
        cdef double number
        cdef size_t n
        if kind is int:
            return write_int(w, value)
        if kind is float:
            number = value
            reserve(w, 9)
            w.data[w.length] = FLOAT
            memcpy(w.data + w.length + 1, &number, 8)
            w.length += 9
            return 1
        if kind is str:
            return self.write_text(w, value, held)
        if value is None:
            return put_tag(w, NONE)
        if kind is bool:
            return put_tag(w, TRUE if value else FALSE)
        if kind is bytes:
            n = PyBytes_GET_SIZE(value)
            if n > LARGE and self.objects is not None and held is not None:
                return self.write_object(w, BYTES_OBJECT, PyBytes_AS_STRING(value), n, held)
            return write_short(w, BYTES1, PyBytes_AS_STRING(value), n)
        if depth >= MAX_DEPTH:
            return 0
        if kind is tuple:
            n = len(<tuple>value)
            if n > MOST_MEMBERS:
                return 0
            put_counted(w, TUPLE, n)
            for member in <tuple>value:
                if not self.write_value(w, member, coding, held, depth + 1):
                    return 0
            return 1
        if kind is list:
            n = len(<list>value)
            if n > MOST_MEMBERS or not first_time(coding, value):
                return 0
            put_counted(w, LIST, n)
            for member in <list>value:
                if not self.write_value(w, member, coding, held, depth + 1):
                    return 0
            return 1
        if kind is dict:
            n = len(<dict>value)
            if n > MOST_MEMBERS or not first_time(coding, value):
                return 0
            put_counted(w, DICT, n)
            for key, member in (<dict>value).items():
                if not (self.write_value(w, key, coding, held, depth + 1)
                        and self.write_value(w, member, coding, held, depth + 1)):
                    return 0
            return 1
        if kind is array_type():
            return self.write_array(w, value, coding, held)
        return write_scalar(w, value, scalar_code_of(kind))

    cdef int write_array(self, Writer *w, object value, Coding *coding, list held) except -1:
        """A contiguous array of plain numbers."""
        cdef Py_buffer view
        cdef int code = code_of(value.dtype)
        if code < 0 or not first_time(coding, value):
            return 0
        try:
            PyObject_GetBuffer(value, &view, PyBUF_ANY_CONTIGUOUS | PyBUF_ND)
        except (BufferError, ValueError):
            return 0            # not contiguous
        try:
            put_counted(w, ARRAY, code)
            # 1: Fortran's order, and not C's as well.
            put_counted(w, PyBuffer_IsContiguous(&view, b"C") == 0, view.ndim)
            for i in range(view.ndim):
                write_raw(w, &view.shape[i], 8)
            return self.write_view(w, &view, held)
        finally:
            PyBuffer_Release(&view)

    cdef int write_text(self, Writer *w, str value, list held) except -1:
        cdef Py_ssize_t n
        cdef const char *raw
        try:
            raw = PyUnicode_AsUTF8AndSize(value, &n)
        except UnicodeEncodeError:
            return 0            # lone surrogates, which pickle knows how to write
        if n > LARGE and self.objects is not None and held is not None:
            return self.write_object(w, TEXT_OBJECT, raw, n, held)
        return write_short(w, TEXT1, raw, n)

    cdef int write_object(self, Writer *w, int tag, const void *data, size_t n,
                          list held) except -1:
        """Copy bytes into the object arena."""
        cdef Block block = self.objects.allocate(n)
        block.write(0, data, n)
        block.seal()
        held.append(block)
        return put_object(w, tag, block.handle, 0, n)

    cdef int write_pickled(self, Writer *w, object value, list held) except -1:
        cdef Pickling pickling = self.spare
        cdef size_t n
        self.spare = None
        if pickling is None:
            pickling = Pickling()
            pickling.numbering = self.functions
        try:
            pickling.in_band = held is None
            n = pickling.dump(value)
            if pickling.unfinished:
                raise UnfinishedReferences(pickling.unfinished)
            put_sized(w, PICKLED, len(pickling.buffers))
            for buffer in pickling.buffers:
                self.write_buffer(w, buffer, held)
            self.write_stream(w, pickling.pieces, n, held)
        finally:
            pickling.clear()
            self.spare = pickling
        return 0

    cdef int write_stream(self, Writer *w, list pieces, size_t n, list held) except -1:
        """What the pickler wrote, behind its checksum."""
        cdef Block block
        cdef uint64_t sum = 0
        cdef size_t at = 0
        if n > LARGE_STREAM and self.objects is not None and held is not None:
            block = self.objects.allocate(n)
            for piece in pieces:
                block.write(at, PyBytes_AS_STRING(piece), PyBytes_GET_SIZE(piece))
                at += PyBytes_GET_SIZE(piece)
            sum = checksum(block.data, n)
            block.seal()
            held.append(block)
            write_raw(w, &sum, sizeof(sum))
            return put_object(w, OBJECT, block.handle, 0, n)
        at = w.length
        write_raw(w, &sum, sizeof(sum))
        put_sized(w, INLINE, n)
        for piece in pieces:
            write_raw(w, PyBytes_AS_STRING(piece), PyBytes_GET_SIZE(piece))
        sum = checksum(w.data + w.length - n, n)
        memcpy(w.data + at, &sum, sizeof(sum))
        return 0

    cdef int write_buffer(self, Writer *w, object exporter, list held) except -1:
        cdef Py_buffer view
        PyObject_GetBuffer(exporter, &view, PyBUF_ANY_CONTIGUOUS)
        try:
            return self.write_view(w, &view, held)
        finally:
            PyBuffer_Release(&view)

    cdef int write_view(self, Writer *w, Py_buffer *view, list held) except -1:
        """A buffer: as bytes, as an object, or as a part of the object where it lies already."""
        cdef Block block
        if self.objects is None or held is None or view.len <= LARGE:
            return write_sized(w, INLINE, view.buf, view.len)
        block = self.objects.block_of(<object>view.obj, view.buf, view.len)
        if block is None:
            return self.write_object(w, OBJECT, view.buf, view.len, held)
        block.seal_with(<object>view.obj)
        held.append(block)
        return put_object(w, OBJECT, block.handle, block.where(view.buf, view.len), view.len)
