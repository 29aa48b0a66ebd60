"""An actor in the process that it has for itself; see ``host.pyx``."""
from libc.stdint cimport int64_t, uint32_t

from microkernel.actors.threads cimport ThreadActor
from microkernel.engine cimport Engine
from microkernel.function cimport Function
from microkernel.processes.station cimport Handler, Station
from microkernel.task cimport Ref


cdef enum:
    CONCURRENT = 1 << 24        # of a method's number: the call is not to wait for others


cdef class Host(Handler):
    cdef Station station
    cdef Engine engine
    cdef object cls
    cdef object instance
    cdef list functions         # by number
    cdef ThreadActor concurrent  # runs the calls that are not to wait for others
    cdef dict open              # (station, slot) -> call

    cdef Function function(self, uint32_t number)
    cdef int begin(self, Ref call, int sender, uint32_t slot) except -1


cdef class Reply:
    cdef Station station
    cdef dict open
    cdef Ref call
    cdef int to
    cdef uint32_t slot
    cdef int64_t begun_ns
