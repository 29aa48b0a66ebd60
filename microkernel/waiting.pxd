"""Waiting for tasks, and running what is waited for; see ``waiting.pyx``."""
from libc.stdint cimport int64_t

from microkernel.pending cimport Doorbell, Pending
from microkernel.running cimport Runner
from microkernel.task cimport Ref


cdef class Waiter(Runner):
    cdef bint mine(self, Ref task) except -1
    cdef Ref needed_by(self, Ref task)
    cdef Ref needed_by_any(self, Pending pending)
    cdef bint insist(self, Ref task) except -1
    cdef bint lend_share(self, Ref here) except -1
    cdef bint run_something(self, Pending pending) except -1
    cdef int run_urgent(self, Ref here) except -1
    cdef int help(self, Ref target) except -1
    cdef int help_with_all(self, Ref target, Ref here) except -1
    cdef int check_awaited(self, Ref task) except -1
    cdef int finish(self, Ref task, int64_t until) except -1
    cdef list finish_in_order(self, list tasks)
    cdef int finish_all(self, list refs, int64_t until) except -1
    cdef int block(self, Pending pending, size_t count, int64_t until, bint must) except -1
    cdef int rest(self, Doorbell bell, int64_t until, size_t count) except -1
    cdef int drain(self) except -1
    cdef list wait_live(self, Pending pending, size_t count, int64_t until, list positions)
    cdef list wait_as_recorded(self, Pending pending, object positions)
