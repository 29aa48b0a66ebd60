"""Actors whose calls run in the thread that waits for them, one at a time, in order.

Only the front of the queue is ready, as any inline task is; when it has returned, the next one is.
Who waits for a call that is not at the front so runs those before it first.
"""
from microkernel.actors.actor cimport Actor
from microkernel.mailbox cimport Method
from microkernel.task cimport ENDING, INLINE, READY, RUNNING, Ref


cdef class InlineActor(Actor):
    """An actor without a thread of its own."""

    def __cinit__(self):
        self.place = INLINE
        self.one_by_one = True

    cdef object bound(self, Method method, str name):
        cdef InlineCall call = InlineCall.__new__(InlineCall)
        call.actor = self
        call.bound = getattr(self.instance, name)
        call.is_async = method.is_async
        return call

    def construct(self, /, *args, **kwargs):
        cdef Ref opening = self.front
        self.running.append(opening)
        try:
            self.instance = self.cls(*args, **kwargs)
        finally:
            self.running.clear()

    cdef int start(self) except -1:
        if self.front is not None:
            return 0
        self.front = self.next()
        if self.front is None:
            return 0
        self.front.state = READY
        self.engine.inline_queue.push(self.front)
        if self.engine.callers:
            self.engine.wake_caller()
        return 0

    cdef int ended(self, Ref call) except -1:
        # A call that was given up while it runs makes way when it returns.
        cdef bint at_front = call is self.front and not self.running
        if at_front:
            self.front = None
        Actor.ended(self, call)
        if at_front:
            self.start()
        return 0

    cdef Ref before(self, Ref call):
        cdef Ref first = Actor.before(self, call)
        if first is not None or self.front is None or call is self.front:
            return first
        # One that was given up and has not returned yet is nothing that can be waited for.
        return self.front if self.front.state < ENDING else None

    cdef int finish(self) except -1:
        if self.running:
            return 0
        if self.loop is not None:
            self.loop.close()
            self.loop = None
        return self.gone()

    def run(self, coroutine):
        """The result of a coroutine, whatever loop the calling thread is in."""
        import asyncio      # slow, and most have no coroutines

        if self.loop is None:
            self.loop = asyncio.new_event_loop()
        around = asyncio._get_running_loop()
        asyncio._set_running_loop(None)
        try:
            return self.loop.run_until_complete(coroutine)
        finally:
            asyncio._set_running_loop(around)


cdef class InlineCall:
    """A method as its calls run it: the next one is ready when it has returned."""

    def __call__(self, /, *args, **kwargs):
        cdef InlineActor actor = self.actor
        cdef Ref call = actor.front
        actor.running.append(call)
        try:
            if self.is_async:
                return actor.run(self.bound(*args, **kwargs))
            return self.bound(*args, **kwargs)
        finally:
            actor.running.clear()
            if call.state != RUNNING and actor.front is call:
                actor.front = None      # it was given up meanwhile
                actor.start()
                if actor.pending == 0 and (actor.closing or actor.failure is not None):
                    actor.finish()
