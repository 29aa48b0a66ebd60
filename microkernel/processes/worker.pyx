"""A worker process: takes tasks from its rings, runs them, answers.

It has a kernel of its own for what its tasks submit. Such *nested* tasks are run where they are
waited for, innermost first, so any depth of waiting needs one process; a few at a time are
offered to idle workers in a Chase-Lev deque, the oldest first, which are the largest. A task ends
after the tasks that it submitted: should the process die, it is begun again with all of them.

Tasks are run in the main thread, where a signal can interrupt them.
"""
import os
import signal
import sys
from functools import partial

from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy

from microkernel.actors.host cimport CONCURRENT, Host
from microkernel.event_sink cimport EventSink
from microkernel.function cimport Function, like
from microkernel.ids cimport TaskId
from microkernel.objects.store cimport ObjectStore
from microkernel.pending cimport Doorbell, monotonic_ns
from microkernel.processes.station cimport (
    SRDS_CALL,
    SRDS_ACTOR,
    SRDS_ENDING,
    SRDS_ERROR,
    SRDS_OK,
    SRDS_RECORDED,
    SRDS_REVOKED,
    SRDS_SLAB_BYTES,
    SRDS_SLAB_SLOTS,
    SRDS_STATIONS,
    SRDS_TASK,
    SRDS_UNCLAIMED,
    SRDS_UP,
    Entry,
    Station,
    srds_and64,
    srds_bell,
    srds_bell_ring,
    srds_bell_wait,
    srds_claim,
    srds_completion,
    srds_control_leave,
    srds_deque_length,
    srds_deque_pop,
    srds_deque_push,
    srds_deque_steal,
    srds_load32,
    srds_load64,
    srds_lowest_bit,
    srds_message,
    srds_offered,
    srds_or64,
    srds_ring,
    srds_ring_between,
    srds_ring_consume,
    srds_ring_consume_to,
    srds_station,
    srds_store32,
    srds_store64,
    srds_take_over_reading,
    srds_take_over_sending,
    srds_task,
)
from microkernel.recording cimport Recording
from microkernel.scheduler cimport cancelled_error
from microkernel.shims cimport begin_watching, end_watching
from microkernel.streams cimport iterate
from microkernel.task cimport (
    DONE,
    FAILED,
    INLINE,
    READY,
    DecisionScope,
    Ref,
)
from microkernel.tracing.trace cimport SRDS_SENT, TraceRing
from microkernel.values cimport Writer, write_raw

from microkernel.errors import TaskCancelled

cdef extern from "<sys/prctl.h>":
    int PR_SET_PDEATHSIG
    int prctl(int option, unsigned long argument)

cdef enum:
    OFFERED = 8                 # nested tasks that lie open for others at a time
    RETENTION_NS = 10000000     # between looks whether answers with blocks were read


cdef void ring_here(void *bell) noexcept nogil:
    srds_bell_ring(<srds_bell *>bell)


cdef class Gathering(EventSink):
    """Keeps the events of a recorded decision's task, to be sent with its answer:
    kind (2 bytes), length (4), data, one after the other."""

    def __dealloc__(self):
        free(self.blocks.data)

    cdef int append(self, uint16_t kind, uint64_t flags, const TaskId *decision, const void *data,
                    size_t n) except -1 nogil:
        cdef uint32_t length = <uint32_t>n
        with gil:
            write_raw(&self.blocks, &kind, 2)
            write_raw(&self.blocks, &length, 4)
            write_raw(&self.blocks, data, n)
        return 0


