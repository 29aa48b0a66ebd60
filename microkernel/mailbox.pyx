"""What the scheduler knows of actors: a call is a task whose turn somebody else decides.

A call has an id, arguments, a deadline and a result like any task, and ends like one. Only when it
begins is not the scheduler's affair: where the function of a task is a ``Method``, the scheduler
asks its mailbox. ``microkernel.actors`` implements mailboxes; the tasks of functions pay one
comparison for them.

All methods are called under the GIL.
"""
from microkernel.function cimport Function
from microkernel.task cimport Ref

from microkernel.errors import NotOverridden


cdef class Mailbox:
    """Who decides when the calls of an actor run."""

    cdef int ready(self, Ref call) except -1:
        """The last argument that the call waited for is there."""
        raise NotOverridden

    cdef int ended(self, Ref call) except -1:
        """The call has its result or its error; its function may still be running, given up."""
        return 0

    cdef bint interrupt(self, Ref call) except -1:
        """Break off a call that runs and has been given up; False leaves it to the scheduler."""
        return False

    cdef int awaited(self, Ref call) except -1:
        """The calling thread is about to wait for the call; raises where that would never end."""
        return 0

    cdef Ref before(self, Ref call):
        """What a thread that waits for ``call`` might run first, so that its turn comes; None
        where that is nothing that it could run."""
        return None

    cdef int returned(self, Ref call) except -1:
        """Another process has answered the call, which may have been given up before."""
        return 0

    cdef int lost(self, Ref call, bint begun) except -1:
        """The process that had the call has died."""
        return 0


cdef class Method(Function):
    """A method of one actor."""
