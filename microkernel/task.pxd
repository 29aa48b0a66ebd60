"""The task record, the decision it belongs to, and the boundary it reads through; see ``task.pyx``.

The three stand in one file because each holds the others.
"""
from cpython.ref cimport PyObject
from libc.stdint cimport int64_t, uint64_t

from microkernel.function cimport Function
from microkernel.ids cimport TaskId
from microkernel.values cimport Writer


cdef enum State:
    WAITING = 0     # for arguments that are references
    READY = 1
    RUNNING = 2
    ENDING = 3      # how it ends is settled, the others are not told yet
    DONE = 4
    FAILED = 5      # the result is (error, traceback)


cdef enum Place:
    INLINE = 0      # the thread that waits for the task
    THREAD = 1      # a worker thread of the kernel
    PROCESS = 2     # another process: the kernel's ``remote`` has it


cdef enum Wants:    # what a task asks for beside its turn, and what it has of it: most have none
    URGENT = 1      # a priority or a deadline: a queue puts it before those without
    NEEDS = 2       # resources
    HOLDS = 4       # it has them
    LENDS = 8       # its share of the CPUs, while it waits for another task
    STREAMS = 16    # a generator, whose items are taken one by one
    PARKED = 32     # its arguments are there, and it waits for resources
    PAUSED = 64     # ... for the time to begin again
    STALLED = 128   # ... for somebody to take the items it has made


cdef struct Ledger:
    # What a task has read so far: per input the hash of (kind, source, key), to number repeats.
    size_t length
    size_t capacity
    uint64_t *hashes
    uint64_t[8] first           # most tasks need no more


cdef class Boundary:
    cdef readonly str mode
    cdef public object on_input
    cdef object exchange(self, Ref task, str kind, str source, object key, object fetch)
    cdef object keep(self, Ref task, str kind, str source, object key, object value)
    cdef object recorded(self, Ref task, str kind, str source, object key)


cdef class DecisionScope:
    cdef TaskId decision
    cdef Boundary boundary
    cdef Writer tasks
    cdef Writer inputs          # entries that will be journalled together
    cdef size_t whole           # bytes of complete entries among them
    cdef bint writing           # somebody is at this moment adding an entry
    cdef list children
    cdef bint recorded
    cdef bint replayed
    cdef readonly object subject
    cdef readonly object policy


cdef class Ref:
    cdef TaskId id
    cdef TaskId parent
    cdef Function function
    cdef object args
    cdef object kwargs
    cdef object result
    cdef object kernel
    cdef object options         # TaskOptions; None asks for nothing
    cdef object waiters         # None, one, or a list of several; see add_waiter
    cdef dict attachments
    cdef DecisionScope scope
    cdef Ledger *ledger
    cdef PyObject *coroutine    # borrowed: the one that was running when this task began
    cdef uint64_t children
    cdef int64_t deadline_ns
    cdef int64_t started       # in ticks of the trace; 0: it has not begun
    cdef unsigned long thread
    cdef unsigned int slot      # the entry that stands for the task with ``remote``; 0: none
    cdef int missing
    cdef unsigned short helping     # tasks that run on top of this one in its thread
    cdef unsigned char priority     # 0 to 63, the most urgent
    cdef unsigned char wants        # see Wants
    cdef unsigned char state
    cdef unsigned char place
    cdef unsigned char attempt      # how often it has been begun again
    cdef unsigned char interrupted

    cdef Ledger *open_ledger(self) except NULL
    cdef uint64_t next_ordinal(self, const unsigned char *region,
                               size_t n) except? 0xffffffffffffffff
    cdef uint64_t next_child(self) except? 0xffffffffffffffff
    cdef uint64_t next_ordinal_of_many(self, uint64_t hash) except? 0xffffffffffffffff
    cpdef object attachment(self, str name, object make)


cdef Ref current()
cdef Ref watched()
cdef Ref enter(Ref task)
cdef void leave(Ref previous) noexcept
cdef object enter_coroutine(Ref task)
cdef int leave_coroutine(object token) except -1
cdef PyObject *begin_fetching(Ref task) noexcept
cdef void end_fetching(PyObject *outer) noexcept
cdef bint is_fetching(Ref task) noexcept
cdef unsigned long thread_ident() noexcept nogil
cdef unsigned long forks() noexcept nogil
