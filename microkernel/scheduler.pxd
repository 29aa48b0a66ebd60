"""Which task runs when and where, at C level; see ``scheduler.pyx``."""
from libc.stdint cimport int64_t, uint64_t

from microkernel.function cimport Function, Functions
from microkernel.ids cimport TaskId
from microkernel.pending cimport Doorbell
from microkernel.ready_queue cimport ReadyQueue
from microkernel.task cimport Ref


cdef class Worker:
    cdef Doorbell bell
    cdef Ref running
    cdef object thread


cdef class Scheduler:
    cdef readonly object settings
    cdef readonly bytes run_id
    cdef TaskId run
    cdef uint64_t roots
    cdef unsigned long process
    cdef ReadyQueue inline_queue
    cdef ReadyQueue thread_queue
    cdef list workers
    cdef list asleep
    cdef list callers
    cdef list deadlines
    cdef size_t deadlines_left
    cdef uint64_t deadlines_set
    cdef size_t threads_left
    cdef size_t most_workers
    cdef Functions functions
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
    cdef bint forked(self) noexcept
    cdef int check_open(self) except -1
    cdef int check_ours(self, Ref task) except -1
    cdef Ref new_task(self, Function function)
    cdef Ref submit_task(self, object call, tuple args, dict kwargs, object options)
    cdef bint missed_in_record(self, Ref task) except -1
    cdef int depend(self, Ref task, Ref on) except -1
    cdef int make_ready(self, Ref task) except -1
    cdef int start_worker(self) except -1
    cdef int wake_worker(self) except -1
    cdef int wake_caller(self) except -1
    cdef bint run_one_inline(self) except -1
    cdef int run_task(self, Ref task) except -1
    cdef int fail(self, Ref task, object error) except -1
    cdef int complete(self, Ref task, int state, object result) except -1
    cdef int task_ended(self, Ref task) except -1
    cdef int set_deadline(self, Ref task, int64_t deadline_ns) except -1
    cdef int64_t first_deadline(self) except -1
    cdef int miss_the_late(self) except -1
    cdef int miss(self, Ref task) except -1
    cdef int interrupt(self, Ref task) except -1
    cdef int heed_interruption(self) except -1
    cdef int cancel_all(self) except -1
    cdef int stop_workers(self, bint cancelled) except -1


cdef bint in_worker() noexcept
cdef bint is_root(Ref task) noexcept
cdef object cancelled_error(Ref task)
cdef object unwrap(Ref task)
