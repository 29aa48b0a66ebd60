"""Waiting for a flow: for room, for results, for its end.

Only who uses a flow ever sleeps in it, and helps before it sleeps: it runs the inline stages, and
in a worker of the kernel also those of the threads, so that a task may use a flow on a kernel with
one thread.
"""
from libc.stdint cimport int64_t

from microkernel.flows.channel cimport Channel
from microkernel.flows.part cimport FLOWING
from microkernel.flows.running cimport RunningPart
from microkernel.flows.stage cimport Stage
from microkernel.pending cimport Doorbell, monotonic_ns
from microkernel.scheduler cimport in_worker
from microkernel.task cimport READY, THREAD, thread_ident

from microkernel.errors import KernelError


cdef class WaitedPart(RunningPart):
    """The part of a flow that a program feeds and reads."""

    cdef bint holds(self, int awaited, Channel channel, Channel other) noexcept:
        if self.state != FLOWING:
            return True
        if awaited == ROOM:
            return channel.room() > 0
        if awaited == ITEMS:
            return channel.length > 0 or channel.producers == 0
        return awaited == EITHER and (channel.room() > 0 or other.length > 0)

    cdef bint wait_for(self, int awaited, Channel channel, Channel other,
                       int64_t until) except -1:
        """Whether that came before ``until``; the end of the flow comes instead of anything."""
        cdef Doorbell bell
        if self.holds(awaited, channel, other):
            return True
        self.check_outside()
        bell = Doorbell()
        self.callers.append(bell)
        self.kernel.callers.append(bell)
        try:
            while True:
                # Listening first, then looking: what comes in between rings.
                bell.listen()
                if self.kernel.remote_left:
                    self.kernel.remote.pump()
                if self.holds(awaited, channel, other):
                    return True
                self.kernel.heed_interruption()
                if until and monotonic_ns() >= until:
                    return False
                if not self.run_inline() and not self.help():
                    self.kernel.rest(bell, until, 1)
        finally:
            self.callers.remove(bell)
            self.kernel.callers.remove(bell)
            bell.stop_listening()
            if self.kernel.remote_left and self.kernel.callers:
                self.kernel.wake_caller()       # one of those who wait takes in what arrives

    cdef bint help(self) except -1:
        """In a worker: run a stage that waits for a worker."""
        cdef Stage stage
        if not in_worker():
            return False
        for stage in self.stages:
            if (stage.activation is not None and stage.activation.state == READY
                    and stage.place == THREAD):
                self.kernel.run_task(stage.activation)
                return True
        return False

    async def _until(self, int awaited, Channel channel):
        """``wait_for`` for coroutines."""
        import asyncio      # whoever awaits has it; others start without

        loop = asyncio.get_running_loop()
        self.run_inline()
        while not self.holds(awaited, channel, None):
            future = loop.create_future()

            def rung():
                try:
                    loop.call_soon_threadsafe(_settle, future)
                except RuntimeError:
                    pass        # the loop is closed: nobody waits any more

            # Listening first, then looking: what comes in between rings.
            self.listeners.append(rung)
            if not self.run_inline() and not self.holds(awaited, channel, None):
                await future
                self.run_inline()

    cdef int check_outside(self) except -1:
        """An operator must not wait for the flow that waits for it."""
        cdef Stage stage
        cdef unsigned long here = thread_ident()
        for stage in self.stages:
            if stage.running and stage.thread == here:
                raise KernelError(f"an operator of flow {self.name} waits for the flow itself",
                                  what=stage.name, expected="room in front of the source",
                                  remedy="lead items back by graph.feedback()")
        return 0


def _settle(future):
    if not future.done():
        future.set_result(None)
