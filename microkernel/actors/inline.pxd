"""Actors in the thread that waits for them; see ``inline.pyx``."""
from microkernel.actors.actor cimport Actor
from microkernel.task cimport Ref


cdef class InlineActor(Actor):
    cdef Ref front      # the call that is ready or running
    cdef object loop    # for async methods


cdef class InlineCall:
    cdef InlineActor actor
    cdef object bound
    cdef bint is_async
