"""What the scheduler knows of actors; see ``mailbox.pyx``."""
from microkernel.function cimport Function
from microkernel.task cimport Ref


cdef class Mailbox:
    cdef int ready(self, Ref call) except -1
    cdef int ended(self, Ref call) except -1
    cdef bint interrupt(self, Ref call) except -1
    cdef int awaited(self, Ref call) except -1
    cdef Ref before(self, Ref call)
    cdef int returned(self, Ref call) except -1
    cdef int lost(self, Ref call, bint begun) except -1


cdef class Method(Function):
    cdef Mailbox mailbox
    cdef str key                # its name
    cdef unsigned int number    # among the methods of its class, for messages; 0: none
