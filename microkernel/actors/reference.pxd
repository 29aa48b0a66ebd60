"""The handle of an actor; see ``reference.pyx``."""
from microkernel.actors.actor cimport Actor
from microkernel.mailbox cimport Method


cdef class ActorRef:
    cdef Actor actor
    cdef object __weakref__


cdef class ActorMethod:
    cdef ActorRef reference     # the actor lives while somebody may call it
    cdef Method method
    cdef object call_options


cdef ActorRef reference_to(Actor actor)
