"""Where tasks run beside the kernel's own process, as the scheduler sees it; see ``remote.pyx``."""
from libc.stdint cimport int64_t

from microkernel.pending cimport Doorbell
from microkernel.task cimport Ref


cdef class Remote:
    cdef readonly size_t outstanding    # tasks that were pushed and have not ended
    cdef bint lends                     # what it was given can be taken back

    cdef int push(self, Ref task) except -1
    cdef int pump(self) except -1
    cdef bint take_back(self, Ref task) except -1
    cdef int interrupt(self, Ref task) except -1
    cdef bint lead(self, Doorbell bell, int64_t until, size_t count) except -1
    cdef int attend(self, int change) except -1
    cdef int credit(self, Ref task, size_t items) except -1
    cdef int kill(self, Ref task) except -1
    cdef int keep(self, Ref task, object value) except -1
    cdef int close(self, bint cancelled) except -1
