"""Calls from worker processes, and the ends of actors' processes; see ``switchboard.pyx``."""
from microkernel.actors.actor cimport Actor
from microkernel.actors.registry cimport Actors
from microkernel.engine cimport Engine
from microkernel.mailbox cimport Method
from microkernel.processes.station cimport Handler, Station, srds_task
from microkernel.task cimport Ref


cdef class Switchboard(Handler):
    cdef Station station
    cdef Actors actors          # None until a reference has left this process
    cdef dict stations          # the actor that has a station

    cdef int connect(self, int sender, srds_task *message) except -1


cdef class DistantActor(Actor):
    cdef bytes key
    cdef bint sending

    cdef int send(self, Ref call) except -1


cdef Switchboard switchboard_of(Station station)
