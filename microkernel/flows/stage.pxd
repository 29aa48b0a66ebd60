"""Fused operators, and where their streams leave; see ``stage.pyx``."""
from libc.stdint cimport uint64_t

from microkernel.flows.channel cimport Channel
from microkernel.flows.part cimport Cycle, Part
from microkernel.flows.step cimport Step
from microkernel.function cimport Function
from microkernel.task cimport Ref


cdef class Outlet:
    cdef Part part
    cdef str consumer
    cdef list channels
    cdef object key
    cdef list waiting           # for each channel, a batch that has not gone through yet
    cdef list gone              # and how much of it has
    cdef size_t turn
    cdef uint64_t items
    cdef Channel send(self, list batch)
    cdef int deal(self, list batch) except -1
    cdef int end(self) except -1
    cdef int drop(self) except -1


cdef class Stage:
    cdef Part part
    cdef readonly str name
    cdef readonly int group
    cdef readonly int instance
    cdef unsigned char place
    cdef list steps
    cdef list inputs            # channels, feedbacks first
    cdef size_t feedbacks
    cdef size_t turn
    cdef list work              # (step or outlet, batch, port): what is begun, innermost last
    cdef Step at_step
    cdef Cycle cycle
    cdef int open_steps
    cdef bint opened
    cdef bint over
    cdef bint running
    cdef bint again             # something came while it ran
    cdef bint stalled           # waits for room in a channel
    cdef bint yielded
    cdef bint owing             # took something that another process has sent
    cdef Ref activation         # the task that is to run it, or runs it
    cdef Function function
    cdef uint64_t activations
    cdef unsigned long thread

    cdef int wake(self) except -1
    cdef int resume(self) except -1
    cdef int run(self) except -1
    cdef int go(self) except -1
    cdef int go_on(self, tuple begun) except -1
    cdef int advance(self, Step step, list batch, int port) except -1
    cdef int hand_on(self, list targets, list batch) except -1
    cdef int input_ended(self, Step step) except -1
    cdef Channel next_input(self)
    cdef int open_all(self) except -1
    cdef int release(self) except -1
    cdef int pay(self) except -1
    cdef list drop(self)
