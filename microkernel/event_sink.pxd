"""The one append path, at C level: what a journal implements and everything else calls."""
from libc.stdint cimport uint16_t, uint64_t

from microkernel.ids cimport TaskId


cdef class EventSink:
    cdef int append(self, uint16_t kind, uint64_t flags, const TaskId *decision,
                    const void *data, size_t n) except -1 nogil


cdef class MemorySink(EventSink):
    cdef readonly list events
