"""The task record, the decision it belongs to, and the boundary it reads through; see ``task.pyx``.

The three stand in one file because each holds the others.
"""
from libc.stdint cimport int64_t, uint32_t, uint64_t

from microkernel.ids cimport TaskId
from microkernel.values cimport Writer


cdef enum State:
    WAITING = 0     # for arguments that are references
    READY = 1
    RUNNING = 2
    DONE = 3
    FAILED = 4


cdef struct Ledger:
    # What a task has read so far: per input the hash of (kind, source, key), to number repeats.
    Writer writer
    bint busy
    size_t length
    size_t capacity
    uint64_t *hashes


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
    cdef list children
    cdef bint recorded
    cdef bint replayed
    cdef readonly object subject
    cdef readonly object policy


cdef class Function:
    cdef readonly object call
    cdef readonly str name
    cdef readonly bytes code
    cdef readonly bint is_async
    cdef uint64_t hash
    cdef object versions
    cdef bytes versions_encoded


cdef class Ref:
    cdef TaskId id
    cdef TaskId parent
    cdef Function function
    cdef object args
    cdef object kwargs
    cdef object result
    cdef object kernel
    cdef list waiters
    cdef dict extras
    cdef DecisionScope scope
    cdef Ledger *ledger
    cdef uint64_t children
    cdef int64_t deadline_ns
    cdef int64_t started_ns
    cdef unsigned long thread
    cdef unsigned long fetching
    cdef int missing
    cdef int helping
    cdef int depth
    cdef unsigned char state
    cdef unsigned char threaded
    cdef unsigned char interrupted

    cdef Ledger *open_ledger(self) except NULL
    cdef uint64_t next_ordinal(self, const unsigned char *region, size_t n) except? 0xffffffffffffffff
    cdef uint64_t next_child(self) except? 0xffffffffffffffff
    cdef uint64_t next_ordinal_of_many(self, uint64_t hash) except? 0xffffffffffffffff
    cpdef object extra(self, str name, object make)


cdef Ref current()
cdef Ref enter(Ref task)
cdef void leave(Ref previous) noexcept
cdef object enter_coroutine(Ref task)
cdef int leave_coroutine(object token) except -1
cdef unsigned long thread_ident() noexcept nogil
