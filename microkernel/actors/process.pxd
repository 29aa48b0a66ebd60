"""Actors in processes of their own, seen from the driver; see ``process.pyx``."""
from libc.stdint cimport uint64_t

from microkernel.actors.actor cimport Actor
from microkernel.actors.switchboard cimport Switchboard
from microkernel.mailbox cimport Method
from microkernel.processes.fabric cimport Fabric
from microkernel.task cimport Ref


cdef class ProcessActor(Actor):
    cdef Fabric fabric
    cdef Switchboard switchboard
    cdef int station            # 0: none at the moment
    cdef size_t window          # calls that are sent ahead
    cdef bint concurrent        # what is sent is begun at once
    cdef bint sending
    cdef size_t restarts_left
    cdef unsigned char attempt
    cdef Method constructing
    cdef tuple made_of          # the constructor's arguments, as long as it may be called again
    cdef bint has_state
    cdef Ref restoring          # the call of restore under way
    cdef object state           # of the last checkpoint
    cdef dict checkpoints       # calls of checkpoint under way, and how many calls came before
    cdef list log               # (call, method, args, kwargs) since the last checkpoint
    cdef uint64_t logged        # calls before those in the log
    cdef size_t unsaved         # calls sent since a checkpoint was asked for
    cdef uint64_t internal      # calls that nobody made
    cdef size_t returned_calls  # at the front of the queue, to be run again

    cdef int send(self, Ref call) except -1
    cdef int note_sent(self, Ref call, tuple args, dict kwargs) except -1
    cdef int fail_queued(self, str reason) except -1
    cdef int construct_again(self) except -1
    cdef Ref internal_call(self, str name, tuple args, dict kwargs)
    cdef bint is_internal(self, Ref call) noexcept
    cdef int saved(self, Ref call) except -1
