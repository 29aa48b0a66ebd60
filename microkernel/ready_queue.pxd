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
    cdef int make_room(self) except -1
    cdef void drop_gaps(self) noexcept
    cdef void drop_front(self) noexcept
