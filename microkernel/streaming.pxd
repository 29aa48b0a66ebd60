"""Streams of items made by tasks; see ``streaming.pyx``."""
from microkernel.streams cimport Channel
from microkernel.task cimport Ref
from microkernel.waiting cimport Waiter


cdef class Streamer(Waiter):
    cdef set streams                    # channels whose generators have not ended

    cdef Channel open_stream(self, object call, tuple args, dict kwargs, object options,
                             object window)
    cdef int resume_stream(self, Channel channel) except -1
    cdef object close_source(self, Channel channel)
    cdef int note_items(self, Channel channel, str end) except -1
    cdef int end_early(self, Channel channel) except -1
    cdef int abandon(self, Channel channel) except -1
    cdef int catch_up(self, Channel channel) except -1
    cdef int end_as_recorded(self, Channel channel) except -1
    cdef bint drive(self, Channel channel) except -1
    cdef object taken(self, Channel channel)
    cdef int tell_end(self, Channel channel) except -1
    cdef int await_item(self, Channel channel) except -1
    cdef int end_streams(self) except -1
