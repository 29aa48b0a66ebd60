"""A worker process; see ``worker.pyx``."""
from libc.stdint cimport int32_t, int64_t, uint32_t

from microkernel.actors.host cimport Host
from microkernel.event_sink cimport EventSink
from microkernel.processes.station cimport Station, srds_task
from microkernel.task cimport Ref
from microkernel.values cimport Writer


cdef struct Waiting:
    srds_task *message
    int sender


cdef class Gathering(EventSink):
    cdef Writer blocks


cdef class Worker(Station):
    cdef Waiting *waiting       # a ring of tasks that were received and not run
    cdef uint32_t waiting_room
    cdef uint32_t first_waiting
    cdef uint32_t end_waiting
    cdef int32_t[256] free_offers
    cdef int offers_left
    cdef int next_victim
    cdef int busy_with          # the sender of the message that is being answered; -1: none
    cdef bint leading
    cdef bint forked            # in a child of the worker, which must not answer in its place
    cdef Gathering gathering
    cdef object recording
    cdef Host host              # of the actor that lives here

    cdef int take_over(self) except -1
    cdef int live(self) except -1
    cdef int sleep(self, int64_t until) except -1
    cdef int run_next(self) except -1
    cdef int run(self, int sender, srds_task *message) except -1
    cdef Ref made_of(self, int sender, srds_task *message)
    cdef int begin_call(self, int sender, srds_task *message) except -1
    cdef bint steal(self) except -1
    cdef int ask_for_work(self) except -1
    cdef bint offer(self, Ref task) except -1
    cdef int finish_nested(self) except -1
    cdef int drop_nested(self) except -1
    cdef int make_local(self, Ref task) except -1
