"""What travels with the messages between processes: arguments, results, errors, functions.

Scalars, text, bytes and small tuples, lists and dictionaries of them have tags and are written in
place, in some ten nanoseconds each; types are matched exactly, not through inheritance. All else is
pickled (``pickling.pyx``), in one stream for all arguments of a call, so that what they share they
share on the other side too; for the same reason a list that occurs twice is left to pickle. Text,
bytes, streams and the buffers of protocol 5 that are longer than 1 KiB go into the object arena,
and arrays on the other side are read-only views of it; a buffer that lies there already is not
copied. What is shorter is copied, and read-only as well: an array does not change its nature with
its length.

A call without arguments and the result None have no bytes at all. Numbers are in the machine's own
byte order: payloads travel between processes of one kernel, of one user, on one machine, through
memory files that only they inherit, and are never stored. That is why pickle may be used here and
nowhere else (recorded values: ``values.pyx``). Every read is checked against the end of the bytes.
"""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint32_t
from libc.stdlib cimport free
from libc.string cimport memcpy

from microkernel.encoded cimport Encoded
from microkernel.function cimport Function
from microkernel.objects.store cimport ObjectStore
from microkernel.processes.function_table cimport FunctionTable, captured, description
from microkernel.processes.payload_writer cimport Coding, PayloadWriter
from microkernel.processes.pickling cimport dismantled
from microkernel.processes.tagged cimport (
    LEFT,
    TEMPLATE,
    put_sized,
    put_tag,
    too_long,
    write_count,
    write_text_in_place,
)
from microkernel.task cimport DONE, Ref
from microkernel.values cimport Writer, reserve, write_raw

from microkernel.errors import NotSendable
from microkernel.processes.pickling import UnfinishedReferences


