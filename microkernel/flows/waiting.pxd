"""Waiting for a flow, at C level; see ``waiting.pyx``."""
from libc.stdint cimport int64_t

from microkernel.flows.channel cimport Channel
from microkernel.flows.running cimport RunningPart


cdef enum Awaited:
    ROOM = 0        # in a channel
    ITEMS = 1       # in a channel, or its end
    END = 2         # of the flow
    EITHER = 3      # room in one channel, or items in another


cdef class WaitedPart(RunningPart):
    cdef bint holds(self, int awaited, Channel channel, Channel other) noexcept
    cdef bint wait_for(self, int awaited, Channel channel, Channel other,
                       int64_t until) except -1
    cdef bint help(self) except -1
    cdef int check_outside(self) except -1
