"""The functions and classes that the processes of a kernel have sent each other, each sent once.

Each process has a region of the shared control arena to which it alone appends; what is there
stays as it is. A number is ``station << 24 | place in the region / 16``, so who reads it needs no
agreement with who wrote it: the entry was published, by a release store of the region's length,
before the number was sent. A reader keeps what it has read.

What is sent once keeps the values that it had then: a function's globals and what it captured, a
class's attributes. What one line of a program makes again and again, closures and lambdas, is sent
as a template, and the numbers and texts that it captured with each task. Other closures travel with
their first task whole and get a number when they are sent again, so that those made for one task do
not fill the region. What may change between calls (a bound method's object, a partial application)
travels with each task as it is then.

Entries are pickles, for processes of one user and one kernel: the regions are in a memory file that
only they inherit, and are never stored.
"""
from _pickle import dumps as _dumps
from _pickle import loads as _loads
from types import BuiltinFunctionType, CellType, FunctionType, ModuleType
from weakref import ref as weak

from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_GetItem
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.object cimport PyObject
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy

from microkernel.function cimport Function
from microkernel.ids cimport name_hash
from microkernel.processes.pickling cimport Numbering, dump_in_band, load
from microkernel.processes.tagged cimport checksum

from microkernel.errors import PayloadDamaged
from microkernel.processes.pickling import TooLarge
from microkernel.values import encode

cdef extern from *:
    """
    #include <stdatomic.h>
    static inline uint64_t srds_table_length(const unsigned char *region) {
        return atomic_load_explicit((_Atomic uint64_t *)region, memory_order_acquire);
    }
    static inline void srds_table_publish(unsigned char *region, uint64_t length) {
        atomic_store_explicit((_Atomic uint64_t *)region, length, memory_order_release);
    }
    """
    uint64_t srds_table_length(const unsigned char *region) nogil
    void srds_table_publish(unsigned char *region, uint64_t length) nogil

cdef enum:
    STATIONS = 64
    HEADER = 16             # of the region: its length, 0 for a new one
    UNIT = 16               # entries begin at multiples of it
    PREFIX = 12             # of an entry: its length and checksum
    SHARE = 16              # an entry takes at most this part of the region
    REMEMBERED = 16384
    LONGEST_SCALAR = 1024


