"""Tasks by the time at which something happens to them; see ``alarms.pyx``."""
from libc.stdint cimport int64_t

from microkernel.task cimport Ref


cdef class Alarms:
    cdef list entries           # a heap of (time, number, task)
    cdef unsigned char flag     # of the tasks that the alarm is for; 0: all that have not ended
    cdef readonly size_t left   # tasks that have an alarm and have not ended
    cdef object numbers

    cdef bint pending(self, Ref task) noexcept
    cdef bint add(self, Ref task, int64_t time_ns) except -1
    cdef int64_t first(self) except -1
    cdef Ref due(self, int64_t now)
    cdef list take_all(self)