cdef class Payloads(PayloadWriter):
    """The payloads of one process. ``objects`` may be None: then all goes into the message."""

    def __init__(self, ObjectStore objects, FunctionTable functions):
        self.objects = objects
        self.functions = functions

    cdef int write_arguments(self, Writer *w, tuple args, dict kwargs, list held) except -1:
        cdef size_t start = w.length, kept = len(held)
        cdef Coding coding
        cdef list left
        coding.containers = 0
        coding.scalars_only = False
        if not kwargs and (args is None or len(args) == 0):
            return 0
        try:
            left = self.write_all(w, args, kwargs, &coding, held)
            if left is not None and coding.containers:
                # What is pickled may share a list with what was not.
                w.length = start
                del held[kept:]
                coding.containers = 0
                coding.scalars_only = True
                left = self.write_all(w, args, kwargs, &coding, held)
            if left is not None:
                self.write_pickled(w, left[0] if len(left) == 1 else tuple(left), held)
        except BaseException:
            w.length = start
            del held[kept:]
            raise
        return 0

    cdef list write_all(self, Writer *w, tuple args, dict kwargs, Coding *coding, list held):
        cdef list left = None
        cdef list unfinished = None
        write_count(w, len(args))
        write_count(w, 0 if kwargs is None else len(kwargs))
        for value in args:
            if type(value) is Ref and (<Ref>value).state < DONE:
                unfinished = [value] if unfinished is None else [*unfinished, value]
            else:
                left = self.write_argument(w, value, coding, left, held)
        if kwargs:
            for name, value in kwargs.items():
                write_text_in_place(w, str(name))
                if type(value) is Ref and (<Ref>value).state < DONE:
                    unfinished = [value] if unfinished is None else [*unfinished, value]
                else:
                    left = self.write_argument(w, value, coding, left, held)
        if unfinished is not None:
            raise UnfinishedReferences(unfinished)
        return left

    cdef list write_argument(self, Writer *w, object value, Coding *coding, list left, list held):
        """Write one argument, or note that it is left to pickle."""
        cdef size_t start = w.length, kept
        cdef int containers = coding.containers
        if type(value) is Ref:
            if (<Ref>value).state != DONE:
                raise (<Ref>value).result[0]
            value = (<Ref>value).result
            if type(value) is Encoded:
                write_raw(w, PyBytes_AS_STRING((<Encoded>value).data),
                          PyBytes_GET_SIZE((<Encoded>value).data))
                held.extend((<Encoded>value).held)
                return left
        kept = len(held)
        if self.write_value(w, value, coding, held, 0):
            return left
        w.length = start
        del held[kept:]
        coding.containers = containers
        if containers == 0:
            coding.scalars_only = True
        put_tag(w, LEFT)
        if left is None:
            return [value]
        left.append(value)
        return left

    cdef int write_result(self, Writer *w, object value, list held) except -1:
        cdef size_t start = w.length, kept = len(held)
        cdef Coding coding
        if value is None:
            return 0
        if type(value) is Encoded:
            write_raw(w, PyBytes_AS_STRING((<Encoded>value).data),
                      PyBytes_GET_SIZE((<Encoded>value).data))
            held.extend((<Encoded>value).held)
            return 0
        coding.containers = 0
        coding.scalars_only = False
        try:
            if not self.write_value(w, value, &coding, held, 0):
                w.length = start
                del held[kept:]
                self.write_pickled(w, value, held)
        except BaseException:
            w.length = start
            del held[kept:]
            raise
        return 0

    cdef int write_function(self, Writer *w, Function function, list held) except -1:
        """A function without a number: a template and what it captured, or all of it."""
        cdef size_t start = w.length, kept = len(held)
        cdef uint32_t number = 0, n
        found = self.functions.sent_before(function.call)
        if found is not None:
            held.extend(found[1])
            return write_raw(w, PyBytes_AS_STRING(found[0]), PyBytes_GET_SIZE(found[0]))
        what = captured(function.call)
        if what is not None:
            number = self.functions.template(function.call)
        reserve(w, sizeof(n))
        w.length += sizeof(n)
        try:
            if number:
                put_sized(w, TEMPLATE, number)
                self.write_result(w, (function.code, *what), held)
            else:
                self.write_result(w, description(function), held)
                self.write_pickled(w, function.call, held)
            if w.length - start > 0xffffffff:
                raise too_long("a function", w.length - start)
        except BaseException:
            w.length = start
            del held[kept:]
            raise
        n = <uint32_t>(w.length - start)
        memcpy(w.data + start, &n, sizeof(n))
        if not number:
            self.functions.remember(function.call, w.data[start:w.length], held[kept:])
        return 0

    cdef int write_error(self, Writer *w, object error) except -1:
        """An exception; what of it cannot be sent is replaced by what was printed of it."""
        self.write_pickled(w, dismantled(self.functions, error), None)
        return 0

    cdef int keep(self, Ref task, object value) except -1:
        """Make ``value`` the result of ``task``; what is large in it, as it is at this moment."""
        cdef Writer w
        cdef list held = []
        w.data = NULL
        w.length = w.capacity = 0
        try:
            self.write_result(&w, value, held)
            if held:            # what is small is sent to every task anyway
                value = self.read_result_lazily(w.data, w.length, True)
        except (NotSendable, UnfinishedReferences):
            pass        # it may be for tasks of this process only
        finally:
            free(w.data)
        task.result = value
        return 0

    # For tests, and for what is not written in Cython

    def encode_arguments(self, tuple args, dict kwargs=None):
        """(payload, the blocks that it names)."""
        cdef Writer w
        held = []
        w.data = NULL
        w.length = w.capacity = 0
        try:
            self.write_arguments(&w, args, kwargs, held)
            return PyBytes_FromStringAndSize(<char *>w.data, w.length), held
        finally:
            free(w.data)

    def decode_arguments(self, bytes payload not None):
        """(arguments, named arguments or None)."""
        return self.read_arguments(<const unsigned char *>PyBytes_AS_STRING(payload),
                                   PyBytes_GET_SIZE(payload))

    def encode_result(self, value):
        """(payload, the blocks that it names)."""
        cdef Writer w
        held = []
        w.data = NULL
        w.length = w.capacity = 0
        try:
            self.write_result(&w, value, held)
            return PyBytes_FromStringAndSize(<char *>w.data, w.length), held
        finally:
            free(w.data)

    def decode_result(self, bytes payload not None, *, lazily=False):
        """The value, or with ``lazily`` perhaps an ``Encoded``."""
        cdef const unsigned char *data = <const unsigned char *>PyBytes_AS_STRING(payload)
        if lazily:
            return self.read_result_lazily(data, PyBytes_GET_SIZE(payload), True)
        return self.read_result(data, PyBytes_GET_SIZE(payload))

    def encode_error(self, error):
        """The payload of an exception."""
        cdef Writer w
        w.data = NULL
        w.length = w.capacity = 0
        try:
            self.write_error(&w, error)
            return PyBytes_FromStringAndSize(<char *>w.data, w.length)
        finally:
            free(w.data)

    def decode_error(self, bytes payload not None):
        """The exception."""
        return self.read_error(<const unsigned char *>PyBytes_AS_STRING(payload),
                               PyBytes_GET_SIZE(payload))

    def encode_function(self, Function function not None):
        """(payload, the blocks that it names) of a function without a number."""
        cdef Writer w
        held = []
        w.data = NULL
        w.length = w.capacity = 0
        try:
            self.write_function(&w, function, held)
            return PyBytes_FromStringAndSize(<char *>w.data, w.length), held
        finally:
            free(w.data)

    def decode_function(self, bytes payload not None):
        """(function, bytes that it took)."""
        cdef size_t taken = 0
        function = self.read_function(<const unsigned char *>PyBytes_AS_STRING(payload),
                                      PyBytes_GET_SIZE(payload), &taken)
        return function, taken
