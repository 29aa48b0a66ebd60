"""The sinks that need no journal: one that keeps nothing, one that keeps everything in memory."""
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint16_t, uint64_t

from microkernel.ids cimport TaskId, id_to_bytes


cdef class EventSink:
    """Where the kernel appends its events; ``timemachine.journal.Journal`` is one that keeps them.

    ``append`` is called with or without the GIL, from any thread, and returns once the event is
    acknowledged: it survives the death of the process. ``decision`` is the decision that the event
    belongs to, or NULL. ``data`` is only borrowed for the call.
    """

    cdef int append(self, uint16_t kind, uint64_t flags, const TaskId *decision,
                    const void *data, size_t n) except -1 nogil:
        return 0


cdef class MemorySink(EventSink):
    """Keeps events in ``events``, as (kind, flags, decision or None, payload), while it lives."""

    def __cinit__(self):
        self.events = []

    cdef int append(self, uint16_t kind, uint64_t flags, const TaskId *decision,
                    const void *data, size_t n) except -1 nogil:
        with gil:
            self.events.append((kind, flags, None if decision == NULL else id_to_bytes(decision[0]),
                                PyBytes_FromStringAndSize(<const char *>data, n)))
        return 0
