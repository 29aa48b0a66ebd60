"""Tasks by the time at which something happens to them: a deadline passes, a pause is over.

No timer thread: whoever waits for a task sleeps no longer than until the first alarm. A task that
ends before its alarm leaves its entry behind; when these are most of the heap it is built anew, so
that they do not keep the results of the tasks alive.
"""
from heapq import heapify, heappop, heappush
from itertools import count

from libc.stdint cimport int64_t

from microkernel.task cimport ENDING, Ref


cdef class Alarms:
    """A heap of tasks by time. Who adds one counts ``left`` down when the task ends or is due."""

    def __cinit__(self, unsigned char flag=0):
        self.entries = []
        self.flag = flag
        self.numbers = count()

    cdef bint pending(self, Ref task) noexcept:
        return task.state < ENDING and (self.flag == 0 or task.wants & self.flag)

    cdef bint add(self, Ref task, int64_t time_ns) except -1:
        """Set an alarm; whether it is the first now."""
        self.left += 1
        if <size_t>len(self.entries) > 2 * self.left + 64:
            self.entries = [entry for entry in self.entries if self.pending(<Ref>entry[2])]
            heapify(self.entries)
        heappush(self.entries, (time_ns, next(self.numbers), task))
        return self.entries[0][2] is task

    cdef int64_t first(self) except -1:
        """The time of the next alarm; 0 when there is none."""
        while self.entries:
            if self.pending(<Ref>self.entries[0][2]):
                return self.entries[0][0]
            heappop(self.entries)
        return 0

    cdef Ref due(self, int64_t now):
        """A task whose time has come, taken from the alarms; None when there is none."""
        cdef int64_t first = self.first()
        if first == 0 or first > now:
            return None
        return <Ref>heappop(self.entries)[2]

    cdef list take_all(self):
        """The tasks that have an alarm, which they lose."""
        cdef list tasks = [entry[2] for entry in self.entries if self.pending(<Ref>entry[2])]
        self.entries = []
        return tasks
