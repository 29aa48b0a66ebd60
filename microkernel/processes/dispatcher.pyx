"""Which task goes to which worker, and when.

No process schedules: the driver hands tasks to workers as long as their windows are open. A
window is measured in time: a worker is sent about 200 microseconds of work ahead, and at least
one task, so that short tasks stream and long ones do not queue behind each other. What was sent
and not begun can be taken back, so a bad guess costs little: an idle worker is given what a busy
one has not begun.

Whoever waits in the kernel sleeps at the driver's doorbell and is woken late, when as many
answers are there as it needs or a worker has half of its window left. Only one thread does so at
a time, the others sleep at bells of their own.
"""
from functools import partial

from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int64_t, uint32_t

from microkernel.mailbox cimport Method
from microkernel.pending cimport Doorbell, monotonic_ns, add_waiter
from microkernel.processes.station cimport (
    SRDS_OK,
    SRDS_REVOKED,
    SRDS_TASK,
    Entry,
    Station,
    srds_bell,
    srds_bell_ring,
    srds_bell_wait,
    srds_claim,
    srds_completion,
    srds_load32,
    srds_load64,
    srds_ring,
    srds_ring_between,
    srds_ring_wake_when,
    srds_store64,
)
from microkernel.ready_queue cimport ReadyQueue
from microkernel.task cimport ENDING, PROCESS, READY, URGENT, WAITING, Ref

from microkernel.processes.payload import UnfinishedReferences

cdef enum:
    WINDOW_NS = 200000          # work that a worker is sent ahead
    MOST_AHEAD = 2048           # tasks
    HANDED_OUT_NS = 1500


cdef void ring_driver(void *bell) noexcept nogil:
    srds_bell_ring(<srds_bell *>bell)


