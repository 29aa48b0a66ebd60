"""A bounded queue between two stages; see ``channel.pyx``."""
from cpython.ref cimport PyObject
from libc.stdint cimport uint64_t


cdef class Channel:
    cdef PyObject **slots
    cdef size_t size
    cdef size_t head
    cdef readonly size_t length
    cdef readonly size_t capacity       # 0: any number of items
    cdef readonly size_t batch          # items that the consumer takes at once
    cdef readonly size_t most           # items that ever waited at the same time
    cdef readonly uint64_t passed       # items that have ever gone in
    cdef readonly object consumer       # the stage that takes; None where a program does
    cdef object step                    # the operator of that stage, and its input
    cdef int port
    cdef bint feedback
    cdef bint remote                    # its other end is in another process
    cdef int producers                  # who may still send
    cdef bint told                      # the consumer knows that nothing more comes
    cdef list stalled                   # stages that wait for room

    cdef size_t room(self) noexcept
    cdef size_t push(self, list batch, size_t first) except? 0xffffffffffffffff
    cdef int push_one(self, object item) except -1
    cdef list pop(self, size_t most)
    cdef object pop_one(self)
    cdef bint ended(self) noexcept
    cdef int end(self) except -1
    cdef int pay(self) except -1
    cdef list drop(self)
    cdef int grow(self, size_t wanted) except -1
