"""Making a call, also from a decision; see ``calls.pyx``."""
from microkernel.actors.actor cimport Actor
from microkernel.engine cimport Engine
from microkernel.mailbox cimport Mailbox, Method
from microkernel.task cimport Ref


cdef class RecordedCall(Mailbox):
    cdef Engine engine
    cdef Ref call


cdef class Reading:
    cdef Actor actor
    cdef Method method
    cdef tuple args
    cdef dict kwargs
    cdef object options


cdef class Answer:
    cdef Engine engine
    cdef Ref task
    cdef Ref call
    cdef str source
    cdef str key


cdef class AbsentActor(Actor):
    pass


cdef Ref make_call(Actor actor, Method method, tuple args, dict kwargs, object options)
