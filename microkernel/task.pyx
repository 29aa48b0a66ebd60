"""The task record: what was submitted, where it stands, and what its children and inputs count by.

A ``Ref`` is the record and at once the handle that the program holds, so that a task costs one
allocation. Which task the code at hand runs in is found through a thread-local pointer for
functions and a context variable for coroutines, which leave and re-enter their thread.
"""
import sys
import threading
from contextvars import ContextVar

cimport cython
from cpython.ref cimport PyObject
from libc.stdint cimport uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from microkernel.ids cimport id_to_bytes
from microkernel.values cimport Writer

cdef extern from "pythread.h":
    unsigned long PyThread_get_thread_ident() nogil

cdef extern from *:
    """
    #include <pthread.h>
    #include <string.h>
    static __thread PyObject *srds_running = NULL;
    static __thread PyObject *srds_fetching = NULL;     /* the task whose source this thread asks */
    static int srds_coroutines = 0;
    static unsigned long srds_forks = 0;

    /* A forked child has none of the workers and must not write to its parent's journal: nothing
       that it inherited is running there, and no kernel opened before is open. */
    static void srds_forked(void) {
        srds_running = NULL;
        srds_coroutines = 0;
        srds_forks++;
    }
    static int srds_watch_forks(void) { return pthread_atfork(NULL, NULL, srds_forked); }

    /* Not a cryptographic hash: a collision only leaves a gap in the ordinals, the same gap live
       and in replay. */
    static inline uint64_t srds_region_hash(const unsigned char *p, size_t n) {
        uint64_t h = 0x9e3779b97f4a7c15ULL ^ n, word;
        for (; n >= 8; p += 8, n -= 8) {
            memcpy(&word, p, 8);
            h = (h ^ word) * 0xff51afd7ed558ccdULL; h ^= h >> 32;
        }
        word = 0;
        memcpy(&word, p, n);
        h = (h ^ word) * 0xc4ceb9fe1a85ec53ULL;
        return h ^ (h >> 29);
    }
    """
    PyObject *srds_running
    PyObject *srds_fetching
    int srds_coroutines
    unsigned long srds_forks
    int srds_watch_forks()
    uint64_t srds_region_hash(const unsigned char *p, size_t n) noexcept nogil

cdef Writer _spare              # the buffer of the last decision, for the next

cdef enum:
    SPARED = 65536
    SCANNED = 32    # inputs numbered by scanning; beyond, by a dictionary

cdef object _running_coroutine = ContextVar("microkernel.task", default=None)


if srds_watch_forks() != 0:
    raise MemoryError()


cdef unsigned long thread_ident() noexcept nogil:
    return PyThread_get_thread_ident()


cdef unsigned long forks() noexcept nogil:
    """How many forks lie between this process and the one that loaded the module."""
    return srds_forks


cdef Ref current():
    """The task that the calling code runs in, or None."""
    cdef PyObject *here = srds_running
    if srds_coroutines:
        there = _running_coroutine.get()
        # The coroutine is the inner one unless it was running already when the function began.
        if there is not None and (here == NULL or <PyObject *>there != (<Ref>here).coroutine):
            return <Ref>there
    if here == NULL:
        return None
    return <Ref>here


cdef Ref watched():
    """The task that the calling code runs in, if what it reads is recorded or replayed."""
    cdef Ref task = current()
    if task is None or task.scope is None or not (task.scope.recorded or task.scope.replayed):
        return None
    return None if srds_fetching == <PyObject *>task else task


cdef Ref enter(Ref task):
    """Make ``task`` the one that this thread runs; give what is returned to ``leave``."""
    global srds_running
    cdef PyObject *previous = srds_running
    if srds_coroutines:
        around = _running_coroutine.get()
        task.coroutine = NULL if around is None else <PyObject *>around
    srds_running = <PyObject *>task
    return <Ref>previous if previous != NULL else None


