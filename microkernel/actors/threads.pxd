"""Actors in threads of their own; see ``threads.pyx``."""
from microkernel.actors.actor cimport Actor
from microkernel.task cimport Ref


cdef class ThreadActor(Actor):
    cdef list threads
    cdef list asleep            # the bells of threads without a call
    cdef size_t most_threads

    cdef int start_thread(self) except -1
    cdef int begin_thread(self, target, tuple args) except -1
    cdef bint leave(self) noexcept


cdef class CoroutineActor(ThreadActor):
    cdef object loop
    cdef dict coroutines        # calls that run, and the asyncio task of each
    cdef bint leaving           # the loop was told to stop
    cdef bint woken             # the loop is about to look at the queue

    cdef int begin(self, Ref call) except -1
