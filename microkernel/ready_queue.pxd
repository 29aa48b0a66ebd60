"""A queue of tasks whose arguments are there; see ``ready_queue.pyx``."""
from cpython.ref cimport PyObject

from microkernel.task cimport Ref
from microkernel.urgent_queue cimport UrgentQueue


cdef class ReadyQueue:
    cdef PyObject **slots
    cdef size_t capacity
    cdef size_t head
    cdef size_t in_ring
    cdef readonly size_t length  # of ring and urgent tasks, gaps included
    cdef UrgentQueue urgent     # None until there is an urgent task

    cdef int push(self, Ref task) except -1
    cdef int push_front(self, Ref task) except -1
    cdef Ref pop(self)
    cdef Ref pop_urgent(self)
    cdef int make_room(self) except -1
    cdef int drop_gaps(self) except -1
    cdef int count_urgent(self) noexcept
    cdef void drop_front(self) noexcept