cdef void leave(Ref previous) noexcept:
    # The previous task is kept alive by the frame that runs it, further up this thread's stack.
    global srds_running
    srds_running = NULL if previous is None else <PyObject *>previous


cdef object enter_coroutine(Ref task):
    global srds_coroutines
    token = _running_coroutine.set(task)
    srds_coroutines += 1
    return token


cdef int leave_coroutine(object token) except -1:
    global srds_coroutines
    if srds_coroutines > 0:
        srds_coroutines -= 1
    try:
        _running_coroutine.reset(token)
    except ValueError:
        pass        # a coroutine that is thrown away is closed in whatever context is at hand
    return 0


cdef PyObject *begin_fetching(Ref task) noexcept:
    """From here on this thread asks a source for ``task``; give what is returned to the end."""
    global srds_fetching
    cdef PyObject *outer = srds_fetching
    srds_fetching = <PyObject *>task
    return outer


cdef void end_fetching(PyObject *outer) noexcept:
    global srds_fetching
    srds_fetching = outer


cdef bint is_fetching(Ref task) noexcept:
    return srds_fetching == <PyObject *>task


cdef class Boundary:
    """The door that a task's inputs come through; ``mode`` is "live", "recording" or "replaying".

    ``exchange`` returns one input, by calling ``fetch`` or from a record. ``keep`` notes one that
    was obtained already. ``recorded`` is the recorded input in a replay and None elsewhere. All are
    called by the task that reads. ``on_input`` is called with each input, when it is not None.
    """

    cdef object exchange(self, Ref task, str kind, str source, object key, object fetch):
        return fetch()

    cdef object keep(self, Ref task, str kind, str source, object key, object value):
        return value

    cdef object recorded(self, Ref task, str kind, str source, object key):
        return None


cdef class DecisionScope:
    """What the tasks of one decision share."""

    def __cinit__(self):
        global _spare
        self.inputs = _spare
        self.inputs.length = 0
        _spare.data = NULL
        _spare.capacity = 0

    def __dealloc__(self):
        global _spare
        free(self.tasks.data)
        if _spare.data == NULL and self.inputs.capacity <= SPARED:
            _spare = self.inputs
        else:
            free(self.inputs.data)


