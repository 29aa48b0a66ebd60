"""Which task runs when and where, at C level; see ``scheduler.pyx``."""
from libc.stdint cimport int64_t, uint64_t

from microkernel.alarms cimport Alarms
from microkernel.function cimport Function, Functions
from microkernel.ids cimport TaskId
from microkernel.ready_queue cimport ReadyQueue
from microkernel.remote cimport Remote
from microkernel.resources cimport Resources
from microkernel.task cimport DecisionScope, Ref
from microkernel.tracing.trace cimport TraceRing


cdef class Scheduler:
    cdef readonly object settings
    cdef readonly bytes run_id
    cdef TaskId run
    cdef uint64_t roots
    cdef unsigned long process
    cdef ReadyQueue inline_queue
    cdef ReadyQueue thread_queue
    cdef list callers
    cdef Alarms deadlines
    cdef Alarms pauses
    cdef Resources resources
    cdef Remote remote                  # None until a task is to run in another process
    cdef size_t threads_left            # tasks in threads that have not ended
    cdef size_t remote_left             # tasks with ``remote`` that have not ended
    cdef Functions functions
    cdef TraceRing ring
    cdef bint open
    cdef unsigned char place            # of tasks that do not ask for another
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
    cdef Ref submit_function(self, Function function, tuple args, dict kwargs, object options)
    cdef Ref prepare(self, Function function, tuple args, dict kwargs, object options,
                     bint *references)
    cdef int hand_in(self, Ref task, bint references) except -1
    cdef int grant(self, Ref task, object options) except -1
    cdef int enlist(self, Ref task) except -1
    cdef bint missed_in_record(self, Ref task) except -1
    cdef int depend(self, Ref task, Ref on) except -1
    cdef int make_ready(self, Ref task) except -1
    cdef int enqueue(self, Ref task) except -1
    cdef int let_go(self, Ref task) except -1
    cdef int admit_parked(self) except -1
    cdef Remote open_remote(self)
    cdef int need_worker(self) except -1
    cdef int wake_worker(self) except -1
    cdef int wake_caller(self) except -1
    cdef int failed(self, Ref task, object error) except -1
    cdef int run_stream(self, Ref task) except -1
    cdef int cut_stream(self, Ref task, str end) except -1
    cdef int end_elsewhere(self, Ref task, bint ok, object value) except -1
    cdef int append_gathered(self, Ref task, const unsigned char *events, size_t n) except -1
    cdef int finish_scope(self, DecisionScope scope) except -1
    cdef int fail(self, Ref task, object error) except -1
    cdef int complete(self, Ref task, int state, object result) except -1
    cdef list tell_waiter(self, Ref task, object waiter, list failed)
    cdef int asking_ended(self, Ref task) except -1
    cdef int task_ended(self, Ref task) except -1
    cdef int set_deadline(self, Ref task, int64_t deadline_ns) except -1
    cdef int miss_the_late(self) except -1
    cdef int miss(self, Ref task) except -1
    cdef int end_late(self, Ref task) except -1
    cdef int interrupt(self, Ref task) except -1
    cdef int end_actors(self, bint cancelled) except -1


cdef bint in_worker() noexcept
cdef void be_worker() noexcept
cdef bint is_root(Ref task) noexcept
cdef object cancelled_error(Ref task)
cdef object unwrap(Ref task)
cdef tuple resolved(tuple args)
cdef dict resolved_names(dict kwargs)