cdef class Worker(Station):
    """This process's place among those of the kernel."""

    def __init__(self, int control, int objects, int station):
        from microkernel.kernel import Kernel, stand_for_process
        from microkernel.settings import KernelSettings

        self.attach(control, station)
        self.epoch = self.control.stations[station].epoch & 0xff
        self.busy_with = -1
        self.gathering = Gathering()
        self.recording = Recording(self.gathering)
        self.engine = Kernel(KernelSettings(placement="process"), sink=self.gathering)
        self.engine.remote = self
        self.lends = True
        stand_for_process(self.engine, worker=True)
        self.open_payloads(ObjectStore.attach(objects, station))
        self.take_over()

    def __dealloc__(self):
        free(self.waiting)

    cdef int take_over(self) except -1:
        """Begin where the last process of this station left off, though nothing of it is known."""
        cdef int other, slot
        cdef uint32_t stale, claim
        cdef srds_station *mine = &self.control.stations[self.index]
        for other in range(SRDS_STATIONS):
            if other and self.control.stations[other].epoch == 0:
                continue        # nobody has ever written there
            srds_take_over_sending(srds_ring_between(self.control, self.index, other))
            if other:
                srds_take_over_reading(srds_ring_between(self.control, other, self.index))
        while srds_deque_pop(&mine.deque, &stale):
            pass
        for slot in range(SRDS_SLAB_SLOTS):
            # What a living thief may still be reading is left alone.
            claim = srds_load32(&srds_offered(self.control, self.index, slot).claim)
            if claim in (SRDS_UNCLAIMED, SRDS_REVOKED, 1 + <uint32_t>self.index):
                srds_store32(&srds_offered(self.control, self.index, slot).claim, SRDS_REVOKED)
                self.free_offers[self.offers_left] = slot
                self.offers_left += 1
        mine.started_ns = monotonic_ns()
        srds_or64(&mine.bell.inbox, 1)      # the driver may have sent before there was a process
        if srds_load32(&mine.state) != SRDS_ENDING:
            srds_store32(&mine.state, SRDS_UP)
        return 0

    # The life of a worker

    cdef int live(self) except -1:
        cdef srds_station *mine = &self.control.stations[self.index]
        cdef uint64_t me = <uint64_t>1 << self.index
        while True:
            if self.first_waiting == self.end_waiting:
                self.poll()
            if self.first_waiting != self.end_waiting:
                self.run_next()
                continue
            if self.engine.inline_queue.length and self.engine.run_one_inline():
                continue        # a stage of a flow
            if not mine.dedicated and self.steal():
                continue
            if srds_load32(&self.control.closing) or srds_load32(&mine.state) == SRDS_ENDING:
                return 0
            if not mine.dedicated and not srds_load64(&self.control.idle) & me:
                # Said first, then looked again: what is offered from here on rings.
                srds_or64(&self.control.idle, me)
                self.ask_for_work()
                continue
            self.sleep(monotonic_ns() + RETENTION_NS if self.lent else 0)
            if self.lent:
                self.let_go_of_read_answers()
            srds_and64(&self.control.idle, ~me)

    cdef int ask_for_work(self) except -1:
        """Wake the driver, however many answers it waits for, if others have more than they can do
        at the moment."""
        cdef int other
        cdef srds_ring *ring
        if srds_load64(&self.control.backlog) == 0:
            for other in range(1, SRDS_STATIONS):
                if other == self.index or self.control.stations[other].epoch == 0:
                    continue
                ring = srds_ring_between(self.control, 0, other)
                if srds_load64(&ring.tail) - srds_load64(&ring.head) > 128:
                    break
            else:
                return 0
        srds_bell_ring(&self.control.stations[0].bell)
        return 0

    cdef int sleep(self, int64_t until) except -1:
        cdef srds_station *mine = &self.control.stations[self.index]
        self.leading = True
        with nogil:
            srds_bell_wait(self.bell, &self.spin, NULL, 0,
                           srds_load32(&self.control.stations[0].bell.cpu), until,
                           &self.control.closing)
        self.leading = False
        mine.counters.sleeps = self.spin.sleeps
        mine.counters.spins = self.spin.spins
        mine.counters.spin_hits = self.spin.hits
        # Also where it was the bell that woke: the signal may have come before the sleep.
        PyErr_CheckSignals()
        return 0

    # Tasks of others

    cdef int received(self, int sender, srds_message *message) except -1:
        cdef uint32_t room
        cdef Waiting *grown
        if message.kind == SRDS_CALL and (<srds_task *>message).function & CONCURRENT:
            return self.begin_call(sender, <srds_task *>message)
        if message.kind not in (SRDS_TASK, SRDS_ACTOR, SRDS_CALL):
            return Station.received(self, sender, message)
        if self.end_waiting == self.waiting_room:
            if self.first_waiting == self.end_waiting:
                self.first_waiting = self.end_waiting = 0
        if self.end_waiting == self.waiting_room:
            room = 2 * self.waiting_room if self.waiting_room else 1024
            grown = <Waiting *>realloc(self.waiting, room * sizeof(Waiting))
            if grown == NULL:
                raise MemoryError()
            self.waiting = grown
            self.waiting_room = room
        self.waiting[self.end_waiting].message = <srds_task *>message
        self.waiting[self.end_waiting].sender = sender
        self.end_waiting += 1
        return 0

    cdef int give_back(self, int sender, srds_ring *ring) except -1:
        # A task is consumed when it is answered: until then it can be seen in the ring.
        cdef uint32_t i
        if self.busy_with == sender:
            return 0
        for i in range(self.first_waiting, self.end_waiting):
            if self.waiting[i].sender == sender:
                return 0
        srds_ring_consume(ring)
        return 0

    cdef int run_next(self) except -1:
        cdef Waiting next = self.waiting[self.first_waiting]
        cdef srds_ring *ring = srds_ring_between(self.control, next.sender, self.index)
        self.first_waiting += 1
        if self.first_waiting == self.end_waiting:
            self.first_waiting = self.end_waiting = 0
        self.busy_with = next.sender
        try:
            if srds_claim(next.message, 1 + self.index):
                self.run(next.sender, next.message)
        finally:
            self.busy_with = -1
            srds_ring_consume_to(ring, <srds_message *>next.message)
            self.give_back(next.sender, ring)
        return 0

    cdef Ref made_of(self, int sender, srds_task *message):
        """The task that a message describes."""
        cdef Ref task = Ref.__new__(Ref)
        task.kernel = self.engine
        task.id.hi = message.id_hi
        task.id.lo = message.id_lo
        task.parent.hi = message.parent_hi
        task.parent.lo = message.parent_lo
        task.attempt = message.attempt
        task.place = SRDS_SENT
        task.state = READY
        task.function, task.args, task.kwargs, window = self.read_arguments(message)
        if window:
            # Its items are sent as they are made; the name and the code are the generator's.
            task.function = like(task.function, partial(
                self._produce, sender, message.slot, window, task, task.function.call))
        return task

    cdef Function method(self, uint32_t number):
        return self.host.function(number)

    cdef int begin_call(self, int sender, srds_task *message) except -1:
        """Begin a call that does not wait for those before it."""
        try:
            self.host.begin(self.made_of(sender, message), sender, message.slot)
        except Exception as error:
            self.answer(sender, message.slot, SRDS_ERROR, error, monotonic_ns(), monotonic_ns())
        return 0

    cdef int run(self, int sender, srds_task *message) except -1:
        """Run a task that this station has claimed, and answer."""
        cdef srds_station *mine = &self.control.stations[self.index]
        cdef uint32_t slot = message.slot
        cdef bint recorded = message.flags & SRDS_RECORDED
        cdef int64_t started_ns = monotonic_ns(), ended_ns
        cdef Ref task
        cdef DecisionScope scope = None
        try:
            task = self.made_of(sender, message)
        except Exception as error:
            return self.answer(sender, slot, SRDS_ERROR, error, started_ns, monotonic_ns())
        if recorded:
            scope = DecisionScope.__new__(DecisionScope)
            memcpy(&scope.decision, message + 1, sizeof(TaskId))
            scope.boundary = self.recording
            scope.children = []
            scope.recorded = True
            task.scope = scope
            begin_watching()
        mine.running_slot = slot
        srds_store32(&mine.running, 1 + sender)
        try:
            self.engine.run_task(task)
            if message.kind == SRDS_ACTOR and task.state == DONE:
                self.host = Host(self, task.function.call, task.result)
                task.result = None
            if self.engine.inline_queue.length or self.engine.remote_left \
                    or self.engine.threads_left:
                self.finish_nested()
        except BaseException as error:
            # TaskCancelled that came a little late, or SystemExit, which the task ends with.
            if task.state < DONE:
                task.state = FAILED
                task.result = (error, error.__traceback__)
            self.drop_nested()
        finally:
            srds_store32(&mine.running, 0)
            if recorded:
                end_watching()
        if self.forked:
            raise SystemExit(int(task.state != DONE))
        if recorded:
            (<Recording>self.recording).finish(scope)
            self.engine.finish_scope(scope)
            scope.recorded = False
            write_raw(&self.gathered, self.gathering.blocks.data, self.gathering.blocks.length)
            self.gathering.blocks.length = 0
        ended_ns = monotonic_ns()
        mine.counters.tasks += 1
        mine.counters.busy_ns += ended_ns - started_ns
        mine.counters.failed += task.state == FAILED
        if task.state == DONE:
            return self.answer(sender, slot, SRDS_OK, task.result, started_ns, ended_ns)
        return self.answer(sender, slot, SRDS_ERROR, task.result[0], started_ns, ended_ns)

    def _produce(self, int sender, uint32_t slot, uint32_t window, Ref task not None, call, *args,
                 **kwargs):
        """Run the generator of a stream, never more than ``window`` items ahead of its consumer."""
        cdef Doorbell bell = Doorbell()
        cdef srds_station *mine = &self.control.stations[self.index]
        cdef uint64_t taken
        cdef uint32_t made = 0
        srds_store64(&mine.taken, 0)
        source = iterate(task, call(*args, **kwargs))
        self.engine.callers.append(bell)
        try:
            while True:
                bell.listen()
                self.poll()
                taken = srds_load64(&mine.taken)
                if taken >> 32 != slot:
                    taken = 0
                if <uint32_t>(made - <uint32_t>taken) >= window:
                    self.lead(bell, 0, 1)
                    continue
                try:
                    item = next(source)
                except StopIteration as stop:
                    return stop.value
                made += 1
                self.answer_item(sender, slot, item)
        finally:
            self.engine.callers.remove(bell)
            if hasattr(source, "close"):
                source.close()

    # Nested tasks

    cdef int push(self, Ref task) except -1:
        self.outstanding += 1
        if srds_deque_length(&self.control.stations[self.index].deque) >= OFFERED \
                or not self.offer(task):
            self.make_local(task)
        return 0

    cdef int make_local(self, Ref task) except -1:
        """The task runs here, when somebody waits for it or its parent ends."""
        self.outstanding -= 1
        self.engine.remote_left -= 1
        task.place = INLINE
        self.engine.inline_queue.push(task)
        return 0

    cdef int finish_nested(self) except -1:
        """Until all tasks that the one at hand has submitted have ended."""
        cdef Doorbell bell = Doorbell()
        cdef uint32_t index
        cdef Ref task
        self.engine.callers.append(bell)
        try:
            while True:
                bell.listen()
                self.poll()
                if self.engine.run_one_inline():
                    continue
                index = self.last[self.index]
                while index:
                    task = <Ref>self.entries[index].task
                    if self.take_back(task):
                        self.engine.run_task(task)
                        break
                    index = self.entries[index].before
                else:
                    if self.engine.remote_left == 0 and self.engine.threads_left == 0:
                        return 0
                    self.engine.rest(bell, 0, 1)
        finally:
            self.engine.callers.remove(bell)

    cdef int drop_nested(self) except -1:
        """Give up what an interrupted task has submitted."""
        cdef uint32_t index = self.last[self.index]
        cdef Ref task
        while index:
            task = <Ref>self.entries[index].task
            index = self.entries[index].before
            self.engine.give_up(task, cancelled_error(task))
        self.engine.cancel_all()
        return 0

    cdef bint offer(self, Ref task) except -1:
        """Lay a task open for idle workers, if it is small and can be sent."""
        cdef srds_station *mine = &self.control.stations[self.index]
        cdef srds_task *record
        cdef Writer w
        cdef Entry *entry
        cdef uint16_t flags = 0
        cdef uint32_t slot
        cdef uint64_t idle
        cdef list held = []
        cdef int place
        if self.offers_left == 0:
            return False
        w = self.take_scratch()
        try:
            function = self.encode_call(&w, task, &flags, held)
            if w.length > SRDS_SLAB_BYTES - sizeof(srds_task):
                return False
            self.offers_left -= 1
            place = self.free_offers[self.offers_left]
            slot = self.new_entry(task, self.index)
            entry = self.entry(slot)
            entry.offered = place
            record = srds_offered(self.control, self.index, place)
            entry.message = record
            self.keep_held(entry, held)
            self.fill(record, task, SRDS_TASK, slot, function, &w, flags)
        except Exception:
            return False        # what cannot be sent can still run here
        finally:
            self.give_scratch(w)
        srds_deque_push(&mine.deque, place)
        idle = srds_load64(&self.control.idle)
        if idle:
            srds_bell_ring(&self.control.stations[srds_lowest_bit(idle)].bell)
        return True

    cdef int free_entry(self, uint32_t slot) except -1:
        cdef Entry *entry = self.entry(slot)
        if entry.offered >= 0:
            # Nobody may take the next task in this place before all of it is there.
            srds_store32(&entry.message.claim, SRDS_REVOKED)
            self.free_offers[self.offers_left] = entry.offered
            self.offers_left += 1
        return Station.free_entry(self, slot)

    cdef bint take_back(self, Ref task) except -1:
        cdef Entry *entry = self.entry(task.slot)
        cdef uint32_t newest
        if entry == NULL or entry.offered < 0 or not srds_claim(entry.message, SRDS_REVOKED):
            return False
        # Mostly it is the one offered last; others stay there until a thief finds them taken.
        if srds_deque_pop(&self.control.stations[self.index].deque, &newest) \
                and newest != <uint32_t>entry.offered:
            srds_deque_push(&self.control.stations[self.index].deque, newest)
        self.free_entry(task.slot)
        self.outstanding -= 1
        self.engine.remote_left -= 1
        task.place = INLINE
        return True

    cdef bint steal(self) except -1:
        """Run a task that another worker has laid open."""
        cdef int tried, other
        cdef uint32_t place
        cdef srds_task *record
        for tried in range(SRDS_STATIONS - 1):
            other = 1 + (self.next_victim + tried) % (SRDS_STATIONS - 1)
            if other == self.index or srds_load32(&self.control.stations[other].state) != SRDS_UP:
                continue
            while srds_deque_steal(&self.control.stations[other].deque, &place) == 1:
                record = srds_offered(self.control, other, place)
                if srds_claim(record, 1 + self.index):
                    self.next_victim = other - 1
                    self.control.stations[self.index].counters.stolen += 1
                    self.run(other, record)
                    return True
        return False

    cdef int ended(self, Ref task, int status, object value, srds_completion *times,
                   int station) except -1:
        self.outstanding -= 1
        self.engine.ring.append_remote(task, station, times.started_ns, times.ended_ns)
        return self.engine.end_elsewhere(task, status == SRDS_OK, value)

    # What the engine asks for

    cdef int pump(self) except -1:
        return self.poll()

    cdef bint lead(self, Doorbell bell, int64_t until, size_t count) except -1:
        if self.leading:
            return False
        if srds_load64(&self.bell.inbox) == 0 and bell.asleep:
            bell.kick = ring_here
            bell.kicked = self.bell
            try:
                self.sleep(until)
            finally:
                bell.kick = NULL
        return True

    cdef int interrupt(self, Ref task) except -1:
        self.take_back(task)        # or else a thief runs it, and its answer is for nobody
        return 0

    cdef int attend(self, int change) except -1:
        return 0

    cdef int close(self, bint cancelled) except -1:
        return 0

    def on_signal(self, number, frame):
        """The driver wants the task that runs to stop."""
        cdef srds_station *mine = &self.control.stations[self.index]
        cdef uint64_t running = (<uint64_t>srds_load32(&mine.running) << 32 | mine.running_slot)
        if running >> 32 and srds_load64(&mine.cancelled) == running:
            srds_store64(&mine.cancelled, 0)
            raise TaskCancelled("the task was cancelled while it ran", what="task",
                                expected="a task that is left to run", remedy="submit it again")

    def on_fork(self):
        """In a child that a task has forked: it ends with the task, and the worker answers."""
        self.forked = True
        srds_control_leave(self.control)


def draw_anew():
    """Shared generators that were seeded before the fork would draw the same in every worker; that
    of ``random`` sees to it itself."""
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()
    if "torch" in sys.modules:
        sys.modules["torch"].seed()


def work(int control, int objects, int station, int trace_memory=-1, int trace_file=-1):
    """The life of a worker process; does not return."""
    cdef Worker worker
    status = 1
    try:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        draw_anew()
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(line_buffering=True)     # a task's output appears as it is made
        worker = Worker(control, objects, station)
        if trace_memory >= 0:
            worker.engine.ring = TraceRing.attach(trace_memory, trace_file, station)
        signal.signal(signal.SIGURG, worker.on_signal)
        os.register_at_fork(after_in_child=worker.on_fork)
        worker.live()
        status = 0
    except SystemExit as end:
        status = end.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status)