cdef class FunctionTable(Numbering):
    """What this process has sent and read; see the module."""

    def __cinit__(self):
        self.plain = {}
        self.codes = {}
        self.known = {}
        self.sent = {}
        self.numbers = {}
        self.functions = {}
        self.values = {}
        self.in_progress = set()

    def __dealloc__(self):
        PyMem_Free(self.regions)

    @staticmethod
    def over(memory, int station, *, int stations=STATIONS):
        """A table over a writable buffer that holds the regions, one after another."""
        cdef unsigned char *regions[STATIONS]
        cdef Py_buffer view
        cdef size_t n
        cdef int i
        if not 0 < stations <= STATIONS or not 0 <= station < stations:
            raise ValueError(f"station {station} of {stations}")
        PyObject_GetBuffer(memory, &view, PyBUF_WRITABLE)
        n = view.len // stations // UNIT * UNIT
        for i in range(STATIONS):
            regions[i] = <unsigned char *>view.buf + i * n if i < stations else NULL
        PyBuffer_Release(&view)
        if n < 2 * UNIT:
            raise ValueError(f"too few bytes for {stations} stations")
        cdef FunctionTable table = function_table(regions, n, station)
        table.memory = memoryview(memory)
        return table

    def number_of_call(self, Function function not None):
        """The number of a task's function, 0 if it is to be sent with the task."""
        return self.number(function)

    def function_of(self, unsigned int number):
        """The task's function of a number."""
        return self.function(number)

    # Tasks' functions

    cdef unsigned int number(self, Function function) except? 0xffffffff:
        cdef PyObject *found
        if function is self.last:
            return self.last_number
        found = PyDict_GetItem(self.plain, function)
        if found == NULL:
            return self.new_number(function)
        self.last_number = <object>found
        self.last = function
        return self.last_number

    cdef unsigned int new_number(self, Function function) except? 0xffffffff:
        call = function.call
        if type(call) is FunctionType and holds_no_data(call):
            number = self.number_of_code(call, function)
        elif type(call) is FunctionType and not lasts(call):
            return self.number_of_closure(call)
        elif (type(call) is FunctionType or isinstance(call, type)
                or type(call) is BuiltinFunctionType and type(call.__self__) is ModuleType):
            number = self.known.get(weak(call))
            if number is None:
                number = self.append_function(function)
                self.known[weak(call, self.forget)] = number
        else:
            return 0        # what it holds may change from call to call
        forget_when_full(self.plain)
        self.plain[function] = number
        return number

    cdef unsigned int append_function(self, Function function) except? 0xffffffff:
        try:
            stream = dump_in_band(self, function.call, None, self.region_bytes // SHARE)
        except TooLarge:
            return 0
        return self.append((*description(function), stream))

    cdef unsigned int number_of_code(self, object call, Function function) except? 0xffffffff:
        """The number of a function without data: those that one place in a program makes are one.

        ``function``: what the kernel knows of it; None if it was made here to be a template.
        """
        key = id(call.__code__), id(call.__globals__), call.__module__, call.__qualname__
        found = self.codes.get(key)
        if found is None:
            if function is None:
                function = Function(call)
            found = call.__code__, call.__globals__, self.append_function(function)
            forget_when_full(self.codes)
            self.codes[key] = found
        return found[2]

    cdef unsigned int number_of_closure(self, object call) except? 0xffffffff:
        """The number of a function that was made with data. It gets one when it is sent again;
        many are not, and would fill the region."""
        found = self.sent.get(weak(call))
        if found is None:
            return 0
        payload, blocks, number = found
        if number is None:
            # The region cannot keep blocks alive.
            number = 0 if blocks else self.append(payload)
            self.sent[weak(call)] = payload if number == 0 else None, blocks, number
        return number

    cdef unsigned int template(self, object call) except? 0xffffffff:
        """The number of the function without what ``captured`` returns."""
        closure = call.__closure__
        bare = FunctionType(call.__code__, call.__globals__, call.__name__, None,
                            closure and tuple([CellType() for _ in closure]))
        bare.__module__ = call.__module__
        bare.__qualname__ = call.__qualname__
        bare.__annotations__ = call.__annotations__
        return self.number_of_code(bare, None)

    cdef tuple sent_before(self, object call):
        """(payload, blocks) of a function that has travelled with a task before, or None."""
        if not isinstance(call, (FunctionType, type)):
            return None
        found = self.sent.get(weak(call))
        return None if found is None else found[:2]

    cdef int remember(self, object call, bytes payload, list blocks) except -1:
        if isinstance(call, (FunctionType, type)):
            self.sent[weak(call, self.forget)] = payload, blocks, None
        return 0

    def forget(self, key):
        self.known.pop(key, None)
        self.sent.pop(key, None)
        self.numbers.pop(key, None)

    cdef Function function(self, unsigned int number):
        cdef Function function = self.functions.get(number)
        if function is not None:
            return function
        found = self.entry(number)
        if type(found) is bytes:
            from microkernel.processes.payload import Payloads

            function, _ = Payloads(None, self).decode_function(found)
        elif type(found) is tuple and len(<tuple>found) == 4:
            name, code, is_async, stream = found
            function = described(name, code, is_async, load(self, stream, None))
        else:
            raise damaged(number)
        forget_when_full(self.functions)
        self.functions[number] = function
        return function

    # Classes and functions within values

    cdef unsigned int number_of(self, object value) except? 0xffffffff:
        cdef unsigned int number
        found = self.numbers.get(weak(value))
        if found is not None:
            return found
        if id(value) in self.in_progress:
            return 0        # it refers to itself, through others
        if ("<locals>" in value.__qualname__
                and srds_table_length(self.regions[self.station]) > self.region_bytes // 2):
            return 0        # a function that makes classes leaves room for those made once
        self.in_progress.add(id(value))
        try:
            stream = dump_in_band(self, value, value, self.region_bytes // SHARE)
            number = self.append((tracker_of(value), stream))
        except TooLarge:
            number = 0
        finally:
            self.in_progress.discard(id(value))
        self.numbers[weak(value, self.forget)] = number
        if number:
            self.values[number] = weak(value)
        return number

    cdef object value_of(self, unsigned int number):
        found = self.values.get(number)
        value = found() if type(found) is weak else found
        if value is not None:
            return value
        found = self.entry(number)
        if type(found) is not tuple or len(<tuple>found) != 2:
            raise damaged(number)
        tracker, stream = found
        value = tracked(tracker)
        if value is None:
            value = load(self, stream, None)
        self.numbers[weak(value, self.forget)] = number
        forget_when_full(self.values)
        self.values[number] = value
        return value

    # The regions

    cdef unsigned int append(self, object entry) except? 0xffffffff:
        """Put an entry into this station's region; 0 if there is no room for it."""
        cdef unsigned char *region = self.regions[self.station]
        cdef bytes data = _dumps(entry, 5)
        cdef uint32_t n = <uint32_t>PyBytes_GET_SIZE(data)
        cdef uint64_t at = srds_table_length(region)
        cdef uint64_t sum = checksum(<const unsigned char *>PyBytes_AS_STRING(data), n)
        cdef size_t size = (PREFIX + PyBytes_GET_SIZE(data) + UNIT - 1) // UNIT * UNIT
        if at < HEADER:
            at = HEADER
        if size > self.region_bytes // SHARE or size > self.region_bytes - at:
            return 0
        memcpy(region + at, &n, sizeof(n))
        memcpy(region + at + sizeof(n), &sum, sizeof(sum))
        memcpy(region + at + PREFIX, PyBytes_AS_STRING(data), n)
        srds_table_publish(region, at + size)
        return <unsigned int>self.station << 24 | <unsigned int>(at // UNIT)

    cdef object entry(self, unsigned int number):
        cdef unsigned int station = number >> 24
        cdef size_t at = <size_t>(number & 0xffffff) * UNIT
        cdef unsigned char *region
        cdef uint32_t n
        cdef uint64_t sum
        if station >= STATIONS or at < HEADER or self.regions[station] == NULL:
            raise damaged(number)
        region = self.regions[station]
        length = min(srds_table_length(region), self.region_bytes)
        if at + PREFIX > length:
            raise damaged(number)
        memcpy(&n, region + at, sizeof(n))
        memcpy(&sum, region + at + sizeof(n), sizeof(sum))
        if n > length - at - PREFIX or checksum(region + at + PREFIX, n) != sum:
            raise damaged(number)
        return _loads(PyBytes_FromStringAndSize(<char *>region + at + PREFIX, n))


cdef FunctionTable function_table(unsigned char **regions, size_t region_bytes, int station):
    cdef FunctionTable table = FunctionTable.__new__(FunctionTable)
    table.regions = <unsigned char **>PyMem_Calloc(STATIONS, sizeof(unsigned char *))
    if table.regions == NULL:
        raise MemoryError()
    memcpy(table.regions, regions, STATIONS * sizeof(unsigned char *))
    table.region_bytes = min(region_bytes, <size_t>UNIT << 24)
    table.station = station
    return table


cdef int forget_when_full(dict remembered) except -1:
    if len(remembered) >= REMEMBERED:
        remembered.clear()
    return 0


cdef object damaged(unsigned int number):
    return PayloadDamaged(
        f"{number:#x} is not the number of a function", what=str(number),
        expected="a number that a process of this kernel has given",
        remedy="report this as a bug, with how to bring it about")


cdef tuple description(Function function):
    return function.name, function.code, bool(function.is_async)


cdef Function described(str name, bytes code, object is_async, object call):
    """The function as the process knows it that sent it: tasks keep their ids everywhere."""
    cdef Function function = Function.__new__(Function)
    function.call = call
    function.name = name
    function.hash = name_hash(name)
    function.code = code
    function.is_async = is_async
    function.opening = b"\x97" + encode(name) + encode(code)
    return function


cdef tuple captured(object call):
    """(variables, defaults, named defaults) of a function if they are scalars, else None."""
    if type(call) is not FunctionType or call.__dict__:
        return None
    try:
        cells = tuple([cell.cell_contents for cell in call.__closure__ or ()])
    except ValueError:
        return None         # a variable that is not set yet
    defaults = call.__defaults__
    named = call.__kwdefaults__
    if (all_scalars(cells) and (defaults is None or all_scalars(defaults))
            and (named is None or all_scalars(tuple(named.values())))):
        return cells, defaults, named
    return None


cdef bint all_scalars(tuple values) except -1:
    cdef type kind
    for value in values:
        kind = type(value)
        if kind is str or kind is bytes:
            if len(value) > LONGEST_SCALAR:
                return False
        elif not (kind is int or kind is float or kind is bool or value is None):
            return False
    return True


cdef Function filled(Function template, bytes code, tuple cells, tuple defaults, dict named):
    """The function of a template, with its data again."""
    cdef Function function = Function.__new__(Function)
    bare = template.call
    if type(bare) is not FunctionType:
        raise TypeError("no template where there should be one")
    closure = None if bare.__closure__ is None else tuple([CellType(value) for value in cells])
    call = FunctionType(bare.__code__, bare.__globals__, bare.__name__, defaults, closure)
    call.__kwdefaults__ = named
    call.__module__ = bare.__module__
    call.__qualname__ = bare.__qualname__
    call.__annotations__ = bare.__annotations__
    function.call = call
    function.name = template.name
    function.hash = template.hash
    function.code = code
    function.is_async = template.is_async
    function.opening = (template.opening if code == template.code
                        else b"\x97" + encode(template.name) + encode(code))
    return function


cdef bint holds_no_data(object call):
    return (call.__closure__ is None and call.__defaults__ is None
            and call.__kwdefaults__ is None and not call.__dict__)


cdef bint lasts(object call):
    """Whether the first task of a function is unlikely to be its only one."""
    return type(call) is not FunctionType or holds_no_data(call) or "<" not in call.__qualname__


cdef object tracker_of(object value):
    """By what cloudpickle recognises a class that it has written or read before."""
    if not isinstance(value, type):
        return None
    from cloudpickle import cloudpickle

    create = getattr(cloudpickle, "_get_or_create_tracker_id", None)
    return None if create is None else create(value)


cdef object tracked(object tracker):
    """The class in this process. To unpickle it again would reset its attributes."""
    if tracker is None:
        return None
    from cloudpickle import cloudpickle

    return getattr(cloudpickle, "_DYNAMIC_CLASS_TRACKER_BY_ID", {}).get(tracker)
