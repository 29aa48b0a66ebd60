"""What a stage knows of the flow that it is part of; see ``part.pyx``."""
from libc.stdint cimport uint32_t

from microkernel.engine cimport Engine
from microkernel.flows.channel cimport Channel
from microkernel.flows.step cimport Step
from microkernel.task cimport Ref


cdef enum FlowState:
    FLOWING = 0
    DRAINED = 1
    BROKEN = 2      # failed or cancelled


cdef class Cycle:
    cdef int number
    cdef list stages
    cdef list feedbacks
    cdef list inside            # channels, also feedbacks
    cdef bint over


cdef class Part:
    cdef Engine kernel
    cdef Ref ended
    cdef readonly str name
    cdef FlowState state
    cdef list stages
    cdef list cycles
    cdef size_t unfinished      # stages that are not over
    cdef list inline_ready      # stages that wait for a thread that uses the flow
    cdef list callers           # bells of those who wait for the flow
    cdef list listeners         # called, once, when those would be rung
    cdef uint32_t number        # by which processes speak of the flow
    cdef object ports           # what links it with other processes; None where nothing does
    cdef dict links             # its channels to and from there, by their numbers

    cdef int ring(self) except -1
    cdef int room_made(self, Channel channel) except -1
    cdef int arrived(self, Channel channel) except -1
    cdef int stage_over(self) except -1
    cdef int settle(self, Cycle cycle) except -1
    cdef int operator_failed(self, Step step, object error) except -1
    cdef int fail(self, object error) except -1
    cdef int drained(self) except -1
    cdef int wind_up(self) except -1
    cdef int tell(self, object error) except -1
    cdef int heard(self, int sender, int what, object payload) except -1
    cdef int station_ended(self, int station) except -1
    cdef int went_on(self) except -1
    cdef list counts(self)
    cdef bint run_inline(self) except -1
