"""Actors in threads of their own.

A thread takes call after call from the queue without giving up the GIL and sleeps at its bell when
there is none, as the kernel's workers do; the handover to a sleeping thread is the only one that a
call needs. ``concurrency`` threads share the queue of one actor.

A class with ``async`` methods runs in one thread, on an event loop of its own, on which as many of
its calls are open as its concurrency allows. Its other methods run on the loop, too, between them.
"""
import logging
import threading

from microkernel.actors.actor cimport Actor
from microkernel.pending cimport Doorbell, monotonic_ns
from microkernel.scheduler cimport be_worker, cancelled_error, resolved, resolved_names
from microkernel.task cimport (
    DONE,
    ENDING,
    RUNNING,
    THREAD,
    Ref,
    enter_coroutine,
    leave_coroutine,
    thread_ident,
)
from microkernel.tracing cimport trace

from microkernel.task import running_lane

cdef object _log = logging.getLogger("microkernel")


cdef class ThreadActor(Actor):
    """An actor whose methods are functions."""

    def __cinit__(self):
        self.place = THREAD
        self.threads = []
        self.asleep = []

    def __init__(self, *args, size_t concurrency=1):
        super().__init__(*args)
        self.most_threads = concurrency
        self.one_by_one = concurrency == 1

    cdef int start(self) except -1:
        if self.asleep:
            (<Doorbell>self.asleep.pop()).ring()
        elif <size_t>len(self.threads) < self.most_threads:
            self.start_thread()
        return 0

    cdef int start_thread(self) except -1:
        return self.begin_thread(self._work, (Doorbell(),))

    cdef int begin_thread(self, target, tuple args) except -1:
        thread = threading.Thread(target=target, args=args, daemon=True,
                                  name=f"srds-actor-{self.described}-{len(self.threads)}")
        self.threads.append(thread)
        try:
            thread.start()
        except RuntimeError as error:
            self.threads.remove(thread)
            if self.threads:
                self.most_threads = len(self.threads)
                _log.warning("%s goes on with %d threads: %s", self.described,
                             self.most_threads, error)
            else:
                self.die(f"has no thread ({error}), and ended")
        return 0

    cdef bint leave(self) noexcept:
        """Whether no call is left and none will come."""
        return self.pending == 0 and (self.closing or self.failure is not None)

    def _work(self, Doorbell bell not None):
        """The life of one thread."""
        cdef Ref call
        be_worker()
        while True:
            call = self.next()
            if call is None:
                bell.listen()
                self.asleep.append(bell)
                call = self.next()
                if call is None:
                    if self.leave():
                        break
                    bell.sleep(0)
                    continue
                if bell in self.asleep:
                    self.asleep.remove(bell)
            self.running.append(call)
            try:
                self.engine.run_task(call)
            except BaseException:
                # Only a sink that failed, or an interruption that came too late, can raise here.
                _log.exception("after %s of %s", call.function.name, self.described)
            self.running.remove(call)
            call = None
        self.threads.remove(threading.current_thread())
        if not self.threads:
            self.gone()

    cdef int finish(self) except -1:
        if not self.threads:
            return self.gone()
        while self.asleep:
            (<Doorbell>self.asleep.pop()).ring()
        return 0


cdef class CoroutineActor(ThreadActor):
    """An actor with ``async`` methods."""

    def __cinit__(self):
        self.coroutines = {}

    def __init__(self, *args, size_t concurrency=1):
        super().__init__(*args, concurrency=concurrency)
        self.one_by_one = True      # a call that blocks the loop blocks every other

    cdef int start(self) except -1:
        if self.loop is None:
            if not self.threads:
                self.begin_thread(self._work_on_loop, ())
        elif not self.woken:
            self.woken = True
            try:
                self.loop.call_soon_threadsafe(self.begin_some)
            except RuntimeError:
                pass        # the loop is closed: it has no calls any more
        return 0

    def _work_on_loop(self):
        """The life of the thread."""
        import asyncio      # slow, and most have no coroutines

        self.loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self.loop)
        try:
            self.woken = True
            self.loop.call_soon(self.begin_some)
            self.loop.run_forever()
            open_tasks = asyncio.all_tasks(self.loop)
            for task in open_tasks:
                task.cancel()
            self.loop.run_until_complete(asyncio.gather(*open_tasks, return_exceptions=True))
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        finally:
            self.loop.close()
            self.threads.clear()
            self.gone()

    def begin_some(self):
        """Begin what is queued, as far as the concurrency allows."""
        cdef Ref call
        self.woken = False
        while <size_t>len(self.coroutines) < self.most_threads:
            call = self.next()
            if call is None:
                break
            try:
                self.begin(call)
            except BaseException:
                _log.exception("after %s of %s", call.function.name, self.described)
        if self.leave() and not self.leaving:
            self.leaving = True
            self.loop.stop()

    cdef int begin(self, Ref call) except -1:
        if call.function.is_async:
            self.coroutines[call] = self.loop.create_task(self.run_call(call))
            return 0
        self.running.append(call)
        try:
            self.engine.run_task(call)
        finally:
            self.running.remove(call)
        return 0

    async def run_call(self, Ref call not None):
        """``Scheduler.run_task`` for a coroutine."""
        try:
            await self._run_call(call)
        except Exception:
            _log.exception("after %s of %s", call.function.name, self.described)
        finally:
            del self.coroutines[call]
            self.begin_some()

    async def _run_call(self, Ref call not None):
        cdef object value = None
        cdef object error = None
        if call.state >= ENDING:
            return
        if call.deadline_ns and monotonic_ns() >= call.deadline_ns:
            self.engine.miss(call)
            return
        call.state = RUNNING
        from asyncio import CancelledError

        call.thread = thread_ident()
        trace.begin_coroutine(self.engine.ring, call)
        if self.engine.on_started is not None:
            self.engine.tell(self.engine.on_started, (call,))
        call.attachment("owner", running_lane)
        token = enter_coroutine(call)
        try:
            if call.kwargs is None:
                value = await call.function.call(*resolved(call.args))
            else:
                value = await call.function.call(*resolved(call.args),
                                                 **resolved_names(call.kwargs))
        except CancelledError:
            error = cancelled_error(call)
        except BaseException as raised:
            error = raised
        finally:
            leave_coroutine(token)
        if call.state != RUNNING:
            return      # given up meanwhile
        if error is None and call.deadline_ns and monotonic_ns() >= call.deadline_ns:
            self.engine.miss(call)
            return
        call.state = ENDING
        if error is None:
            self.engine.complete(call, DONE, value)
        else:
            self.engine.fail(call, error)

    cdef list begun(self):
        return self.running + list(self.coroutines)

    cdef bint interrupt(self, Ref call) except -1:
        coroutine = self.coroutines.get(call)
        if coroutine is None:
            return False
        if call.thread == thread_ident():
            coroutine.cancel()
        else:
            try:
                self.loop.call_soon_threadsafe(coroutine.cancel)
            except RuntimeError:
                pass        # the loop is closed, and the coroutine with it
        return True

    cdef int finish(self) except -1:
        if self.loop is None:
            return ThreadActor.finish(self)
        return self.start()