cdef class Dispatcher(Station):
    """The driver's station, as far as it hands out tasks and takes answers in."""

    def __cinit__(self):
        self.queue = ReadyQueue()

    cdef int want_workers(self) except -1:
        """There is more to do than the workers can begin."""
        return 0

    cdef int call_attendant(self) noexcept:
        """Something is under way from now on."""
        return 0

    cdef bint news_of_death(self) noexcept:
        return False

    cdef int push(self, Ref task) except -1:
        cdef int station
        self.outstanding += 1
        if self.queue.length == 0:
            station = self.best()
            if station > 0 and self.dispatch_to(station, task):
                if self.sent[station] > 1 and self.general < self.most:
                    self.want_workers()
                if self.dozing:
                    self.call_attendant()
                return 0
        if task.state == READY:
            self.queue.push(task)
            if task.wants & URGENT:
                self.make_way()
            srds_store64(&self.control.backlog, self.queue.length)
            if self.general < self.most:
                self.want_workers()
            if self.dozing:
                self.call_attendant()
        return 0

    cdef int make_way(self) except -1:
        """Send the most urgent task that waits in the place of one that was sent without being
        urgent and has not begun; then it waits at most for the task at hand."""
        cdef int station
        cdef uint32_t index
        cdef Ref other, urgent
        for station in range(1, self.used):
            index = self.last[station]
            if index == 0 or not (self.places[station].up and self.places[station].general):
                continue
            other = <Ref>self.entries[index].task
            if other.state != READY or other.wants & URGENT or not self.revoke(other.slot):
                continue
            urgent = self.queue.pop()
            if urgent is not None and not self.dispatch_to(station, urgent):
                self.queue.push_front(urgent)
            self.queue.push_front(other)
            return 0
        return 0

    cdef int best(self) noexcept:
        """The station that has least to do and still room; 0 when none has."""
        cdef int station, found = 0
        cdef uint32_t least = 0xffffffff
        cdef Place *place
        for station in range(1, self.used):
            place = &self.places[station]
            if place.up and place.general and not place.ending \
                    and self.sent[station] < place.limit and self.sent[station] < least:
                least = self.sent[station]
                found = station
                # Of what takes no longer than to hand it out, one worker does as much as two.
                if least == 0 or place.done and place.length_ns < HANDED_OUT_NS:
                    break
        return found

    cdef int dispatch_to(self, int station, Ref task) except -1:
        """Send a ready task, or end it with the error that sending it gave; 0: no room."""
        try:
            return self.send_task(station, SRDS_TASK, task)
        except UnfinishedReferences as unfinished:
            task.state = WAITING
            self.outstanding -= 1
            self.wait_for(task, unfinished.references)
        except Exception as error:
            if task.state == READY:
                task.state = ENDING
                self.outstanding -= 1
                self.engine.fail(task, error)
        return 1

    cdef int wait_for(self, Ref task, list references) except -1:
        """Send a task once the references inside its arguments are done. It is given them as they
        are, so that one fails does not concern it before it asks."""
        cdef Ref ref
        left = set(references)

        def ended(Ref reference not None):
            left.discard(reference)
            if not left and task.state == WAITING:
                self.engine.enqueue(task)

        for ref in references:
            told = partial(ended, ref)
            if not add_waiter(ref, told):
                told()
            elif ref.place == PROCESS:
                self.attend(1)
        return 0

    cdef int dispatch(self) except -1:
        """Send what waits, as far as windows are open."""
        cdef Ref task
        cdef int station
        while self.queue.length:
            station = self.best()
            if station == 0:
                break
            task = self.queue.pop()
            if task is None:
                break
            if not self.dispatch_to(station, task):
                self.queue.push_front(task)
                break
        srds_store64(&self.control.backlog, self.queue.length)
        return 0

    cdef int rebalance(self) except -1:
        """Give an idle worker what a busy one has been sent and has not begun."""
        cdef int station, idle = 0, busiest = 0
        cdef uint32_t most = 1, slot
        cdef Entry *entry
        cdef Ref task
        for station in range(1, self.used):
            if not (self.places[station].up and self.places[station].general
                    and not self.places[station].ending):
                continue
            if self.sent[station] == 0:
                idle = station
            elif self.sent[station] > most and self.holds_up(station):
                most = self.sent[station]
                busiest = station
        if not idle or not busiest:
            return 0
        for _ in range(most // 2):
            slot = self.last[busiest]
            if slot == 0:
                break
            entry = &self.entries[slot]
            task = <Ref>entry.task
            if task.state != READY or not self.revoke(task.slot):
                break
            if not self.dispatch_to(idle, task):
                self.queue.push_front(task)
                break
        return 0

    cdef bint holds_up(self, int station) noexcept:
        """Whether what a worker has not begun would be done sooner elsewhere: that is more than a
        moment's work, or behind a task that takes longer than a window (or stands still)."""
        cdef Place *place = &self.places[station]
        cdef int64_t now
        if self.sent[station] * place.length_ns > WINDOW_NS // 4 \
                and place.length_ns >= HANDED_OUT_NS:
            return True
        now = monotonic_ns()
        if place.seen_done != place.done or place.seen_ns == 0:
            place.seen_done = place.done
            place.seen_ns = now
        return now - place.seen_ns >= WINDOW_NS

    cdef bint lopsided(self) noexcept:
        """Whether one worker has nothing to do and another more than it has begun."""
        cdef int station
        cdef bint idle = False, waiting = False
        for station in range(1, self.used):
            if self.places[station].up and self.places[station].general \
                    and not self.places[station].ending:
                idle |= self.sent[station] == 0
                waiting |= self.sent[station] > 1
        return idle and waiting

    cdef bint revoke(self, uint32_t slot) except -1:
        """Take back a task that was sent, if it has not begun; its entry is gone then."""
        cdef Entry *entry = self.entry(slot)
        if entry == NULL or entry.message == NULL or not srds_claim(entry.message, SRDS_REVOKED):
            return False
        self.free_entry(slot)
        return True

    cdef bint take_back(self, Ref task) except -1:
        return False    # what is meant for another process does not run in this one

    cdef int ended(self, Ref task, int status, object value, srds_completion *times,
                   int station) except -1:
        cdef Place *place = &self.places[station]
        cdef double length = <double>(times.ended_ns - times.started_ns)
        place.done += 1
        # One that was held up by other programs says little: doubled at most, halved in five.
        if place.done == 1:
            place.length_ns = length
        else:
            place.length_ns += min((length - place.length_ns) / 8, place.length_ns)
        place.limit = 2 + <uint32_t>min(<double>MOST_AHEAD, WINDOW_NS / max(place.length_ns, 50.0))
        self.outstanding -= 1
        self.engine.ring.append_remote(task, station, times.started_ns, times.ended_ns)
        self.engine.end_elsewhere(task, status == SRDS_OK, value)
        if type(task.function) is Method:
            (<Method>task.function).mailbox.returned(task)
        return 0

    # Waiting

    cdef bint lead(self, Doorbell bell, int64_t until, size_t count) except -1:
        cdef int station, reason
        cdef int64_t again
        cdef uint32_t each
        cdef srds_ring *ring
        if self.leading:
            return False
        if not bell.asleep or srds_load64(&self.bell.inbox) or self.news_of_death():
            return True
        # To be woken late is to be woken seldom; but half of what a worker has must still be there.
        each = <uint32_t>max(1, count // max(1, self.general))
        for station in range(1, self.used):
            ring = srds_ring_between(self.control, station, 0)
            self.inbound[station] = ring
            srds_ring_wake_when(ring, ring.taken + max(1, min(each, self.sent[station] // 2))
                                if self.places[station].general else 0)
        if self.lopsided():
            # Look again: what the busy one is at may be long.
            again = monotonic_ns() + WINDOW_NS
            if until == 0 or again < until:
                until = again
        self.leading = True
        bell.kick = ring_driver
        bell.kicked = self.bell
        try:
            with nogil:
                reason = srds_bell_wait(self.bell, &self.spin, self.inbound, self.used,
                                        self.cpu_of_the_busy(), until, NULL)
        finally:
            bell.kick = NULL
            self.leading = False
        if reason < 0:
            PyErr_CheckSignals()
        return True

    cdef unsigned int cpu_of_the_busy(self) noexcept nogil:
        """Where the answer that is waited for is being made; 0: in more than one place."""
        cdef int station, busy = 0
        for station in range(1, self.used):
            if self.sent[station]:
                if busy:
                    return 0
                busy = station
        return srds_load32(&self.control.stations[busy].bell.cpu) if busy else 0
