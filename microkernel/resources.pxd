"""What tasks share, and who waits for a part of it; see ``resources.pyx``."""
from libc.stdint cimport int64_t, uint64_t

from microkernel.task cimport Ref
from microkernel.urgent_queue cimport UrgentQueue


cdef class Need:
    cdef uint64_t mask          # bit i: something of resource i
    cdef int64_t[64] units
    cdef UrgentQueue parked     # tasks with this need that wait for it
    cdef size_t overtaken       # how often others were let in while the first of these waited
    cdef Ref first(self)


cdef class Resources:
    cdef list names
    cdef int64_t[64] total
    cdef int64_t[64] free       # below zero while a task that lent its CPU share has it back early
    cdef dict needs
    cdef dict known
    cdef list waiting           # needs with parked tasks
    cdef dict holders           # tasks that have what they need, in the order in which they got it
    cdef uint64_t arrivals
    cdef uint64_t returns

    cdef Need need_of(self, object options)
    cdef bint admit(self, Ref task) except -1
    cdef bint admit_now(self, Ref task) except -1
    cdef Ref next_admitted(self)
    cdef int release(self, Ref task) except -1
    cdef int park_again(self, Ref task) except -1
    cdef list held_last_first(self)
    cdef list parked_tasks(self)
    cdef bint lend(self, Ref task) except -1
    cdef int take_back(self, Ref task) except -1
    cdef str stands_in_its_own_way(self, Ref task, Ref waited_for)
    cdef bint fits(self, Need need) noexcept
    cdef int take(self, Ref task, Need need) except -1
    cdef int park(self, Ref task, Need need, uint64_t arrival) except -1
    cdef bint kept_for_others(self, Ref task, Need need) except -1
