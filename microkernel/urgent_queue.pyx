"""Tasks with a priority or a deadline, the most urgent first.

Of two tasks the one with the higher priority goes first; of equals the one with the earlier
deadline, where none is later than any; of equals again the one that came first. Within a priority
this is earliest-deadline-first (Liu and Layland, 1973), which meets all deadlines whenever any
order does. A word with a bit for each of the 64 priorities finds the highest in one instruction,
as in the O(1) scheduler of Linux 2.6, and each priority has a binary heap, so that a task costs
the logarithm of those of its own priority.

Every operation runs under the GIL. A task that was run out of turn, because somebody waited for
it, leaves a gap, which goes when it comes to the front or before its heap grows.
"""
from cpython.ref cimport PyObject, Py_DECREF, Py_INCREF
from libc.stdint cimport INT64_MAX, uint64_t
from libc.stdlib cimport free, realloc

from microkernel.task cimport READY, Ref

cdef extern from *:
    """
    static inline unsigned srds_highest_bit(uint64_t word) { return 63 - __builtin_clzll(word); }
    """
    unsigned int srds_highest_bit(uint64_t word) noexcept nogil


cdef inline bint before(const Entry *a, const Entry *b) noexcept nogil:
    if a.deadline_ns != b.deadline_ns:
        return a.deadline_ns < b.deadline_ns
    return a.arrival < b.arrival


cdef void sift_up(Entry *heap, size_t i) noexcept nogil:
    cdef Entry moved = heap[i]
    cdef size_t parent
    while i:
        parent = (i - 1) >> 1
        if not before(&moved, &heap[parent]):
            break
        heap[i] = heap[parent]
        i = parent
    heap[i] = moved


cdef void sift_down(Entry *heap, size_t length, size_t i) noexcept nogil:
    cdef Entry moved = heap[i]
    cdef size_t child = 2 * i + 1
    while child < length:
        if child + 1 < length and before(&heap[child + 1], &heap[child]):
            child += 1
        if not before(&heap[child], &moved):
            break
        heap[i] = heap[child]
        i = child
        child = 2 * i + 1
    heap[i] = moved


cdef class UrgentQueue:
    """Tasks by priority, deadline and arrival; those in another state than ``alive`` are gaps."""

    def __cinit__(self, unsigned char alive=READY):
        self.alive = alive
        self.arrivals = self.returns = <uint64_t>1 << 62

    def __dealloc__(self):
        cdef size_t priority, i
        for priority in range(64):
            for i in range(self.levels[priority].length):
                Py_DECREF(<object>self.levels[priority].entries[i].task)
            free(self.levels[priority].entries)

    def __len__(self):
        return self.length

    cdef int push(self, Ref task) except -1:
        self.arrivals += 1
        return self.push_as(task, self.arrivals)

    cdef int push_front(self, Ref task) except -1:
        """Put back a task that was taken: it comes before its equals."""
        self.returns -= 1
        return self.push_as(task, self.returns)

    cdef int push_as(self, Ref task, uint64_t arrival) except -1:
        cdef Level *level = &self.levels[task.priority & 63]
        cdef Entry *entry
        while level.length == level.capacity:
            self.make_room(level)
        entry = &level.entries[level.length]
        entry.deadline_ns = task.deadline_ns if task.deadline_ns else INT64_MAX
        entry.arrival = arrival
        entry.task = <PyObject *>task
        Py_INCREF(task)
        level.length += 1
        sift_up(level.entries, level.length - 1)
        self.length += 1
        self.filled |= <uint64_t>1 << (task.priority & 63)
        return 0

    cdef int make_room(self, Level *level) except -1:
        """Leave out what was run meanwhile, and double the heap if that frees less than half."""
        cdef list gone = []         # let go of at the end, when the heap is whole again
        cdef Entry *grown
        cdef size_t capacity, i, kept = 0
        for i in range(level.length):
            if (<Ref>level.entries[i].task).state == self.alive:
                level.entries[kept] = level.entries[i]
                kept += 1
            else:
                gone.append(<object>level.entries[i].task)
                Py_DECREF(<object>level.entries[i].task)
        self.length -= level.length - kept
        if kept != level.length:
            level.length = kept
            i = kept // 2
            while i:
                i -= 1
                sift_down(level.entries, kept, i)
        if 2 * kept > level.capacity or level.capacity == 0:
            capacity = 2 * level.capacity if level.capacity else 16
            grown = <Entry *>realloc(level.entries, capacity * sizeof(Entry))
            if grown == NULL:
                raise MemoryError()
            level.entries = grown
            level.capacity = capacity
        return 0

    cdef object take(self, unsigned int priority):
        """The first of a priority that has any, whatever became of it."""
        cdef Level *level = &self.levels[priority]
        cdef PyObject *task = level.entries[0].task
        level.length -= 1
        self.length -= 1
        if level.length:
            level.entries[0] = level.entries[level.length]
            sift_down(level.entries, level.length, 0)
        else:
            self.filled &= ~(<uint64_t>1 << priority)
        taken = <object>task
        Py_DECREF(taken)
        return taken

    cdef Ref first(self):
        """The task that ``pop`` would return; it stays."""
        cdef unsigned int priority
        while self.filled:
            priority = srds_highest_bit(self.filled)
            if (<Ref>self.levels[priority].entries[0].task).state == self.alive:
                return <Ref>self.levels[priority].entries[0].task
            self.take(priority)
        return None

    cdef Ref pop(self):
        """The most urgent task that is still to be run, or None."""
        cdef Ref task
        while self.filled:
            task = <Ref>self.take(srds_highest_bit(self.filled))
            if task.state == self.alive:
                return task
        return None
