"""A queue of tasks whose arguments are there, first in, first out.

A ring of pointers that doubles when it is full. Every operation runs under the GIL and touches the
ring before it lets go of a task, which is all the locking there is. A task that was run out of
turn, because somebody waited for it, leaves a gap, which goes when it comes to the front or before
the ring grows.
"""
from cpython.ref cimport PyObject, Py_DECREF, Py_INCREF
from libc.stdlib cimport free, malloc

from microkernel.task cimport READY, Ref


cdef class ReadyQueue:
    """Tasks in the order in which they became ready."""

    def __cinit__(self):
        self.capacity = 64
        self.slots = <PyObject **>malloc(self.capacity * sizeof(PyObject *))
        if self.slots == NULL:
            raise MemoryError()

    def __dealloc__(self):
        cdef size_t i
        if self.slots != NULL:
            for i in range(self.length):
                Py_DECREF(<object>self.slots[(self.head + i) & (self.capacity - 1)])
            free(self.slots)

    def __len__(self):
        return self.length

    cdef int push(self, Ref task) except -1:
        if self.length == self.capacity:
            self.make_room()
        Py_INCREF(task)
        self.slots[(self.head + self.length) & (self.capacity - 1)] = <PyObject *>task
        self.length += 1
        return 0

    cdef int make_room(self) except -1:
        """Leave out what was run meanwhile, and double the ring if that frees less than half."""
        cdef list gone = []         # let go of at the end, when the ring is whole again
        cdef size_t kept = 0, i
        cdef PyObject *task
        cdef PyObject **slots
        for i in range(self.length):
            kept += (<Ref>self.slots[(self.head + i) & (self.capacity - 1)]).state == READY
        cdef size_t capacity = 2 * self.capacity if 2 * kept > self.capacity else self.capacity
        slots = <PyObject **>malloc(capacity * sizeof(PyObject *))
        if slots == NULL:
            raise MemoryError()
        kept = 0
        for i in range(self.length):
            task = self.slots[(self.head + i) & (self.capacity - 1)]
            if (<Ref>task).state == READY:
                slots[kept] = task
                kept += 1
            else:
                gone.append(<object>task)
                Py_DECREF(<object>task)
        free(self.slots)
        self.slots = slots
        self.capacity = capacity
        self.head = 0
        self.length = kept
        return 0

    cdef Ref pop(self):
        """The next task that is still to be run, or None."""
        cdef Ref task
        while self.length:
            task = <Ref>self.slots[self.head]
            self.drop_front()
            if task.state == READY:
                return task
        return None

    cdef void drop_gaps(self) noexcept:
        """Let go of the tasks at the front that were run out of turn."""
        while self.length and (<Ref>self.slots[self.head]).state != READY:
            self.drop_front()

    cdef void drop_front(self) noexcept:
        cdef PyObject *task = self.slots[self.head]
        self.head = (self.head + 1) & (self.capacity - 1)
        self.length -= 1
        Py_DECREF(<object>task)
