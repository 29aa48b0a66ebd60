"""The boundary that journals what it lets in.

An input is one event of kind ``input``: the msgpack array ``[kind, source, key, ordinal, task,
ok, value]``. The first three say what was asked for, the ordinal how often this task had asked for
it before; that is what a replay matches by. When ``ok`` is false the source raised, and ``value``
is ``[exception name, arguments]``: the failure of a source is an input like any other.
"""
from libc.stdlib cimport free

from microkernel.event_sink cimport EventSink
from microkernel.ids cimport TaskId
from microkernel.task cimport Boundary, Ledger, Ref, thread_ident
from microkernel.values cimport (
    Writer,
    write_array_header,
    write_binary,
    write_text,
    write_uint,
    write_value,
)

from microkernel.errors import ValueNotRecordable
from microkernel.events import INPUT

cdef int INPUT_KIND = INPUT


cdef int write_region(Writer *w, str kind, str source, object key) except -1:
    """What was asked for, as the bytes that a replay matches by."""
    write_text(w, kind)
    write_text(w, source)
    return write_value(w, key, 0)


cdef object describe_error(object error):
    """``[module:name, arguments]`` of an exception; arguments that have no codec become text."""
    name = f"{type(error).__module__}:{type(error).__qualname__}"
    cdef Writer scratch
    scratch.data = NULL
    scratch.length = scratch.capacity = 0
    arguments = []
    try:
        for argument in error.args:
            try:
                write_value(&scratch, argument, 0)
                arguments.append(argument)
            except ValueNotRecordable:
                arguments.append(repr(argument))
    finally:
        free(scratch.data)
    return [name, arguments]


cdef class Recording(Boundary):
    """Calls the source and appends what it answered to ``sink``."""

    def __cinit__(self, EventSink sink not None):
        self.sink = sink
        self.mode = "recording"

    cdef object exchange(self, Ref task, str kind, str source, object key, object fetch):
        # What a source reads while it answers is its own affair: the answer is the input.
        cdef unsigned long thread = thread_ident()
        if task.fetching == thread:
            return fetch()
        cdef unsigned long outer = task.fetching
        task.fetching = thread
        try:
            value = fetch()
        except Exception as error:
            task.fetching = outer
            self.append_input(task, kind, source, key, False, describe_error(error))
            raise
        except BaseException:
            task.fetching = outer
            raise
        task.fetching = outer
        self.append_input(task, kind, source, key, True, value)
        return value

    cdef object keep(self, Ref task, str kind, str source, object key, object value):
        if task.fetching != thread_ident():
            self.append_input(task, kind, source, key, True, value)
        return value

    cdef int append_input(self, Ref task, str kind, str source, object key, bint ok,
                          object value) except -1:
        cdef Ledger *ledger = task.open_ledger()
        cdef Writer own
        cdef Writer *w = &ledger.writer
        cdef bint shared = not ledger.busy
        if shared:
            ledger.busy = True
            w.length = 0
        else:
            # Another thread of this task is encoding its input at this moment.
            own.data = NULL
            own.length = own.capacity = 0
            w = &own
        try:
            self.encode_and_append(task, w, kind, source, key, ok, value)
        finally:
            if shared:
                ledger.busy = False
            else:
                free(own.data)
        return 0

    cdef int encode_and_append(self, Ref task, Writer *w, str kind, str source, object key,
                               bint ok, object value) except -1:
        cdef unsigned char raw[16]
        write_array_header(w, 7)
        write_region(w, kind, source, key)
        write_uint(w, task.next_ordinal(w.data + 1, w.length - 1))
        put_id(task.id, raw)
        write_binary(w, raw, 16)
        write_value(w, ok, 0)
        try:
            write_value(w, value, 0)
        except ValueNotRecordable as error:
            error.add_note(f"it came from source {source!r}, key {key!r}")
            raise
        if self.on_input is not None:
            self.on_input(task, kind, source, key)
        self.sink.append(<unsigned short>INPUT_KIND, 0, &task.scope.decision, w.data, w.length)
        return 0


cdef inline void put_id(TaskId id, unsigned char *raw) noexcept:
    cdef int i
    for i in range(8):
        raw[i] = <unsigned char>(id.hi >> (56 - 8 * i))
        raw[8 + i] = <unsigned char>(id.lo >> (56 - 8 * i))
