"""Streams: tasks whose function is a generator, and taking their items.

Whoever ends a stream from outside (a consumer that needs no more, a deadline, ``cancel``) does so
at a point that time decides. Within a decision the number of items made by then is an input, kept
under ``stream``; a replay, where the consumer drives the generator, makes as many and ends it the
same way.
"""
from functools import partial

from microkernel.pending cimport Doorbell, Pending, monotonic_ns
from microkernel.scheduler cimport cancelled_error, in_worker, resolved, resolved_names, unwrap
from microkernel.streams cimport Channel, channel_of, iterate, settle_later
from microkernel.task cimport (
    DONE,
    ENDING,
    FAILED,
    HOLDS,
    INLINE,
    PROCESS,
    READY,
    RUNNING,
    STALLED,
    STREAMS,
    WAITING,
    Ref,
    current,
    enter,
    leave,
    thread_ident,
)
from microkernel.waiting cimport Waiter

from microkernel.errors import KernelError
from microkernel.settings import NO_FALLBACK


cdef class Streamer(Waiter):
    """Streams of items; ``Engine`` is the face of it all."""

    def __init__(self, settings, bytes run_id not None):
        super().__init__(settings, run_id)
        self.streams = set()

    cdef Channel open_stream(self, object call, tuple args, dict kwargs, object options,
                             object window):
        cdef bint references = False
        cdef Ref task
        cdef Channel channel
        self.check_open()
        if not (isinstance(window, int) and 0 < window <= 1 << 30):
            raise KernelError(f"a window of {window!r} items", what="window",
                              expected="a whole number, 1 or more", remedy="leave it out for 16")
        if options is not None and (options.retries or options.fallback is not NO_FALLBACK):
            raise KernelError(
                "a stream with retries or a fallback", what="options",
                expected="neither: items that were taken cannot be taken back",
                remedy="catch the error where the items are taken, and open the stream again")
        task = self.prepare(self.functions.of(call), args, kwargs, options, &references)
        channel = Channel(task, 0 if task.place == INLINE else window)
        task.wants |= STREAMS
        task.attachments = {"channel": channel}
        task.waiters = partial(self._stream_ended, channel)
        if task.place == PROCESS:
            if self.remote is None:
                self.remote = self.open_remote()
            self.remote.attend(1)
        if task.scope is not None and task.scope.replayed:
            recorded = task.scope.boundary.recorded(task, "stream", "kernel", None)
            if recorded is not None:
                channel.limit, channel.recorded_end = recorded
        self.streams.add(channel)
        self.hand_in(task, references)
        return channel

    def _stream_ended(self, Channel channel not None):
        """The task of a stream is done, however it came to that."""
        self.streams.discard(channel)
        if channel.source is not None and not channel.running:
            self.close_source(channel)
        channel.task.attachments.pop("channel", None)
        channel.wake()

    # Making items

    cdef int run_stream(self, Ref task) except -1:
        """Make items until as many wait as may, or there are no more."""
        cdef Channel channel = channel_of(task)
        cdef Ref previous
        cdef object error = None
        cdef object result = None
        cdef bint exhausted = False
        task.wants &= ~STALLED
        previous = self.begin_task(task)
        channel.running = True
        try:
            if channel.source is None:
                channel.source = iterate(task, task.function.call(
                    *resolved(task.args), **resolved_names(task.kwargs or {})))
            while True:
                try:
                    item = next(channel.source)
                except StopIteration as stop:
                    exhausted = True
                    result = stop.value
                    break
                if task.state != RUNNING:
                    break           # given up meanwhile: cancelled, or too late
                channel.item_arrived(item)
                item = None
                if channel.closed or not channel.has_room():
                    break
        except BaseException as raised:
            error = raised
        channel.running = False
        if exhausted or error is not None:
            channel.source = None
        self.leave_task(task, previous)
        if task.state != RUNNING:
            self.close_source(channel)
        elif error is not None:
            task.state = ENDING
            self.fail(task, error)
        elif exhausted:
            task.state = ENDING
            self.complete(task, DONE, result)
        elif channel.closed:
            self.end_early(channel)
        elif task.deadline_ns and monotonic_ns() >= task.deadline_ns:
            task.state = WAITING
            self.miss(task)
        else:
            task.state = WAITING
            task.wants |= STALLED
            self.resume_stream(channel)     # where items were taken while this one was made
        if task.wants & HOLDS and task.state >= DONE:
            self.let_go(task)
        if error is not None:
            self.stop_thread_by(error)
        return 0

    cdef int resume_stream(self, Channel channel) except -1:
        """Let a suspended producer go on, once half of its window has been taken."""
        cdef Ref task = channel.task
        if (task.wants & STALLED and task.place != INLINE
                and 2 * <size_t>len(channel.items) <= channel.window and channel.has_room()):
            task.wants &= ~STALLED
            return self.enqueue(task)
        return 0

    cdef object close_source(self, Channel channel):
        """Run the ``finally`` blocks of a suspended generator, as part of its task; returns the
        error that they raised."""
        cdef Ref previous
        cdef object source = channel.source
        channel.source = None
        close = getattr(source, "close", None)
        if close is None:
            return None
        channel.task.thread = thread_ident()
        previous = enter(channel.task)
        try:
            close()
        except BaseException as error:
            return error
        finally:
            leave(previous)
        return None

    cdef int note_items(self, Channel channel, str end) except -1:
        """How many items there were when something else than the generator ended the stream: an
        input of the decision, because it depends on time."""
        cdef Ref task = channel.task
        if task.scope is not None and task.scope.recorded:
            task.scope.boundary.keep(task, "stream", "kernel", None, [channel.made, end])
        return 0

    cdef int end_early(self, Channel channel) except -1:
        """End a stream whose generator stands still and whose items nobody takes any more."""
        cdef Ref task = channel.task
        task.state = ENDING
        error = self.close_source(channel)
        try:
            self.note_items(channel, "closed")
        except Exception as raised:
            self.fail(task, raised)
            raise
        return self.complete(task, DONE, None) if error is None else self.fail(task, error)

    cdef int abandon(self, Channel channel) except -1:
        """Nobody takes items any more: stop what makes them, now or after the item at hand."""
        cdef Ref task = channel.task
        if channel.closed:
            return 0
        if task.state < ENDING:
            self.catch_up(channel)
        channel.closed = True
        channel.items.clear()
        if task.state >= RUNNING:
            return 0        # who runs it ends it
        if task.place == PROCESS and task.slot:
            task.state = ENDING
            self.interrupt(task)
            return self.complete(task, DONE, None)
        return self.end_early(channel)

    cdef int cut_stream(self, Ref task, str end) except -1:
        """A stream is ended by something else than its generator: by a consumer that takes no more
        (None), or, next, by the caller for the reason ``end``."""
        cdef Channel channel = channel_of(task)
        if channel is None:
            return 0
        if end is None:
            return self.abandon(channel)
        self.catch_up(channel)
        return self.note_items(channel, end)

    cdef int catch_up(self, Channel channel) except -1:
        """In a replay, before a stream ends early: make the items that the recorded run made."""
        cdef Ref task = channel.task
        cdef Ref needed
        while <long long>channel.made < channel.limit and task.state < ENDING:
            if task.wants & STALLED:
                task.state = READY
                self.run_stream(task)
            else:
                needed = self.needed_by(task)
                if needed is None:
                    break
                self.run_task(needed)
        return 0

    cdef int end_as_recorded(self, Channel channel) except -1:
        """In a replay: the recorded run made no more items than there are now."""
        cdef Ref task = channel.task
        if channel.recorded_end == "closed":
            return self.abandon(channel)
        task.state = ENDING
        if channel.recorded_end == "late":
            return self.end_late(task)
        return self.fail(task, cancelled_error(task))

    # Taking items

    cdef bint drive(self, Channel channel) except -1:
        """Make the next item in this thread, where that may be."""
        cdef Ref task = channel.task
        if 0 <= channel.limit <= <long long>channel.made and task.state < ENDING:
            self.end_as_recorded(channel)
            return True
        if task.wants & STALLED and (task.place == INLINE or in_worker()):
            task.state = READY
            self.run_task(task)
            return True
        if channel.running and task.thread == thread_ident():
            raise KernelError(f"{task.function.name} takes items of its own stream",
                              what=task.function.name, expected="another consumer",
                              remedy="keep what was yielded")
        return False

    def _take(self, Channel channel not None):
        """The next item; what ``next(stream)`` calls."""
        while not channel.items and channel.task.state < DONE:
            if channel.closed:
                break
            if not self.drive(channel):
                self.await_item(channel)
        if channel.items:
            return self.taken(channel)
        self.tell_end(channel)
        raise StopIteration

    async def _take_async(self, Channel channel not None):
        """The next item, for coroutines."""
        cdef Ref needed
        import asyncio

        while not channel.items and channel.task.state < DONE:
            if channel.closed:
                break
            if self.drive(channel):
                continue
            needed = self.needed_by(channel.task)
            if needed is not None:
                self.run_task(needed)
                continue
            future = asyncio.get_running_loop().create_future()
            channel.notify = settle_later(asyncio.get_running_loop(), future)
            await self._settled(future, 0)
        if channel.items:
            return self.taken(channel)
        self.tell_end(channel)
        raise StopAsyncIteration

    cdef object taken(self, Channel channel):
        cdef Ref task = channel.task
        item = channel.items.popleft()
        if task.wants & STALLED:
            self.resume_stream(channel)
        elif task.place == PROCESS and task.state < ENDING:
            channel.taken += 1
            if 2 * channel.taken >= channel.window:
                self.remote.credit(task, channel.taken)
                channel.taken = 0
        return item

    cdef int tell_end(self, Channel channel) except -1:
        """There is no further item: raise the error that ended the stream, once."""
        if channel.told:
            return 0
        channel.told = True
        if channel.task.state == FAILED and not channel.closed:
            unwrap(channel.task)
        if not self.open:
            self.check_open()       # what was not made before the kernel was closed is missing
        return 0

    cdef int await_item(self, Channel channel) except -1:
        """Until there is an item or no further one; run what that needs, else sleep."""
        cdef Ref task = channel.task
        cdef Ref here = current()
        cdef Doorbell bell
        cdef Pending pending
        cdef bint lent
        if channel.bell is not None:
            raise KernelError("two take items from one stream at the same time",
                              what=task.function.name, expected="one at a time",
                              remedy="let one take the items and pass them on")
        if self.forked():
            self.check_open()
        bell = Doorbell()
        pending = Pending([task])
        channel.bell = bell
        self.callers.append(bell)
        lent = self.lend_share(here)
        try:
            while True:
                # Listening first, then looking: what comes in between rings.
                bell.listen()
                if self.remote_left:
                    self.remote.pump()
                if channel.items or channel.closed or task.state >= DONE:
                    return 0
                self.heed_interruption()
                if not self.drive(channel) and not self.run_something(pending):
                    self.rest(bell, 0, 1)
        finally:
            channel.bell = None
            self.callers.remove(bell)
            bell.stop_listening()
            if lent:
                self.resources.take_back(here)
            if self.remote_left and self.callers:
                self.wake_caller()      # one of those who wait takes in what arrives from now on

    def _end_stream(self, Channel channel not None, bint wait):
        """Stop a stream, and wait until it has stopped if that is wanted."""
        cdef Ref task = channel.task
        if not self.open or self.forked() or task.state >= DONE:
            channel.closed = True
            channel.items.clear()
            return
        self.abandon(channel)
        if wait and task.state < DONE and not (channel.running and task.thread == thread_ident()):
            self.finish(task, 0)
        if wait and task.state == FAILED and not channel.told:
            channel.told = True
            unwrap(task)

    cdef int end_streams(self) except -1:
        """Nobody takes items any more."""
        for channel in tuple(self.streams):
            self.abandon(<Channel>channel)
        return 0
