"""A stage: fused operators that one thread at a time runs, and what leads to and from them.

A stage runs when there is something in front of it and room behind it. It takes a batch, hands it
from operator to operator as a list of calls, and takes the next. Where a stream branches, or an
operator has more to give than a batch, the rest is noted as *work*, innermost last, which also
bounds what is under way. When a channel behind it is full it stops, wherever it stands, leaves its
thread to others, and goes on from there when there is room: no thread ever sleeps in a flow but the
one that feeds it or reads its results.

A run of a stage is a task of the kernel (an *activation*), in a worker thread or, inline, in the
thread that uses the flow; so flows and other tasks share the workers and are seen by the same
instruments.
"""
import logging

from cpython.ref cimport PyObject
from libc.stdint cimport int64_t

from microkernel.flows.channel cimport Channel
from microkernel.flows.keys cimport key_hash
from microkernel.flows.part cimport BROKEN, FLOWING
from microkernel.flows.step cimport Step
from microkernel.ids cimport mix
from microkernel.pending cimport monotonic_ns
from microkernel.scheduler cimport in_worker
from microkernel.task cimport INLINE, THREAD, Ref, current, thread_ident

from microkernel.errors import GraphError
from microkernel.flows.graph import OperatorContext

cdef extern from "Python.h":
    int PyThreadState_SetAsyncExc(unsigned long thread, PyObject *exception)

cdef enum:
    SLICE_NS = 2000000          # how long a stage keeps a worker that others wait for

cdef object _log = logging.getLogger("microkernel")
cdef list _ENDED = []           # in place of a batch: one input of the target has ended


cdef class Outlet:
    """Where a stream leaves a stage: a channel, or one for each instance of the consumer."""

    def __cinit__(self):
        self.channels = []

    cdef Channel send(self, list batch):
        """Send a batch, or (None) the rest of the last one; the channel that is full, if one is."""
        cdef Channel channel
        cdef Channel full = None
        cdef size_t count
        cdef Py_ssize_t i
        if batch is not None:
            self.items += len(batch)
            self.deal(batch)
        for i in range(len(self.channels)):
            batch = self.waiting[i]
            if batch is None:
                continue
            channel = <Channel>self.channels[i]
            if channel.producers == 0:
                raise GraphError(f"items for {self.consumer} after the end of its cycle",
                                 what=self.consumer, expected="nothing from close() that returns "
                                 "to the cycle", remedy="emit it before the last item leaves")
            count = self.gone[i]
            count += channel.push(batch, count)
            if count == <size_t>len(batch):
                self.waiting[i] = None
                self.gone[i] = 0
            else:
                self.gone[i] = count
                full = channel
            self.part.arrived(channel)
        return full

    cdef int deal(self, list batch) except -1:
        """Split a batch over the channels."""
        cdef size_t count = len(self.channels), i
        if self.waiting is None:
            self.waiting = [None] * count
            self.gone = [0] * count
        if count == 1:
            self.waiting[0] = batch
        elif self.key is None:
            self.waiting[self.turn] = batch
            self.turn = (self.turn + 1) % count
        else:
            try:
                for item in batch:
                    i = key_hash(self.key(item)) % count
                    if self.waiting[i] is None:
                        self.waiting[i] = [item]
                    else:
                        (<list>self.waiting[i]).append(item)
            except Exception as error:
                error.add_note(f"in the key of operator {self.consumer}")
                raise
        return 0

    cdef int end(self) except -1:
        cdef Channel channel
        for channel in self.channels:
            if channel.producers:
                channel.end()
                if channel.producers == 0:
                    self.part.arrived(channel)
        return 0

    cdef int drop(self) except -1:
        self.waiting = None
        return 0


