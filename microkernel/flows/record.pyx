"""One task record for many short calls, one after another.

A call of an operator or of a template is a task: ``current_task``, random streams, the shims and
``submit`` mean in it what they mean in any other. But nobody waits for it, so one ``Ref`` stands
for all of them in turn, and is left to whoever has kept it: a task costs the mixing of an id.
"""
from microkernel.scheduler cimport Scheduler
from microkernel.task cimport RUNNING, DecisionScope, Ref, enter, leave, thread_ident
from microkernel.tracing cimport trace


cdef class Record:
    """The tasks of calls that one thread at a time makes."""

    cdef int take_thread(self) except -1:
        """Make the record what this thread runs, until ``give_thread``."""
        self.task.thread = thread_ident()
        self.outer = enter(self.task)
        if self.outer is not None:
            self.outer.helping += 1     # nobody must aim at it while it is not on top
        self.entered = True
        return 0

    cdef int give_thread(self) except -1:
        leave(self.outer)
        if self.outer is not None:
            self.outer.helping -= 1
        self.outer = None
        self.entered = False
        return 0

    cdef int renew(self) except -1:
        """Leave the record to whoever kept it."""
        cdef Ref task = Ref.__new__(Ref)
        task.kernel = self.kernel
        task.parent = self.parent
        task.scope = self.scope
        task.state = RUNNING
        if self.task is not None:
            task.function = self.task.function
            task.id = self.task.id
        if self.entered:
            task.thread = self.task.thread
            leave(self.outer)
            enter(task)
        self.task = task
        return 0

    cdef int begin(self) except -1:
        """Tell of a call that begins."""
        trace.submitted(self.kernel.ring, self.task)
        if self.kernel.on_submitted is not None:
            self.kernel.tell(self.kernel.on_submitted, (self.task,))
        trace.begin(self.kernel.ring, self.task)
        if self.kernel.on_started is not None:
            self.kernel.tell(self.kernel.on_started, (self.task,))
        return 0

    cdef int end(self, int state, object result) except -1:
        """Tell how the call ended: its result, or (error, traceback)."""
        trace.end(self.kernel.ring, self.task)
        trace.append(self.kernel.ring, self.task, state, result)
        if self.scope is None and self.kernel.on_finished is None:
            return 0
        self.task.state = <unsigned char>state
        self.task.result = result
        if self.scope is not None:
            self.kernel.task_ended(self.task)
        if self.kernel.on_finished is not None:
            self.kernel.tell(self.kernel.on_finished, (self.task,))
        if Py_REFCNT(<PyObject *>self.task) > 1:
            self.renew()
        self.task.state = RUNNING
        self.task.result = None
        return 0


cdef Record new_record(Scheduler kernel, TaskId parent, DecisionScope scope):
    """A record for tasks of ``parent``."""
    cdef Record record = Record.__new__(Record)
    record.kernel = kernel
    record.parent = parent
    record.scope = scope
    record.renew()
    return record
