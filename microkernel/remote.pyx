"""Where tasks run beside the kernel's own process, as the scheduler sees it.

The scheduler hands ready tasks over and is told of their ends by ``Scheduler.complete``; it knows
neither processes nor rings. ``microkernel.processes.fabric`` implements this for a kernel,
``microkernel.processes.worker`` for what runs inside a worker, and a cluster may do the same.

All methods are called under the GIL.
"""
from libc.stdint cimport int64_t

from microkernel.pending cimport Doorbell
from microkernel.task cimport Ref

from microkernel.errors import NotOverridden


cdef class Remote:
    """The other places of a kernel's tasks."""

    cdef int push(self, Ref task) except -1:
        """Run a task that is ready, some time, somewhere."""
        raise NotOverridden

    cdef int pump(self) except -1:
        """Take in what has arrived and send what may be sent; never waits."""
        raise NotOverridden

    cdef bint take_back(self, Ref task) except -1:
        """Whether the task had not begun and is the caller's now, to run or to drop."""
        raise NotOverridden

    cdef int interrupt(self, Ref task) except -1:
        """Stop a task that has ended here already (cancelled, or too late) where it still runs; its
        process is replaced if it does not heed that."""
        raise NotOverridden

    cdef bint lead(self, Doorbell bell, int64_t until, size_t count) except -1:
        """After ``bell.listen``: sleep until something arrives, at best until ``count`` tasks have
        ended, until the bell is rung or ``until``. False, at once, where another thread does."""
        raise NotOverridden

    cdef int attend(self, int change) except -1:
        """Somebody needs (1), or does not need any more (-1), to learn of the end of a task without
        waiting for it in the kernel: a coroutine, or a task that depends on it."""
        return 0

    cdef int credit(self, Ref task, size_t items) except -1:
        """So many items of a stream were taken, and as many more may be sent."""
        raise NotOverridden

    cdef int kill(self, Ref task) except -1:
        """The task will be given up next; if it runs, end its process."""
        return 0

    cdef int keep(self, Ref task, object value) except -1:
        """Make ``value`` the result of ``task`` (an object of ``put``) where all can reach it."""
        raise NotOverridden

    def empty(self, shape, dtype):
        """An array where all can reach it, to be filled."""
        raise NotOverridden

    def object_statistics(self):
        """What is where all can reach it: ``ObjectStatistics``."""
        raise NotOverridden

    cdef int close(self, bint cancelled) except -1:
        """Stop all that runs and give everything back."""
        raise NotOverridden
