"""A queue of tasks whose arguments are there, first in, first out.

A ring of pointers that doubles when it is full. Every operation runs under the GIL without giving
it up, which is all the locking there is. A task that was run out of turn, because somebody waited
for it, stays in the queue until it comes to the front and is passed over there.
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
        cdef PyObject **grown
        cdef size_t i
        while self.length and (<Ref>self.slots[self.head]).state != READY:
            self.drop_front()
        if self.length == self.capacity:
            grown = <PyObject **>malloc(2 * self.capacity * sizeof(PyObject *))
            if grown == NULL:
                raise MemoryError()
            for i in range(self.length):
                grown[i] = self.slots[(self.head + i) & (self.capacity - 1)]
            free(self.slots)
            self.slots = grown
            self.head = 0
            self.capacity *= 2
        Py_INCREF(task)
        self.slots[(self.head + self.length) & (self.capacity - 1)] = <PyObject *>task
        self.length += 1
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

    cdef void drop_front(self) noexcept:
        cdef PyObject *task = self.slots[self.head]
        self.head = (self.head + 1) & (self.capacity - 1)
        self.length -= 1
        Py_DECREF(<object>task)
