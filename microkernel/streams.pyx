"""The items of a generator that runs as a task: they are taken as they are made.

Producer and consumer share a ``Channel``. The producer stops when ``window`` items wait to be
taken, and a producer that stops blocks nobody: its generator is suspended where it stands and its
thread runs other tasks; when half of the window has been taken it is ready again, in any thread.
Inline there is no producer beside the consumer, so each item is made when it is asked for.

Credits as in a sliding window protocol: a producer in another process is told how many more items
it may send, each time half of its window has been taken.
"""
from collections import deque

from microkernel.task cimport Ref

from microkernel.errors import KernelError


cdef class Channel:
    """What lies between the generator of ``task`` and who takes its items."""

    def __cinit__(self, Ref task not None, size_t window):
        self.task = task
        self.window = window
        self.items = deque()
        self.limit = -1

    cdef bint has_room(self) noexcept:
        """Whether the producer may make one more item."""
        return <size_t>len(self.items) < self.window

    cdef int item_arrived(self, object item) except -1:
        self.made += 1
        if not self.closed:
            self.items.append(item)
            self.wake()
        return 0

    cdef int wake(self) except -1:
        if self.bell is not None:
            self.bell.ring()
        if self.notify is not None:
            notify = self.notify
            self.notify = None
            notify()
        return 0


cdef Channel channel_of(Ref task):
    """Where the items of a stream go; None once it has ended."""
    return None if task.attachments is None else <Channel>task.attachments.get("channel")


cdef object iterate(Ref task, object made):
    """The iterator over what the function of a stream returned."""
    try:
        return iter(made)
    except TypeError:
        raise KernelError(
            f"{task.function.name} returned {type(made).__qualname__}, which has no items",
            what=task.function.name,
            expected="a generator function, or one that returns an iterable",
            remedy="submit it, and get its result") from None


cdef object settle_later(object loop, object future):
    """A function that any thread may call to settle ``future`` of an event loop."""
    def settle():
        try:
            loop.call_soon_threadsafe(_settle, future)
        except RuntimeError:
            pass        # the loop is closed: nobody waits any more

    return settle


def _settle(future):
    if not future.done():
        future.set_result(None)


cdef class Stream:
    """The items of a generator that runs as a task; what ``Kernel.stream`` returns.

    Iterate over it, in a function or (``async for``) in a coroutine. An error of the generator is
    raised after the items before it. ``close``, leaving a ``with`` block or letting go of the
    stream stops the generator where it stands; its ``finally`` blocks run.
    """

    cdef Channel channel
    cdef object kernel

    def __cinit__(self, Channel channel not None, kernel):
        self.channel = channel
        self.kernel = kernel

    @property
    def task_id(self):
        """The 16 bytes of the task that makes the items."""
        return self.channel.task.task_id

    @property
    def ahead(self):
        """How many items are made and not taken."""
        return len(self.channel.items)

    @property
    def done(self):
        """Whether the generator has ended; some of its items may still be there."""
        return self.channel.task.done

    def __iter__(self):
        return self

    def __next__(self):
        return self.kernel._take(self.channel)

    def __aiter__(self):
        return self

    def __anext__(self):
        return self.kernel._take_async(self.channel)

    def close(self):
        """Stop the generator and wait until it has; raises what its ``finally`` blocks raise."""
        self.kernel._end_stream(self.channel, True)

    def cancel(self):
        """Give the task up as ``Kernel.cancel`` does; whether that was possible."""
        return self.kernel.cancel(self.channel.task)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        self.close()

    def __del__(self):
        if self.kernel is not None and not self.channel.task.done:
            try:
                self.kernel._end_stream(self.channel, False)
            except Exception:
                pass        # the task keeps the error; nobody is left who could be told

    def __repr__(self):
        return f"<Stream {self.channel.task.name}: {self.channel.made} items made>"
