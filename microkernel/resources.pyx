"""What tasks share (CPUs, GPUs, a camera), and who waits for a part of it.

A task that asks for resources gets all of them when its arguments are there, or is parked without
any: nobody holds a part while it waits for the rest, so tasks cannot wait for each other in a ring.
Amounts are counted in units of 1/10000, because sums of binary fractions do not come out even.

Parked tasks with the same need form a line, ordered as an ``UrgentQueue`` is. When something is
given back, the heads of the lines are tried in that same order, and whoever fits is let in: a task
that needs four GPUs does not hold up those that need none. It would starve if small ones kept
coming; therefore, once it has been passed 64 times by tasks of no higher priority that want some
of the same, what it needs is kept for it until it is let in.

A task that waits for another lends its CPU share meanwhile, as in Ray, and takes it back at once
when it goes on, even if that is one too many for a moment: so nested waits cannot block each other.
"""
from libc.stdint cimport INT64_MAX, int64_t, uint64_t

from microkernel.task cimport HOLDS, LENDS, PARKED, WAITING, Ref
from microkernel.urgent_queue cimport UrgentQueue

from microkernel.errors import KernelError

cdef enum:
    UNITS = 10000       # that make 1 of a resource
    KINDS = 64          # bits of a mask
    PATIENCE = 64
    REMEMBERED = 1024
    CPU = 0

cdef extern from *:
    """
    static inline int srds_first_bit(uint64_t word) { return __builtin_ctzll(word); }
    """
    int srds_first_bit(uint64_t word) noexcept nogil


cdef class Need:
    """The amounts that a task needs, and the tasks that wait for just these."""

    def __cinit__(self):
        self.parked = UrgentQueue(WAITING)

    cdef Ref first(self):
        """The task that is to be let in next; None when the line is empty."""
        cdef Ref task = self.parked.first()
        while task is not None and not task.wants & PARKED:
            self.parked.pop()       # it was let in out of turn, and waits for something else now
            task = self.parked.first()
        return task


cdef tuple rank(Need need):
    """Where the first of a line stands among those of the others."""
    cdef Ref task = need.first()
    if task is None:
        return (2,)
    return (need.overtaken < PATIENCE, -<int>task.priority, task.deadline_ns or INT64_MAX,
            need.parked.levels[task.priority].entries[0].arrival)


