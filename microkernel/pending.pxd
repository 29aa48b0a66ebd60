"""Waiting for the first of many tasks; see ``pending.pyx``."""
from libc.stdint cimport int64_t

from microkernel.task cimport Ref


cdef extern from "pythread.h":
    ctypedef void *PyThread_type_lock
    PyThread_type_lock PyThread_allocate_lock()
    void PyThread_free_lock(PyThread_type_lock lock)
    void PyThread_release_lock(PyThread_type_lock lock) nogil
    int PyThread_acquire_lock(PyThread_type_lock lock, int wait) nogil
    ctypedef enum PyLockStatus:
        PY_LOCK_FAILURE
        PY_LOCK_ACQUIRED
        PY_LOCK_INTR
    PyLockStatus PyThread_acquire_lock_timed(PyThread_type_lock lock, long long microseconds,
                                             int interruptible) nogil


cdef class Doorbell:
    cdef PyThread_type_lock lock
    cdef bint asleep
    cdef void (*kick)(void *) noexcept nogil    # wakes who sleeps elsewhere than at the lock
    cdef void *kicked
    cdef int ring(self) except -1
    cdef int listen(self) noexcept
    cdef int stop_listening(self) noexcept
    cdef int sleep(self, int64_t until_ns) except -1


cdef class Completions:
    cdef readonly list done
    cdef size_t taken
    cdef size_t needed
    cdef bint alive
    cdef bint waited_for
    cdef Doorbell bell
    cdef object notify          # called once, when as many as are needed have ended; or None
    cdef int watch(self, Ref task) except -1
    cdef int complete(self, Ref task) except -1
    cdef size_t available(self) noexcept


cdef class Pending:
    cdef dict positions
    cdef Completions completions
    cdef list order
    cdef size_t first           # every task before this one is done
    cdef object checked         # the kernel that found all tasks to be its own
    cdef dict by_position
    cdef list in_order(self)
    cdef dict numbered(self)


cdef int64_t monotonic_ns() noexcept nogil
cdef bint add_waiter(Ref task, object waiter) except -1
