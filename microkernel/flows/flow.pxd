"""A running graph; see ``flow.pyx``."""
from microkernel.flows.channel cimport Channel
from microkernel.flows.stage cimport Stage
from microkernel.flows.waiting cimport WaitedPart


cdef class Flow(WaitedPart):
    cdef readonly object graph
    cdef dict sources
    cdef dict outputs
    cdef object graph_plan
    cdef dict places            # the station of each (group, instance) in a process of its own
    cdef dict reports           # what each of these said last of its operators
    cdef list opening           # blocks of the messages that open them
    cdef size_t ready           # how many of them have come up
    cdef Channel only_source    # where items enter; None where there are several such places

    cdef int begin(self, object plan) except -1
    cdef Channel source(self, object name)
    cdef Channel output(self, object name)
    cdef int set_going(self, Stage stage) except -1
    cdef int check_taking(self, Channel channel) except -1
    cdef int end_channel(self, Channel channel) except -1
    cdef list taken(self, Channel channel, size_t most)


cdef class Results:
    cdef Flow flow
    cdef Channel channel
