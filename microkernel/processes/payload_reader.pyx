"""Reading what came with a message: arguments, results, errors, functions; see ``payload.pyx``.

Every read is checked against the end of the bytes: what is damaged raises ``PayloadDamaged``.
What is whole and cannot be rebuilt here (a module is missing, code of an object raises) raises
``NotRebuilt``.
"""
from types import FunctionType

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.list cimport PyList_New, PyList_SET_ITEM
from cpython.ref cimport Py_INCREF
from cpython.tuple cimport PyTuple_New, PyTuple_SET_ITEM
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.string cimport memcmp

from microkernel.encoded cimport encoded
from microkernel.function cimport Function
from microkernel.objects.store cimport Block
from microkernel.processes.function_table cimport described, filled
from microkernel.processes.pickling cimport assembled, load
from microkernel.processes.tagged cimport (
    ARRAY,
    BYTES1,
    BYTES4,
    BYTES_OBJECT,
    DICT,
    FALSE,
    FLOAT,
    INLINE,
    INT4,
    INT8,
    LEFT,
    LIST,
    LONG,
    MAX_DEPTH,
    NONE,
    OBJECT,
    PICKLED,
    SCALAR,
    TEMPLATE,
    TEXT1,
    TEXT4,
    TEXT_OBJECT,
    TRUE,
    TUPLE,
    array_type,
    checksum,
    damaged,
    dtype_of,
    from_buffer,
    need,
    read_1,
    read_4,
    read_count,
    read_raw,
    take,
)
from microkernel.values cimport Cursor

cdef enum:
    ARRAY_BYTES = 4             # the tag, type, order and number of dimensions
    OBJECT_BYTES = 25           # the tag, handle, offset and length


cdef bint is_array_in_object(const unsigned char *data, size_t n) noexcept:
    """Whether a result is an array whose numbers lie in the object arena."""
    return (n > ARRAY_BYTES and data[0] == ARRAY
            and n == ARRAY_BYTES + 8 * <size_t>data[3] + OBJECT_BYTES
            and data[n - OBJECT_BYTES] == OBJECT)


