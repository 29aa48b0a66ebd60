"""Which task goes to which worker, at C level; see ``dispatcher.pyx``."""
from libc.stdint cimport int64_t, uint32_t, uint64_t

from microkernel.processes.station cimport Station, srds_ring
from microkernel.ready_queue cimport ReadyQueue
from microkernel.task cimport Ref


cdef struct Place:
    # What the driver knows of a station.
    bint used
    bint general                # takes any task; others are an actor's or a flow's
    bint up                     # its process is started and watched
    bint ending
    int pid
    uint32_t limit              # tasks that it is sent ahead
    double length_ns            # of its tasks, a moving average
    uint64_t done               # tasks that it has answered
    uint64_t seen_done          # as many when that was last found to have changed,
    int64_t seen_ns             # and when


cdef class Dispatcher(Station):
    cdef Place[64] places
    cdef int used               # one more than the highest station in use
    cdef int general            # stations that take any task
    cdef int most               # of them
    cdef readonly ReadyQueue queue
    cdef srds_ring *inbound[64]
    cdef uint32_t leading       # a thread of the program sleeps at the doorbell
    cdef bint dozing            # the attendant sleeps until it is called

    cdef int make_way(self) except -1
    cdef int best(self) noexcept
    cdef int dispatch_to(self, int station, Ref task) except -1
    cdef int wait_for(self, Ref task, list references) except -1
    cdef int dispatch(self) except -1
    cdef int rebalance(self) except -1
    cdef bint holds_up(self, int station) noexcept
    cdef bint lopsided(self) noexcept
    cdef bint revoke(self, uint32_t slot) except -1
    cdef int want_workers(self) except -1
    cdef int call_attendant(self) noexcept
    cdef bint news_of_death(self) noexcept
    cdef unsigned int cpu_of_the_busy(self) noexcept nogil
