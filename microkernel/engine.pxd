"""Waiting for tasks, at C level; see ``engine.pyx``."""
from libc.stdint cimport int64_t

from microkernel.pending cimport Doorbell, Pending
from microkernel.scheduler cimport Scheduler
from microkernel.task cimport Ref


cdef class Submitter:
    cdef Engine engine
    cdef object options


cdef class Engine(Scheduler):
    cdef int drain(self) except -1
    cdef bint mine(self, Ref task) noexcept
    cdef Ref needed_by(self, Ref task)
    cdef Ref needed_by_any(self, Pending pending)
    cdef bint run_something(self, Pending pending) except -1
    cdef int help(self, Ref target) except -1
    cdef int finish(self, Ref task, int64_t until) except -1
    cdef int finish_all(self, list refs, int64_t until) except -1
    cdef int block(self, Pending pending, size_t count, int64_t until, bint must) except -1
    cdef int rest(self, Doorbell bell, int64_t until) except -1
    cdef list wait_live(self, Pending pending, size_t count, int64_t until, list positions)
    cdef list wait_as_recorded(self, Pending pending, object positions)
    cdef bint give_up(self, Ref task, object error) except -1
