"""Tasks with a priority or a deadline, the most urgent first; see ``urgent_queue.pyx``."""
from cpython.ref cimport PyObject
from libc.stdint cimport int64_t, uint64_t

from microkernel.task cimport Ref


cdef struct Entry:
    int64_t deadline_ns         # the last moment there is, for a task without a deadline
    uint64_t arrival
    PyObject *task


cdef struct Level:
    Entry *entries              # a heap
    size_t length
    size_t capacity


cdef class UrgentQueue:
    cdef readonly size_t length
    cdef uint64_t filled        # bit p: there are tasks of priority p
    cdef uint64_t arrivals
    cdef uint64_t returns
    cdef Level[64] levels
    cdef unsigned char alive    # the state of a task that is still to be taken

    cdef int push(self, Ref task) except -1
    cdef int push_front(self, Ref task) except -1
    cdef int push_as(self, Ref task, uint64_t arrival) except -1
    cdef Ref first(self)
    cdef Ref pop(self)
    cdef int make_room(self, Level *level) except -1
    cdef object take(self, unsigned int priority)