@cython.freelist(2048)
cdef class Ref:
    """A task and the promise of its result. Made by ``Kernel.submit`` and ``Kernel.put``.

    A reference given as an argument to another task is replaced by its result; ``await ref``
    waits in a coroutine; ``kernel.get(ref)`` waits in a function.
    """

    def __dealloc__(self):
        if self.ledger != NULL:
            if self.ledger.hashes != self.ledger.first:
                free(self.ledger.hashes)
            free(self.ledger)

    @property
    def task_id(self):
        """The task's 16 bytes."""
        return id_to_bytes(self.id)

    @property
    def parent_id(self):
        """The id of the task that submitted this one, or of the run."""
        return id_to_bytes(self.parent)

    @property
    def name(self):
        """``module:qualified name`` of the function."""
        return self.function.name

    @property
    def decision_id(self):
        """The 16 bytes of the decision that the task belongs to, or None."""
        return None if self.scope is None else id_to_bytes(self.scope.decision)

    @property
    def done(self):
        """Whether the result, or the error, is there."""
        return self.state >= DONE

    @property
    def failed(self):
        """Whether the task ended with an error."""
        return self.state == FAILED

    @property
    def attempts(self):
        """How often the task was begun again, after an error or the end of its process, and 1."""
        return self.attempt + 1

    @property
    def subject(self):
        """Whom the decision is about, as given when it was opened; None outside a decision."""
        return None if self.scope is None else self.scope.subject

    @property
    def mode(self):
        """"live", "recording", "replaying", or None outside a decision."""
        return None if self.scope is None else self.scope.boundary.mode

    @property
    def cancel_requested(self):
        """Whether somebody asked for this task to stop; long tasks may look at it."""
        return bool(self.interrupted)

    def __repr__(self):
        state = ("waiting", "ready", "running", "ending", "done", "failed")[self.state]
        return f"<Ref {self.name} {id_to_bytes(self.id).hex()} {state}>"

    def __await__(self):
        return self.kernel.wait_async(self).__await__()

    cdef Ledger *open_ledger(self) except NULL:
        if self.ledger == NULL:
            self.ledger = <Ledger *>malloc(sizeof(Ledger))
            if self.ledger == NULL:
                raise MemoryError()
            self.ledger.length = 0
            self.ledger.capacity = sizeof(self.ledger.first) // sizeof(uint64_t)
            self.ledger.hashes = self.ledger.first
        return self.ledger

    cdef uint64_t next_ordinal(self, const unsigned char *region,
                               size_t n) except? 0xffffffffffffffff:
        """How often the task has read this (kind, source, key) before."""
        cdef Ledger *ledger = self.open_ledger()
        cdef uint64_t hash = srds_region_hash(region, n), ordinal = 0
        cdef size_t i
        cdef uint64_t *grown
        if ledger.length >= SCANNED:
            return self.next_ordinal_of_many(hash)
        for i in range(ledger.length):
            ordinal += ledger.hashes[i] == hash
        if ledger.length == ledger.capacity:
            grown = <uint64_t *>malloc(2 * ledger.capacity * sizeof(uint64_t))
            if grown == NULL:
                raise MemoryError()
            memcpy(grown, ledger.hashes, ledger.length * sizeof(uint64_t))
            if ledger.hashes != ledger.first:
                free(ledger.hashes)
            ledger.hashes = grown
            ledger.capacity *= 2
        ledger.hashes[ledger.length] = hash
        ledger.length += 1
        return ordinal

    cdef uint64_t next_ordinal_of_many(self, uint64_t hash) except? 0xffffffffffffffff:
        cdef Ledger *ledger = self.ledger
        cdef size_t i
        counts = self.attachment("ordinals", dict)
        if not counts:
            for i in range(ledger.length):
                counts[ledger.hashes[i]] = counts.get(ledger.hashes[i], 0) + 1
        ordinal = counts.get(hash, 0)
        counts[hash] = ordinal + 1
        return ordinal

    cdef uint64_t next_child(self) except? 0xffffffffffffffff:
        """The index of the next child: lane << 32 | count, a lane for each submitting thread
        or coroutine, in the order in which they first submit."""
        cdef object lane = None
        if self.function.is_async:
            lane = running_lane()
            if lane is self.attachment("owner", object):
                lane = None
        elif PyThread_get_thread_ident() != self.thread:
            lane = threading.current_thread()
        if lane is None:
            self.children += 1
            return self.children - 1
        lanes = self.attachment("lanes", dict)
        index, count = lanes.get(lane, (len(lanes) + 1, 0))
        lanes[lane] = (index, count + 1)
        return <uint64_t>index << 32 | <uint64_t>count

    cpdef object attachment(self, str name, object make):
        """What only few tasks need, made on first use."""
        if self.attachments is None:
            self.attachments = {}
        try:
            return self.attachments[name]
        except KeyError:
            return self.attachments.setdefault(name, make())


def running_lane():
    """The coroutine's asyncio task that the calling code runs in, else the thread."""
    asyncio = sys.modules.get("asyncio")    # where nobody has imported it, there are no coroutines
    try:
        lane = None if asyncio is None else asyncio.current_task()
    except RuntimeError:
        lane = None
    return threading.current_thread() if lane is None else lane


def watched_task():
    """The task that the calling code runs in, if its inputs are recorded or replayed; else None."""
    return watched()


def unwatched(function):
    """``function()``, with nothing that it reads taken for an input of the running task."""
    cdef Ref task = current()
    cdef PyObject *outer
    if task is None:
        return function()
    outer = begin_fetching(task)
    try:
        return function()
    finally:
        end_fetching(outer)


def current_task():
    """The task that the calling code runs in, as its ``Ref``; None outside any task."""
    return current()
