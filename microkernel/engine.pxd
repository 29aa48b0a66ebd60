"""The engine at C level; see ``engine.pyx``."""
from libc.stdint cimport int64_t, uint64_t

from microkernel.ids cimport TaskId
from microkernel.pending cimport Doorbell, Pending
from microkernel.ready_queue cimport ReadyQueue
from microkernel.task cimport Function, Ref


cdef class Worker:
    cdef Doorbell bell
    cdef Ref running
    cdef object thread


cdef class Submitter:
    cdef Engine engine
    cdef object options


cdef class Engine:
    cdef readonly object settings
    cdef readonly bytes run_id
    cdef TaskId run
    cdef uint64_t roots
    cdef ReadyQueue inline_queue
    cdef ReadyQueue thread_queue
    cdef list workers
    cdef list asleep
    cdef list callers
    cdef size_t threads_left
    cdef size_t most_workers
    cdef dict functions
    cdef bint open
    cdef bint stopping
    cdef bint threaded
    cdef list on_submitted
    cdef list on_started
    cdef list on_finished
    cdef list on_object_made
    cdef object __weakref__

    cdef list hooks(self, str name)
    cdef int tell(self, list hooks, tuple event) except -1
    cdef int drain(self) except -1
    cdef int cancel_all(self) except -1
    cdef int stop_workers(self, bint cancelled) except -1
    cdef int wake_worker(self) except -1
    cdef int wake_caller(self) except -1
    cdef int task_ended(self, Ref task) except -1
    cdef int check_open(self) except -1
    cdef Function function_of(self, object call)
    cdef Ref new_task(self, Function function)
    cdef submit_task(self, object call, tuple args, dict kwargs, object options)
    cdef bint missed_in_record(self, Ref task) except -1
    cdef int depend(self, Ref task, Ref on) except -1
    cdef int make_ready(self, Ref task) except -1
    cdef bint run_one_inline(self) except -1
    cdef int run_task(self, Ref task) except -1
    cdef int fail(self, Ref task, object error) except -1
    cdef int complete(self, Ref task, int state, object result) except -1
    cdef int miss(self, Ref task) except -1
    cdef int interrupt(self, Ref task) except -1
    cdef int help(self, Ref target) except -1
    cdef bint mine(self, Ref task) noexcept
    cdef int finish(self, Ref task, int64_t until) except -1
    cdef int finish_all(self, list refs, int64_t until) except -1
    cdef int block(self, Pending pending, size_t count, int64_t until, bint must) except -1
    cdef int miss_the_late(self, Pending pending) except -1
    cdef int64_t first_deadline(self, Pending pending) noexcept
    cdef list wait_live(self, Pending pending, size_t count, int64_t until)
    cdef list wait_as_recorded(self, Pending pending, object positions)


cdef object unwrap(Ref task)
