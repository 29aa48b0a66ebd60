"""A queue of tasks whose arguments are there: the urgent ones by urgency, then first in, first out.

A ring of pointers that doubles when it is full; beside it, once a task has asked for a priority or
has a deadline, an ``UrgentQueue``, which costs the others one comparison of a pointer. Every
operation runs under the GIL and touches the ring before it lets go of a task, which is all the
locking there is. A task that was run out of turn, because somebody waited for it, leaves a gap,
which goes when it comes to the front or before the ring grows.
"""
from cpython.ref cimport PyObject, Py_DECREF, Py_INCREF
from libc.stdlib cimport free, malloc

from microkernel.task cimport READY, URGENT, Ref
from microkernel.urgent_queue cimport UrgentQueue


cdef class ReadyQueue:
    """Tasks in the order in which they are to begin."""

    def __cinit__(self):
        self.capacity = 64
        self.slots = <PyObject **>malloc(self.capacity * sizeof(PyObject *))
        if self.slots == NULL:
            raise MemoryError()

    def __dealloc__(self):
        cdef size_t i
        if self.slots != NULL:
            for i in range(self.in_ring):
                Py_DECREF(<object>self.slots[(self.head + i) & (self.capacity - 1)])
            free(self.slots)

    def __len__(self):
        return self.length

    cdef int push(self, Ref task) except -1:
        if task.wants & URGENT:
            if self.urgent is None:
                self.urgent = UrgentQueue()
            self.urgent.push(task)
            return self.count_urgent()
        while self.in_ring == self.capacity:
            self.make_room()
        Py_INCREF(task)
        self.slots[(self.head + self.in_ring) & (self.capacity - 1)] = <PyObject *>task
        self.in_ring += 1
        self.length += 1
        return 0

    cdef int push_front(self, Ref task) except -1:
        """Put back a task that was taken and could not begin: it comes before its equals."""
        if task.wants & URGENT:
            if self.urgent is None:
                self.urgent = UrgentQueue()
            self.urgent.push_front(task)
            return self.count_urgent()
        while self.in_ring == self.capacity:
            self.make_room()
        Py_INCREF(task)
        self.head = (self.head - 1) & (self.capacity - 1)
        self.slots[self.head] = <PyObject *>task
        self.in_ring += 1
        self.length += 1
        return 0

    cdef int count_urgent(self) noexcept:
        self.length = self.in_ring + self.urgent.length
        return 0

    cdef int make_room(self) except -1:
        """Leave out what was run meanwhile, and double the ring if that frees less than half."""
        cdef list gone = []         # let go of at the end, when the ring is whole again
        cdef size_t kept = 0, i
        cdef PyObject *task
        cdef PyObject **slots
        for i in range(self.in_ring):
            kept += (<Ref>self.slots[(self.head + i) & (self.capacity - 1)]).state == READY
        cdef size_t capacity = 2 * self.capacity if 2 * kept > self.capacity else self.capacity
        slots = <PyObject **>malloc(capacity * sizeof(PyObject *))
        if slots == NULL:
            raise MemoryError()
        kept = 0
        for i in range(self.in_ring):
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
        self.length -= self.in_ring - kept
        self.in_ring = kept
        return 0

    cdef Ref pop(self):
        """The next task that is still to be run, or None."""
        cdef Ref task
        if self.urgent is not None:
            task = self.pop_urgent()
            if task is not None:
                return task
        while self.in_ring:
            task = <Ref>self.slots[self.head]
            self.drop_front()
            if task.state == READY:
                return task
        return None

    cdef Ref pop_urgent(self):
        """The next task that asked to go before others, or None."""
        cdef Ref task
        if self.urgent is None:
            return None
        task = self.urgent.pop()
        self.count_urgent()
        return task

    cdef int drop_gaps(self) except -1:
        """Let go of the tasks at the front that were run out of turn."""
        if self.urgent is not None:
            self.urgent.first()
            self.count_urgent()
        while self.in_ring and (<Ref>self.slots[self.head]).state != READY:
            self.drop_front()
        return 0

    cdef void drop_front(self) noexcept:
        cdef PyObject *task = self.slots[self.head]
        self.head = (self.head + 1) & (self.capacity - 1)
        self.in_ring -= 1
        self.length -= 1
        Py_DECREF(<object>task)