cdef class PayloadReader:
    """Reads the payloads that other processes, or this one, have written."""

    def __cinit__(self):
        self.last_read = b""

    cdef tuple read_arguments(self, const unsigned char *data, size_t n):
        cdef Cursor c
        cdef size_t count, named
        cdef tuple args
        cdef list left = None
        cdef dict kwargs = None
        if n == 0:
            return (), None
        c.at = data
        c.end = data + n
        try:
            count = read_count(&c)
            named = read_count(&c)
            need(&c, count + 2 * named)
            args = PyTuple_New(count)
            for i in range(count):
                value = None
                if c.at < c.end and c.at[0] == LEFT:
                    c.at += 1
                    left = [i] if left is None else [*left, i]
                else:
                    value = self.read_value(&c, 0)
                Py_INCREF(value)
                PyTuple_SET_ITEM(args, i, value)
            if named:
                kwargs = {}
                for _ in range(named):
                    name = self.read_value(&c, MAX_DEPTH)
                    if type(name) is not str:
                        raise damaged("a name that is no text")
                    kwargs[name] = None
                    if c.at < c.end and c.at[0] == LEFT:
                        c.at += 1
                        left = [name] if left is None else [*left, name]
                    else:
                        kwargs[name] = self.read_value(&c, 0)
            if left is not None:
                args = self.read_left(&c, args, kwargs, left)
        except (TypeError, ValueError, OverflowError) as error:
            raise damaged(str(error)) from None
        if c.at != c.end:
            raise damaged("bytes are left over")
        return args, kwargs

    cdef tuple read_left(self, Cursor *c, tuple args, dict kwargs, list left):
        """Fill the gaps of the arguments with what was pickled."""
        cdef list complete = list(args)
        need(c, 1)
        if c.at[0] != PICKLED:
            raise damaged("arguments are missing")
        values = self.read_value(c, 0)
        if len(left) == 1:
            values = (values,)
        elif type(values) is not tuple or len(<tuple>values) != len(left):
            raise damaged("not as many arguments as there should be")
        for where, value in zip(left, values):
            if type(where) is int:
                complete[where] = value
            else:
                kwargs[where] = value
        return tuple(complete)

    cdef object read_result(self, const unsigned char *data, size_t n):
        cdef Cursor c
        if n == 0:
            return None
        c.at = data
        c.end = data + n
        try:
            value = self.read_value(&c, 0)
        except (TypeError, ValueError, OverflowError) as error:
            raise damaged(str(error)) from None
        if c.at != c.end:
            raise damaged("bytes are left over")
        return value

    cdef object read_result_lazily(self, const unsigned char *data, size_t n, bint pickled):
        cdef list blocks
        if pickled and n and data[0] == PICKLED:
            blocks = self.blocks_of(data, n)
        elif is_array_in_object(data, n):
            blocks = self.block_at_end(data, n)
        else:
            return self.read_result(data, n)
        return encoded(self, decode_result, PyBytes_FromStringAndSize(<const char *>data, n),
                       blocks)

    cdef list block_at_end(self, const unsigned char *data, size_t n):
        """The block that holds an array's numbers."""
        cdef uint64_t[3] where
        cdef Cursor c
        c.at = data + n - OBJECT_BYTES + 1
        c.end = data + n
        return [self.read_block(&c, where)]

    cdef list blocks_of(self, const unsigned char *data, size_t n):
        """The blocks that a pickled result names."""
        cdef Cursor c
        cdef list blocks = []
        c.at = data + 1
        c.end = data + n
        buffers = [self.read_buffer(&c) for _ in range(read_4(&c))]
        buffers.append(self.read_stream(&c))
        for buffer in buffers:
            if type(buffer) is memoryview:
                buffer = buffer.obj
            if type(buffer) is Block:
                blocks.append(buffer)
        return blocks

    cdef object read_value(self, Cursor *c, int depth):
        cdef unsigned char tag
        cdef int32_t small
        cdef int64_t integer
        cdef double number
        cdef size_t n
        need(c, 1)
        tag = c.at[0]
        c.at += 1
        if tag < 0x80:
            return <int>tag
        if tag == INT4:
            read_raw(c, &small, 4)
            return small
        if tag == INT8:
            read_raw(c, &integer, 8)
            return integer
        if tag == FLOAT:
            read_raw(c, &number, 8)
            return number
        if tag == NONE:
            return None
        if tag == TRUE:
            return True
        if tag == FALSE:
            return False
        if tag == TEXT1 or tag == TEXT4:
            n = read_1(c) if tag == TEXT1 else read_4(c)
            return PyUnicode_DecodeUTF8(<const char *>take(c, n), n, NULL)
        if tag == BYTES1 or tag == BYTES4:
            n = read_1(c) if tag == BYTES1 else read_4(c)
            return PyBytes_FromStringAndSize(<const char *>take(c, n), n)
        if tag == LONG:
            n = read_4(c)
            return int.from_bytes(PyBytes_FromStringAndSize(<const char *>take(c, n), n), "little",
                                  signed=True)
        if tag == TEXT_OBJECT or tag == BYTES_OBJECT:
            return self.read_object(c, tag)
        if depth >= MAX_DEPTH:
            raise damaged("nested too deep")
        if tag == ARRAY:
            return self.read_array(c)
        if tag == SCALAR:
            dtype = dtype_of(read_1(c))
            n = dtype.itemsize
            raw = PyBytes_FromStringAndSize(<const char *>take(c, n), n)
            return from_buffer()(raw, dtype, 1)[0]
        if tag == TUPLE or tag == LIST or tag == DICT:
            return self.read_members(c, tag, depth + 1)
        if tag == PICKLED and depth == 0:
            return self.read_pickled(c)
        raise damaged(f"tag {tag:#x}")

    cdef object read_members(self, Cursor *c, int tag, int depth):
        cdef size_t i, n = read_1(c)
        cdef tuple members
        cdef list listed
        cdef dict pairs
        if tag == TUPLE:
            members = PyTuple_New(n)
            for i in range(n):
                value = self.read_value(c, depth)
                Py_INCREF(value)
                PyTuple_SET_ITEM(members, i, value)
            return members
        if tag == LIST:
            listed = PyList_New(n)
            for i in range(n):
                value = self.read_value(c, depth)
                Py_INCREF(value)
                PyList_SET_ITEM(listed, i, value)
            return listed
        pairs = {}
        for _ in range(n):
            key = self.read_value(c, depth)
            pairs[key] = self.read_value(c, depth)
        return pairs

    cdef object read_array(self, Cursor *c):
        cdef int64_t length
        dtype = dtype_of(read_1(c))
        order = "F" if read_1(c) else "C"
        shape = []
        for _ in range(read_1(c)):
            read_raw(c, &length, 8)
            shape.append(length)
        buffer = self.read_buffer(c)
        if type(buffer) is bytes:
            return array_type()(shape, dtype, buffer, 0, None, order)
        # Keeps the buffer, and with it the object in memory, which the other way does not.
        return from_buffer()(buffer, dtype).reshape(shape, order=order)

    cdef object read_pickled(self, Cursor *c):
        cdef size_t n = read_4(c)
        cdef list buffers = None
        need(c, n)
        if n:
            buffers = []
            for _ in range(n):
                buffers.append(self.read_buffer(c))
        return load(self.functions, self.read_stream(c), buffers)

    cdef object read_stream(self, Cursor *c):
        """What a pickler wrote, unchanged since."""
        cdef uint64_t sum
        cdef Py_buffer view
        cdef bint whole
        read_raw(c, &sum, sizeof(sum))
        stream = self.read_buffer(c)
        PyObject_GetBuffer(stream, &view, PyBUF_SIMPLE)
        whole = checksum(<const unsigned char *>view.buf, view.len) == sum
        PyBuffer_Release(&view)
        if not whole:
            raise damaged("a pickle that was changed")
        return stream

    cdef object read_buffer(self, Cursor *c):
        """Bytes, or a view of an object."""
        cdef uint64_t[3] where
        cdef size_t n
        cdef Block block
        need(c, 1)
        c.at += 1
        if c.at[-1] == INLINE:
            n = read_4(c)
            return PyBytes_FromStringAndSize(<const char *>take(c, n), n)
        if c.at[-1] != OBJECT:
            raise damaged("no buffer where there should be one")
        block = self.read_block(c, where)
        if where[1] == 0 and where[2] == block.size:
            return block
        return memoryview(block)[where[1]:where[1] + where[2]]

    cdef object read_object(self, Cursor *c, int tag):
        """Text or bytes, which Python wants in its own memory."""
        cdef uint64_t[3] where
        cdef Block block = self.read_block(c, where)
        cdef const char *at = <const char *>block.pin() + where[1]
        try:
            if tag == TEXT_OBJECT:
                return PyUnicode_DecodeUTF8(at, where[2], NULL)
            return PyBytes_FromStringAndSize(at, where[2])
        finally:
            block.unpin()

    cdef Block read_block(self, Cursor *c, uint64_t *where):
        """The object that is named next; ``where``: its handle, offset and length."""
        cdef Block block
        read_raw(c, where, 24)
        if self.objects is None:
            raise damaged("an object where there is no arena")
        block = self.objects.hold(where[0])
        if where[1] > block.size or where[2] > block.size - where[1]:
            raise damaged("more than the object has")
        return block

    cdef Function read_function(self, const unsigned char *data, size_t n, size_t *taken):
        cdef Cursor c
        cdef Function function
        cdef uint32_t length
        c.at = data
        c.end = data + n
        length = read_4(&c)
        if not sizeof(length) <= length <= n:
            raise damaged("cut off")
        c.end = data + length
        taken[0] = length
        try:
            function = self.read_described(&c, data)
        except (TypeError, ValueError) as error:
            raise damaged(str(error)) from None
        if c.at != c.end:
            raise damaged("bytes are left over")
        return function

    cdef Function read_described(self, Cursor *c, const unsigned char *data):
        cdef size_t length = c.end - data
        cdef Function function
        need(c, 1)
        if c.at[0] == TEMPLATE:
            c.at += 1
            number = read_4(c)
            code, cells, defaults, named = self.read_value(c, 0)
            return filled(self.functions.function(number), code, cells, defaults, named)
        if <size_t>PyBytes_GET_SIZE(self.last_read) == length and memcmp(
                PyBytes_AS_STRING(self.last_read), data, length) == 0:
            c.at = c.end
            return self.last_function
        name, code, is_async = self.read_value(c, 0)
        function = described(name, code, is_async, self.read_value(c, 0))
        if type(function.call) is FunctionType:
            # It stays as it was first sent: several tasks of one need not rebuild it.
            self.last_function = function
            self.last_read = PyBytes_FromStringAndSize(<const char *>data, length)
        return function

    cdef object read_error(self, const unsigned char *data, size_t n):
        parts = self.read_result(data, n)
        try:
            return assembled(self.functions, parts)
        except Exception as error:
            raise damaged(f"no exception where there should be one: {error}") from None


cdef object decode_result(object reader, const unsigned char *data, size_t n):
    return (<PayloadReader>reader).read_result(data, n)
