"""A queue of tasks whose arguments are there; see ``ready_queue.pyx``."""
from cpython.ref cimport PyObject

from microkernel.task cimport Ref


cdef class ReadyQueue:
    cdef PyObject **slots
    cdef size_t capacity
    cdef size_t head
    cdef size_t length

    cdef int push(self, Ref task) except -1
    cdef Ref pop(self)
    cdef void drop_front(self) noexcept