cdef class Stage:
    """A stage, for one of the instances of its operators."""

    def __cinit__(self):
        self.inputs = []
        self.work = []
        self.steps = []

    def __call__(self):
        """The body of an activation."""
        self.run()

    cdef int wake(self) except -1:
        """There may be something to do: see to it that a thread looks."""
        cdef Ref task
        if self.running:
            self.again = True
            return 0
        if self.stalled or self.over or self.activation is not None or self.part.state != FLOWING:
            return 0
        task = Ref.__new__(Ref)
        task.kernel = self.part.kernel
        task.function = self.function
        task.parent = self.part.ended.id
        task.id = mix(task.parent, ~self.activations, self.function.hash)
        task.args = ()
        # A stage that is in this process because it has one of its own is run by its main thread.
        task.place = THREAD if self.place == THREAD else INLINE
        self.activations += 1
        self.activation = task
        self.part.kernel.enlist(task)
        if self.place != THREAD:
            if self not in self.part.inline_ready:
                self.part.inline_ready.append(self)
            self.part.ring()
        return self.part.kernel.make_ready(task)

    cdef int resume(self) except -1:
        """There is room in the channel that it stopped at."""
        self.stalled = False
        return self.wake()

    cdef int run(self) except -1:
        """Go on until nothing is left to do, a channel is full or the time is up."""
        cdef Ref outer
        if self.running or self.over:
            return 0
        self.running = True
        self.thread = thread_ident()
        outer = current()
        if outer is not None:
            outer.helping += 1      # nobody must aim at it while a call of an operator is on top
        try:
            while True:
                self.again = self.yielded = False
                try:
                    self.go()
                except BaseException as error:
                    self.part.operator_failed(self.at_step, error)
                    if isinstance(error, (KeyboardInterrupt, SystemExit)) and not in_worker():
                        raise
                    break
                if self.part.state != FLOWING or self.stalled or not self.again:
                    break
        finally:
            if outer is not None:
                outer.helping -= 1
            if self.at_step is not None and self.at_step.record.task.interrupted:
                # An exception that is still on its way must not hit what this thread does next.
                PyThreadState_SetAsyncExc(self.thread, NULL)
            self.activation = None
            self.running = False
            if self.part.state == BROKEN:
                self.release()
        if self.part.state == FLOWING:
            if self.again or self.yielded:
                return self.wake()
            if self.cycle is not None:
                return self.part.settle(self.cycle)
        return 0

    cdef int go(self) except -1:
        cdef Channel channel
        cdef list batch
        cdef int64_t until = monotonic_ns() + SLICE_NS
        if not self.opened:
            self.open_all()
        while self.part.state == FLOWING:
            if self.work:
                self.go_on(self.work.pop())
                if self.stalled:
                    return 0
                continue
            if self.owing:
                self.pay()
            if self.open_steps == 0:
                self.over = True
                return self.part.stage_over()
            if (self.place == THREAD and self.part.kernel.thread_queue.length
                    and monotonic_ns() >= until):
                self.yielded = True
                return 0
            channel = self.next_input()
            if channel is None:
                return 0
            if channel.length:
                self.at_step = <Step>channel.step
                batch = channel.pop(channel.batch)
                if channel.remote:
                    self.owing = True
                self.part.room_made(channel)
                self.advance(<Step>channel.step, batch, channel.port)
            else:
                channel.told = True
                self.input_ended(<Step>channel.step)
        return 0

    cdef int go_on(self, tuple begun) except -1:
        """Do the innermost piece of what is begun."""
        cdef Outlet outlet
        cdef Channel full
        target, batch, port = begun
        if type(target) is Outlet:
            outlet = <Outlet>target
            self.at_step = None
            if batch is _ENDED:
                return outlet.end()
            full = outlet.send(batch)
            if full is not None:
                self.work.append((outlet, None, 0))
                # Only now, when nothing else can come between, it may be told of room.
                if full.room() == 0:
                    self.stalled = True
                    full.stalled.append(self)
            return 0
        if batch is _ENDED:
            return self.input_ended(<Step>target)
        return self.advance(<Step>target, batch, port)

    cdef int advance(self, Step step, list batch, int port) except -1:
        """Hand a batch from call to call, as far as one operator follows another."""
        cdef int64_t before = monotonic_ns(), now
        cdef list results
        while True:
            self.at_step = step
            step.batches += 1
            results = step.run(batch, port)
            now = monotonic_ns()
            step.busy_ns += now - before
            before = now
            if step.more:
                self.work.append((step, None, 0))
            if results is None or self.part.state != FLOWING:
                return 0
            if step.several:
                for i in range(len(results) - 1, -1, -1):
                    if results[i]:
                        step.items_out += len(results[i])
                        self.hand_on(step.targets[i], results[i])
                return 0
            if not results:
                return 0
            step.items_out += len(results)
            if step.follow is None:
                return self.hand_on(step.targets[0], results)
            port = step.follow_port
            step = step.follow
            batch = results

    cdef int hand_on(self, list targets, list batch) except -1:
        """Note a batch as work for each of those that follow, the first to be done first."""
        cdef Py_ssize_t i
        for i in range(len(targets) - 1, -1, -1):
            target, port = <tuple>targets[i]
            self.work.append((target, batch, port))
        return 0

    cdef int input_ended(self, Step step) except -1:
        cdef list results
        step.open_inputs -= 1
        if step.open_inputs > 0:
            return 0
        self.at_step = step
        results = step.finish()
        self.open_steps -= 1
        for targets in reversed(step.targets):
            self.hand_on(targets, _ENDED)
        if results:
            if not step.several:
                step.items_out += len(results)
                return self.hand_on(step.targets[0], results)
            for i in range(len(results) - 1, -1, -1):
                if results[i]:
                    step.items_out += len(results[i])
                    self.hand_on(step.targets[i], results[i])
        return 0

    cdef Channel next_input(self):
        """A channel in which something waits: feedbacks first, the others in turn."""
        cdef size_t count = len(self.inputs), i, others
        cdef Channel channel
        for i in range(self.feedbacks):
            channel = <Channel>self.inputs[i]
            if channel.length or (channel.producers == 0 and not channel.told):
                return channel
        others = count - self.feedbacks
        for i in range(others):
            channel = <Channel>self.inputs[self.feedbacks + (self.turn + i) % others]
            if channel.length or (channel.producers == 0 and not channel.told):
                self.turn = (self.turn + i + 1) % others
                return channel
        return None

    cdef int open_all(self) except -1:
        cdef Step step
        self.opened = True
        for step in self.steps:
            self.at_step = step
            step.open(OperatorContext(self.part.name, step.name, step.instance, step.instances))
        return 0

    cdef int pay(self) except -1:
        """All that was taken has gone through."""
        cdef Channel channel
        self.owing = False
        for channel in self.inputs:
            if channel.remote:
                channel.pay()
        return self.part.went_on()

    cdef int release(self) except -1:
        """Close what the operators hold, after a failure."""
        cdef Step step
        for step in self.steps:
            try:
                step.release()
            except Exception:
                _log.exception("while closing operator %s of flow %s", step.name, self.part.name)
        return 0

    cdef list drop(self):
        """Give up what waits; the caller lets go of it."""
        cdef Channel channel
        cdef list gone = [self.work]
        self.work = []
        for channel in self.inputs:
            gone.append(channel.drop())
            channel.stalled = []
        return gone
