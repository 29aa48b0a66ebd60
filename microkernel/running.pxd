"""Running tasks, beginning them again and stopping them; see ``running.pyx``."""
from libc.stdint cimport int64_t

from microkernel.pending cimport Doorbell
from microkernel.scheduler cimport Scheduler
from microkernel.task cimport Ref


cdef class Worker:
    cdef Doorbell bell
    cdef Ref running
    cdef object thread


cdef class Runner(Scheduler):
    cdef list workers
    cdef list asleep
    cdef size_t most_workers
    cdef bint stopping
    cdef object alarm                   # the thread that ends pauses; None before the first
    cdef Doorbell alarm_bell

    cdef int start_worker(self) except -1
    cdef bint run_one_inline(self) except -1
    cdef int run_task(self, Ref task) except -1
    cdef Ref begin_task(self, Ref task)
    cdef int leave_task(self, Ref task, Ref previous) except -1
    cdef int stop_thread_by(self, object error) except -1
    cdef int pause(self, Ref task, int64_t length_ns) except -1
    cdef int run_stream(self, Ref task) except -1
    cdef bint give_up(self, Ref task, object error) except -1
    cdef int heed_interruption(self) except -1
    cdef int cancel_all(self) except -1
    cdef int stop_workers(self, bint cancelled) except -1