cdef class Resources:
    """The resources of a kernel: ``capacity`` by name, where CPU is one of them."""

    def __cinit__(self, dict capacity not None):
        self.names = ["CPU", *(name for name in capacity if name != "CPU")]
        if len(self.names) > KINDS:
            raise KernelError(f"{len(self.names)} kinds of resources", what="resources",
                              expected=f"at most {KINDS}", remedy="put some of them together")
        for i, name in enumerate(self.names):
            self.total[i] = self.free[i] = units_of(capacity[name])
        self.needs = {}
        self.known = {}
        self.waiting = []
        self.holders = {}
        self.arrivals = self.returns = <uint64_t>1 << 62

    cdef Need need_of(self, object options):
        """What ``TaskOptions`` ask for; None for nothing. Raises KernelError for what can never be.
        """
        cdef Need need
        found = self.known.get(id(options))
        if found is not None and found[0] is options:
            return <Need>found[1]
        key = tuple(sorted((name, units_of(amount)) for name, amount in options.resources.items()
                           if amount))
        need = self.needs.get(key)
        if need is None and key:
            need = Need()
            for name, units in key:
                if name not in self.names:
                    raise KernelError(
                        f"a task needs {units / UNITS:g} {name}, and the kernel has none",
                        what=name, expected="one of " + ", ".join(self.names),
                        remedy=f"KernelSettings(resources={{{name!r}: ...}})")
                i = self.names.index(name)
                if units > self.total[i]:
                    raise KernelError(
                        f"a task needs {units / UNITS:g} {name}, and the kernel has "
                        f"{self.total[i] / UNITS:g}", what=name,
                        expected=f"at most {self.total[i] / UNITS:g}",
                        remedy="ask for less, or open a kernel that has more")
                need.mask |= <uint64_t>1 << <int>i
                need.units[i] = units
            self.needs[key] = need
        if len(self.known) >= REMEMBERED:
            self.known.clear()
        self.known[id(options)] = (options, need)
        return need

    cdef bint fits(self, Need need) noexcept:
        cdef uint64_t left = need.mask
        cdef int i
        while left:
            i = srds_first_bit(left)
            left &= left - 1
            if need.units[i] > self.free[i]:
                return False
        return True

    cdef int take(self, Ref task, Need need) except -1:
        cdef uint64_t left = need.mask
        cdef int i
        while left:
            i = srds_first_bit(left)
            left &= left - 1
            self.free[i] -= need.units[i]
        self.holders[task] = need
        task.wants = (task.wants | HOLDS) & ~PARKED
        return 0

    cdef bint admit(self, Ref task) except -1:
        """Give a task what it needs, or park it; whether it has it."""
        cdef Need need = self.need_of(task.options)
        if need is None:
            return True
        if need.first() is None and self.fits(need) and not (
                self.waiting and self.kept_for_others(task, need)):
            self.take(task, need)
            return True
        self.arrivals += 1
        self.park(task, need, self.arrivals)
        return False

    cdef int park(self, Ref task, Need need, uint64_t arrival) except -1:
        if need not in self.waiting:
            self.waiting.append(need)
        need.parked.push_as(task, arrival)
        task.state = WAITING
        task.wants |= PARKED
        return 0

    cdef bint kept_for_others(self, Ref task, Need need) except -1:
        """Whether something it needs is kept for others; if not, it is about to pass them."""
        cdef Need other
        cdef Ref first
        cdef list passed = []
        for other in self.waiting:
            first = other.first()
            if first is not None and other.mask & need.mask and task.priority <= first.priority:
                if other.overtaken >= PATIENCE:
                    return True
                passed.append(other)
        for other in passed:
            other.overtaken += 1
        return False

    cdef Ref next_admitted(self):
        """A parked task that is let in now, and has what it needs; None when there is none."""
        cdef Need need
        cdef Ref task
        cdef uint64_t kept = 0
        cdef list passed = []
        if not self.waiting:
            return None
        if len(self.waiting) > 1:
            self.waiting.sort(key=rank)
        for need in tuple(self.waiting):
            task = need.first()
            if task is None:
                need.overtaken = 0
                self.waiting.remove(need)
            elif not need.mask & kept and self.fits(need):
                need.parked.pop()
                need.overtaken = 0
                self.take(task, need)
                for other in passed:
                    if (<Need>other).mask & need.mask:
                        (<Need>other).overtaken += 1
                return task
            else:
                passed.append(need)
                if need.overtaken >= PATIENCE:
                    kept |= need.mask
        return None

    cdef bint admit_now(self, Ref task) except -1:
        """Let in a parked task that somebody with resources waits for, whoever is before it, if
        there is enough; it leaves a gap in its line."""
        cdef Need need = self.need_of(task.options)
        if not self.fits(need):
            return False
        self.take(task, need)
        return True

    cdef int release(self, Ref task) except -1:
        """Take back what a task has."""
        cdef Need need = self.holders.pop(task)
        cdef uint64_t left = need.mask
        cdef int i
        if task.wants & LENDS:
            left &= ~<uint64_t>1        # its CPU share was given back before
        while left:
            i = srds_first_bit(left)
            left &= left - 1
            self.free[i] += need.units[i]
        task.wants &= ~(HOLDS | LENDS)
        return 0

    cdef int park_again(self, Ref task) except -1:
        """Take back what a task has that has not begun; it comes first in its line."""
        self.release(task)
        self.returns -= 1
        return self.park(task, self.need_of(task.options), self.returns)

    cdef list held_last_first(self):
        """The tasks that have what they need, those that got it last first."""
        return list(reversed(self.holders))

    cdef list parked_tasks(self):
        """All that wait for resources, as far as they still do."""
        cdef list tasks = []
        cdef Ref task
        cdef size_t i
        for need in self.waiting:
            for level in range(64):
                for i in range((<Need>need).parked.levels[<int>level].length):
                    task = <Ref>(<Need>need).parked.levels[<int>level].entries[i].task
                    if task.state == WAITING and task.wants & PARKED:
                        tasks.append(task)
        return tasks

    cdef bint lend(self, Ref task) except -1:
        """A task begins to wait: others may have its CPU share. Whether it had one to lend."""
        cdef Need need = self.holders[task]
        if task.wants & LENDS or not need.mask & 1:
            return False
        task.wants |= LENDS
        self.free[CPU] += need.units[CPU]
        return True

    cdef int take_back(self, Ref task) except -1:
        """A task that lent its CPU share goes on."""
        if task.wants & LENDS:
            task.wants &= ~LENDS
            self.free[CPU] -= (<Need>self.holders[task]).units[CPU]
        return 0

    cdef str stands_in_its_own_way(self, Ref task, Ref waited_for):
        """The resource of which ``task`` holds so much that what it waits for cannot begin."""
        cdef Need held = self.holders[task]
        cdef Need need = self.need_of(waited_for.options)
        cdef int i
        for i in range(1, <int>len(self.names)):
            if need.units[i] > self.total[i] - held.units[i]:
                return self.names[i]
        return None


cdef int64_t units_of(object amount) except -1:
    """An amount in units of 1/10000; what is more than nothing stays so."""
    return max(1, round(amount * UNITS)) if amount else 0
