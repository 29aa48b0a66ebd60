"""The engine at C level; see ``engine.pyx``."""
from microkernel.streaming cimport Streamer


cdef class Submitter:
    cdef Engine engine
    cdef object options


cdef class Engine(Streamer):
    cdef set flows              # those that have not ended; None before the first
    cdef int end_flows(self, bint cancelled) except -1
    cdef object mapped(self, object function, tuple iterables, object options, object window,
                       object progress)
    cdef bint shares(self) except -1
