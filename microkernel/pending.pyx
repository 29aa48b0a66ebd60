"""Waiting for the first of many tasks, at a cost that goes with completions, not with tasks.

A ``Pending`` registers once with each of its tasks; a task that ends puts itself on the list of
completions and rings only when as many have ended as the waiter needs. Taking 10,000 tasks one by
one so costs 10,000 steps, not 10,000 scans.
"""
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int64_t

from microkernel.task cimport DONE, Ref

from microkernel.errors import KernelError

cdef extern from "<time.h>":
    cdef struct timespec:
        long tv_sec
        long tv_nsec
    int CLOCK_MONOTONIC
    int clock_gettime(int clock, timespec *now) nogil

cdef enum:
    PRUNED_FROM = 16    # a task watched by so many looks whether some have given up


cdef int64_t monotonic_ns() noexcept nogil:
    """The clock that deadlines are measured by; never a recorded input."""
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <int64_t>now.tv_sec * 1000000000 + now.tv_nsec


cdef bint add_waiter(Ref task, object waiter) except -1:
    """Have ``waiter`` (a task, a set of completions, a function) told when ``task`` ends; False if
    it
    has ended. Where a list is made, garbage may be collected, and a finalizer let other threads in:
    therefore the second look."""
    cdef object known
    while task.state < DONE:
        known = task.waiters
        if known is None:
            task.waiters = waiter
            return True
        if type(known) is list:
            (<list>known).append(waiter)
            return True
        both = [known, waiter]
        if task.waiters is known:
            task.waiters = both
            return True
    return False


cdef class Doorbell:
    """One sleeping thread and whoever wakes it; all flags change under the GIL."""

    def __cinit__(self):
        self.lock = PyThread_allocate_lock()
        if self.lock == NULL:
            raise MemoryError()
        PyThread_acquire_lock(self.lock, 1)

    def __dealloc__(self):
        if self.lock != NULL:
            PyThread_free_lock(self.lock)

    cdef int ring(self) except -1:
        if self.asleep:
            self.asleep = False
            PyThread_release_lock(self.lock)
            if self.kick != NULL:
                self.kick(self.kicked)
        return 0

    cdef int listen(self) noexcept:
        """From here on a ring is not lost, though nobody sleeps yet."""
        if not self.asleep:
            PyThread_acquire_lock(self.lock, 0)
            self.asleep = True
        return 0

    cdef int stop_listening(self) noexcept:
        """Take back the wish to be woken; 1 when somebody had rung just now."""
        if self.asleep:
            self.asleep = False
            return 0
        PyThread_acquire_lock(self.lock, 0)
        return 1

    cdef int sleep(self, int64_t until_ns) except -1:
        """After ``listen``: sleep until rung or until the time ``until_ns`` (0: for ever).

        Returns 1 when rung and 0 when the time was up. Signals are handled meanwhile, so Ctrl-C
        raises here.
        """
        cdef PyLockStatus status
        cdef long long microseconds
        try:
            while True:
                microseconds = -1
                if until_ns:
                    microseconds = max(0, (until_ns - monotonic_ns() + 999) // 1000)
                with nogil:
                    status = PyThread_acquire_lock_timed(self.lock, microseconds, 1)
                if status == PY_LOCK_ACQUIRED:
                    return 1
                if status == PY_LOCK_INTR:
                    PyErr_CheckSignals()
                elif until_ns and monotonic_ns() >= until_ns:
                    return self.stop_listening()
        except BaseException:
            self.stop_listening()
            raise


cdef class Completions:
    """The tasks of a set that have ended, in the order in which they did."""

    def __cinit__(self):
        self.done = []
        self.alive = True
        self.bell = Doorbell()

    cdef size_t available(self) noexcept:
        return len(self.done) - self.taken

    cdef int watch(self, Ref task) except -1:
        cdef object known = task.waiters
        if (type(known) is list and len(<list>known) >= PRUNED_FROM
                and len(<list>known) & (len(<list>known) - 1) == 0):
            left = [waiter for waiter in <list>known
                    if type(waiter) is not Completions or (<Completions>waiter).alive]
            if task.waiters is known:
                task.waiters = left
        if not add_waiter(task, self):
            self.done.append(task)
        return 0

    cdef int complete(self, Ref task) except -1:
        if self.alive:
            self.done.append(task)
            if self.available() >= self.needed:
                self.bell.ring()
                if self.notify is not None:
                    notify = self.notify
                    self.notify = None
                    notify()
        return 0


cdef class Pending:
    """Tasks that have not been taken yet: what ``Kernel.wait`` returns, and takes again.

    Iterates over the tasks in the order in which they were given.
    """

    def __cinit__(self, refs):
        self.positions = {}
        self.completions = Completions()
        for ref in refs:
            if type(ref) is not Ref:
                raise KernelError(f"wait takes references, not {type(ref).__qualname__}",
                                  what=type(ref).__qualname__,
                                  expected="what submit or put returned",
                                  remedy="pass the references, not their results")
            if ref not in self.positions:
                self.positions[ref] = len(self.positions)
                self.completions.watch(ref)

    def __dealloc__(self):
        # The tasks still list the completions; they drop them when they end or are pruned.
        if self.completions is not None:
            self.completions.alive = False
            self.completions.done = None

    cdef list in_order(self):
        """The tasks as they were given."""
        if self.order is None:
            self.order = list(self.positions)
        return self.order

    cdef dict numbered(self):
        """The tasks by their position."""
        if self.by_position is None:
            self.by_position = {position: ref for ref, position in self.positions.items()}
        return self.by_position

    def __len__(self):
        return len(self.positions)

    def __iter__(self):
        return iter(self.positions)

    def __contains__(self, ref):
        return ref in self.positions

    def __repr__(self):
        return f"<Pending {len(self.positions)} tasks, {self.completions.available()} of them done>"
