"""The actors of a kernel; see ``registry.pyx``."""
from microkernel.actors.actor cimport Actor
from microkernel.actors.reference cimport ActorRef
from microkernel.engine cimport Engine
from microkernel.task cimport DecisionScope, Ref


cdef class Actors:
    cdef Engine engine
    cdef set live
    cdef dict named
    cdef Actor driver           # in a worker: what its driver answers
    cdef dict known             # by id, in bytes

    cdef ActorRef spawn(self, object cls, tuple args, dict kwargs, object options)
    cdef Actor make(self, Ref opening, object cls, object options)
    cdef ActorRef find(self, str name)
    cdef Actor named_outside(self, str name)
    cdef ActorRef named_in_driver(self, str name)
    cdef int unname(self, Actor actor) except -1
    cdef int stop(self, ActorRef reference, bint now) except -1
    cdef int end_of(self, DecisionScope scope) except -1
    cdef int close(self, bint cancelled) except -1
