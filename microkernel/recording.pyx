"""The boundary that journals what it lets in.

An input is a msgpack array ``[kind, source, key, ordinal, task, ok, value]``. The first three say
what was asked for, the ordinal how often this task had asked for it before; that is what a replay
matches by. When ``ok`` is false the source raised, and ``value`` is ``[exception name,
arguments]``: the failure of a source is an input like any other.

The inputs of a decision, one after the other, are events of kind ``input`` in blocks of about
4 KiB: an event of its own for each would cost several times what reading the input does. A block
is appended when it is full, at each asynchronous read, and before the decision is closed, so all
inputs of an acknowledged decision are in the journal.
"""
from cpython.ref cimport PyObject
from libc.stdint cimport uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy

from microkernel.event_sink cimport EventSink
from microkernel.ids cimport TaskId
from microkernel.task cimport (
    Boundary,
    DecisionScope,
    Ref,
    begin_fetching,
    end_fetching,
    is_fetching,
)
from microkernel.values cimport (
    Writer,
    reserve,
    swap_bytes,
    write_raw,
    write_text,
    write_uint,
    write_value,
)

from microkernel.errors import ValueNotRecordable
from microkernel.events import INPUT

cdef int INPUT_KIND = INPUT

cdef enum:
    INPUT_BLOCK = 4096      # bytes of inputs that make one event


cdef int write_region(Writer *w, str kind, str source, object key) except -1:
    """What was asked for, as the bytes that a replay matches by."""
    write_text(w, kind)
    write_text(w, source)
    return write_value(w, key, 0)


cpdef object describe_error(object error):
    """``[module:name, arguments]`` of an exception; arguments that have no codec become text."""
    name = f"{type(error).__module__}:{type(error).__qualname__}"
    try:
        arguments = list(error.args)
    except Exception:
        arguments = []
    return [name, [recordable(argument) for argument in arguments]]


cdef object recordable(object argument):
    cdef Writer scratch
    scratch.data = NULL
    scratch.length = scratch.capacity = 0
    try:
        write_value(&scratch, argument, 2)
        return argument
    except Exception:
        pass
    finally:
        free(scratch.data)
    try:
        return repr(argument).encode("utf-8", "backslashreplace").decode()
    except Exception:
        return f"a {type(argument).__qualname__} that cannot be shown"


cdef class Recording(Boundary):
    """Calls the source and appends what it answered to ``sink``."""

    def __cinit__(self, EventSink sink not None):
        self.sink = sink
        self.mode = "recording"

    cdef object exchange(self, Ref task, str kind, str source, object key, object fetch):
        # What a source reads while it answers is its own affair: the answer is the input.
        cdef PyObject *outer = begin_fetching(task)
        if outer == <PyObject *>task:
            return fetch()
        try:
            value = fetch()
        except Exception as error:
            end_fetching(outer)
            self.append_input(task, kind, source, key, False, describe_error(error))
            raise
        except BaseException:
            end_fetching(outer)
            raise
        end_fetching(outer)
        self.append_input(task, kind, source, key, True, value)
        return value

    cdef object keep(self, Ref task, str kind, str source, object key, object value):
        if not is_fetching(task):
            self.append_input(task, kind, source, key, True, value)
        return value

    cdef int append_input(self, Ref task, str kind, str source, object key, bint ok,
                          object value) except -1:
        cdef DecisionScope scope = task.scope
        cdef Writer own
        cdef object unrecordable
        if not scope.recorded:
            return 0        # the decision ended while the source was answering
        if scope.writing:
            # Another thread of this decision is encoding its input at this moment.
            own.data = NULL
            own.length = own.capacity = 0
            try:
                unrecordable = self.encode(&own, task, kind, source, key, ok, value)
                self.sink.append(<unsigned short>INPUT_KIND, 0, &scope.decision, own.data,
                                 own.length)
            finally:
                free(own.data)
            if unrecordable is not None:
                raise unrecordable
            return 0
        scope.writing = True
        try:
            unrecordable = self.encode(&scope.inputs, task, kind, source, key, ok, value)
            scope.whole = scope.inputs.length
        finally:
            scope.inputs.length = scope.whole
            scope.writing = False
        # Where the decision has ended meanwhile, its record is complete without this entry.
        if scope.whole >= INPUT_BLOCK and scope.recorded:
            self.flush(scope)
        if unrecordable is not None:
            raise unrecordable
        return 0

    cdef int finish(self, DecisionScope scope) except -1:
        """Append the inputs that are left when the decision ends, also where a thread that it left
        behind is in the middle of one that comes too late."""
        if not scope.writing:
            return self.flush(scope)
        if scope.whole:
            self.sink.append(<unsigned short>INPUT_KIND, 0, &scope.decision, scope.inputs.data,
                             scope.whole)
        return 0

    cdef int flush(self, DecisionScope scope) except -1:
        """Append the inputs gathered so far; where the sink refuses, keep them and raise."""
        cdef Writer block = scope.inputs
        if block.length == 0 or scope.writing:
            return 0
        # The sink may wait, and others read meanwhile.
        scope.inputs.data = NULL
        scope.inputs.length = scope.inputs.capacity = scope.whole = 0
        try:
            self.sink.append(<unsigned short>INPUT_KIND, 0, &scope.decision, block.data,
                             block.length)
        except BaseException:
            write_raw(&block, scope.inputs.data, scope.whole)
            free(scope.inputs.data)
            scope.inputs = block
            scope.whole = block.length
            raise
        if scope.inputs.data == NULL:
            scope.inputs = block
            scope.inputs.length = 0
        else:
            free(block.data)
        return 0

    cdef object encode(self, Writer *w, Ref task, str kind, str source, object key, bint ok,
                       object value):
        """Add one entry. Where the value has no codec the program gets an error instead, so that
        error is the input; it is returned."""
        cdef size_t start = w.length
        cdef size_t answer
        cdef object unrecordable = None
        reserve(w, 1)
        w.data[w.length] = 0x97         # an array of seven
        w.length += 1
        write_region(w, kind, source, key)
        write_uint(w, task.next_ordinal(w.data + start + 1, w.length - start - 1))
        reserve(w, 19)
        w.data[w.length] = 0xc4
        w.data[w.length + 1] = 16
        put_id(task.id, w.data + w.length + 2)
        w.length += 18
        answer = w.length
        try:
            w.data[w.length] = 0xc3 if ok else 0xc2
            w.length += 1
            write_value(w, value, 0)
        except ValueNotRecordable as error:
            error.add_note(f"it came from source {source!r}, key {key!r}")
            unrecordable = error
            w.length = answer
            write_value(w, False, 0)
            write_value(w, describe_error(error), 0)
        if self.on_input is not None:
            self.on_input(task, kind, source, key)
        return unrecordable


cdef inline void put_id(TaskId id, unsigned char *raw) noexcept:
    cdef uint64_t half = swap_bytes(id.hi)
    memcpy(raw, &half, 8)
    half = swap_bytes(id.lo)
    memcpy(raw + 8, &half, 8)
