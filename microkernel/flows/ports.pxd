"""What links the parts of flows in different processes; see ``ports.pyx``."""
from libc.stdint cimport uint16_t, uint32_t, uint64_t

from microkernel.flows.channel cimport Channel
from microkernel.flows.part cimport Part
from microkernel.processes.station cimport Handler, Station, srds_message
from microkernel.values cimport Writer


cdef enum What:
    OPEN = 1        # a part of a flow: see hosting.pyx
    READY = 2       # it is there
    START = 3       # all parts are there: they may send to one another
    ITEMS = 4       # a batch
    CREDIT = 5      # so many items have gone through
    ENDED = 6       # one of those who send is done
    COUNTERS = 7    # what its operators have done
    OVER = 8        # every item has gone through the part
    FAILED = 9      # an error


cdef class Ports(Handler):
    cdef Station station
    cdef dict parts             # by their numbers
    cdef uint32_t last          # number that was given

    cdef int send(self, int to, int what, uint32_t part, uint32_t link, uint32_t count,
                  const void *data, size_t n, uint16_t flags) except -1
    cdef list send_value(self, int to, int what, uint32_t part, uint32_t link, uint32_t count,
                         object value)
    cdef int send_error(self, int to, uint32_t part, object error) except -1
    cdef object read_value(self, bytes data, uint16_t flags)


cdef class Outport(Channel):
    cdef Ports ports
    cdef uint32_t part
    cdef uint32_t number
    cdef int to
    cdef bint started           # the other end is there
    cdef bint ends              # nothing more comes, which the other end is told when it is there
    cdef uint64_t gone          # items that have gone through
    cdef object held            # (items, blocks of the object arena) until these have gone through
    cdef int start(self) except -1
    cdef int credit(self, uint32_t count) except -1


cdef class Inlet(Channel):
    cdef Ports ports
    cdef uint32_t part
    cdef uint32_t number
    cdef int sender
    cdef object batches         # (how many, encoded items, flags)
    cdef list decoded
    cdef size_t at
    cdef size_t owed            # items that were taken and not paid for
    cdef int deliver(self, uint32_t count, bytes data, uint16_t flags) except -1
    cdef int decode(self) except -1
