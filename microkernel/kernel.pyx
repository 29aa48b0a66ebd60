"""The kernel: tasks, their order, their results, and the decisions that are kept.

It knows functions, references and time, and nothing of models, tables or users. Running tasks is
the engine's part; here is what makes one of them a decision: it is opened and closed in the
journal, and all that it and its tasks read comes through a boundary.
"""
import os
import weakref

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy

from microkernel.actors.reference cimport ActorRef
from microkernel.actors.registry cimport Actors
from microkernel.boundary cimport Live
from microkernel.engine cimport Engine
from microkernel.event_sink cimport EventSink
from microkernel.function cimport Function
from microkernel.ids cimport TaskId, id_from_bytes, id_to_bytes
from microkernel.recording cimport Recording, describe_error
from microkernel.remote cimport Remote
from microkernel.replaying cimport Replaying
from microkernel.scheduler cimport cancelled_error, unwrap
from microkernel.shims cimport begin_watching, end_watching
from microkernel.task cimport (
    DONE,
    FAILED,
    RUNNING,
    Boundary,
    DecisionScope,
    Ref,
    current,
    enter,
    enter_coroutine,
    is_fetching,
    leave,
    leave_coroutine,
    thread_ident,
)
from microkernel.tracing cimport trace as tracing
from microkernel.tracing.trace cimport SRDS_KIND_COROUTINE, SRDS_KIND_DECISION
from microkernel.values cimport Writer, write_array_header, write_raw, write_text, write_value

from microkernel.errors import KernelError, ValueNotRecordable
from microkernel.events import DECISION_CLOSED, DECISION_OPENED, TASKS
from microkernel.settings import KernelSettings, TaskOptions
from microkernel.task import running_lane
from microkernel.values import encode

cdef enum:
    TASK_BLOCK = 4096           # bytes of task records that make one event

cdef unsigned short OPENED_KIND = DECISION_OPENED
cdef unsigned short CLOSED_KIND = DECISION_CLOSED
cdef unsigned short TASKS_KIND = TASKS

cdef Boundary _live = Live()
cdef object _inline = TaskOptions(placement="inline")


cdef class Decision:
    """The answer of a decision, and the id under which the journal keeps it."""

    cdef readonly bytes id
    cdef readonly object answer

    def __repr__(self):
        return f"<Decision {self.id.hex()}: {self.answer!r}>"


cdef class EventLog:
    """How packages above append to the one journal: ``kernel.events.append``."""

    cdef EventSink sink

    def append(self, int kind, payload, *, bytes decision=None, uint64_t flags=0):
        """Append one event; ``decision`` defaults to the one that the calling code runs in.

        In a replay it does nothing: the event was appended when the decision was recorded.
        """
        cdef const unsigned char[::1] view
        cdef TaskId id
        cdef Ref task
        if self.sink is None:
            return
        task = current()
        if task is not None and task.scope is not None and task.scope.replayed:
            return      # it was appended when it was recorded
        if decision is not None:
            id = id_from_bytes(decision)
        elif task is not None and task.scope is not None:
            id = task.scope.decision
        else:
            id.hi = id.lo = 0
        if len(payload) == 0:
            self.sink.append(<unsigned short>kind, flags, &id, NULL, 0)
            return
        view = payload
        self.sink.append(<unsigned short>kind, flags, &id, &view[0], view.shape[0])

    @property
    def kept(self):
        """Whether anybody keeps what is appended."""
        return self.sink is not None


cdef class Kernel(Engine):
    """Runs tasks and decisions.

    ``sink`` keeps the events of decisions (a ``timemachine.journal.Journal``); without one,
    decisions run and nothing is kept. ``run_id``, 16 bytes, is what the ids of root tasks derive
    from; a journal brings its own.

    >>> with Kernel() as kernel:
    ...     two = kernel.submit(lambda: 2)
    ...     kernel.get(kernel.submit(lambda a, b: a + b, two, 3))
    5
    """

    cdef readonly EventLog events
    cdef EventSink sink
    cdef Boundary recording
    cdef list on_decision_opened
    cdef list on_decision_closed
    cdef list servers           # of metrics
    cdef tuple last_grounds
    cdef Actors actors
    cdef bint in_worker_process

    def __init__(self, settings=None, *, EventSink sink=None, bytes run_id=None):
        super().__init__(settings or KernelSettings(), run_id or os.urandom(16))
        cdef list inputs = self.hooks("input")
        self.sink = sink
        self.events = EventLog.__new__(EventLog)
        self.events.sink = sink
        self.recording = Recording(sink) if sink is not None else Live()
        if inputs is not None:
            self.recording.on_input = lambda *event: self.tell(inputs, event)
        self.on_decision_opened = self.hooks("decision_opened")
        self.on_decision_closed = self.hooks("decision_closed")
        self.actors = Actors(self)

    # Actors

    def spawn(self, cls, /, *args, options=None, **kwargs):
        """An actor: ``cls(*args, **kwargs)``, whose methods are called by tasks, in order.

        ``options`` are ``ActorOptions``: where it runs, its name, what becomes of it in a crash.
        Returns at once; what the constructor raises is raised by every call.

        >>> with Kernel() as kernel:
        ...     numbers = kernel.spawn(list, (1, 2))
        ...     kernel.get(numbers.append(3))
        ...     kernel.get(numbers.copy())
        [1, 2, 3]
        """
        return self.actors.spawn(cls, args, kwargs, options)

    def actor(self, str name not None):
        """The actor that was spawned under this name."""
        self.check_open()
        return self.actors.find(name)

    def stop(self, ActorRef actor not None, *, bint now=False):
        """End an actor after the calls that were made; ``now``: at once, and they fail.

        Returns at once. Later calls fail with ``ActorDied``; the name is free.
        """
        self.actors.stop(actor, now)

    def refer_to_actor(self, bytes key, cls, str described, str source):
        """What a pickled ``ActorRef`` becomes in this process."""
        return self.actors.refer(key, cls, described, source)

    cdef int end_actors(self, bint cancelled) except -1:
        return self.actors.close(cancelled)

    # Graphs known beforehand

    def flow(self, graph):
        """Run a ``flows.Graph``: operators linked by bounded channels. Returns the ``Flow``."""
        from microkernel.flows.flow import Flow

        return Flow(self, graph)

    def template(self, name="template", *, placement=None, deadline=None, parallel=False):
        """Record a subgraph of tasks, to submit it again and again as one: ``flows.Template``."""
        from microkernel.flows.template import Template

        options = None
        if placement is not None or deadline is not None:
            options = TaskOptions(placement=placement, deadline=deadline)
        return Template(self, name, options, parallel)

    # Watching

    def trace(self):
        """What every task left at its end so far, as an iterator of ``TraceEntry``."""
        from microkernel.tracing.entries import read_entries

        return read_entries(self.ring)

    def timeline(self, path=None, *, arrows=False):
        """Write the trace as a timeline to ``path``, or return its JSON.

        ``.json`` and ``.json.gz`` are for ui.perfetto.dev or chrome://tracing, ``.svg`` is a
        picture. ``arrows`` lead from a task to those that it submitted. It works on a closed
        kernel, too.
        """
        from microkernel.tracing.timeline import write_timeline

        return write_timeline(self.ring, path, arrows=arrows)

    def counters(self):
        """What the kernel has done and is doing now: ``KernelCounters``."""
        from microkernel.tracing.counters import counters_from

        return counters_from(self.ring.statistics(), self.remote if self.open else None)

    def serve_metrics(self, port=0):
        """Serve the counters to Prometheus at ``http://127.0.0.1:port/metrics`` while the kernel is
        open. Returns the ``MetricsServer``, whose ``port`` is the one taken where 0 was given."""
        from microkernel.tracing.metrics import MetricsServer

        self.check_open()
        server = MetricsServer(self, port)
        self.servers = [*(self.servers or ()), server]
        return server

    def close(self, *, cancel=False):
        """See ``Engine.close``; the trace and the counters can still be read."""
        try:
            Engine.close(self, cancel=cancel)
        finally:
            if not self.open and not self.forked():
                for server in self.servers or ():
                    server.close()
                self.servers = None
                self.ring.close()

    # Decisions

    def decision(self, function, /, *args, subject=None, policy=None, versions=(), **kwargs):
        """Open a decision, run ``function(*args, **kwargs)`` as its task, and close it.

        ``subject`` names whom it is about, ``policy`` the rule it is made under, ``versions`` the
        catalogue versions it rests on (hexadecimal hashes); arguments and answer are plain data.
        Returns a ``Decision`` with the ``answer`` and the ``id``, once the answer is in the
        journal; for a coroutine function, an awaitable of one. Within a decision, another one is
        a task of the first.

        >>> with Kernel() as kernel:
        ...     kernel.decision(round, 2.4).answer
        2
        """
        cdef Function known
        cdef Ref task
        cdef Ref outer = current()
        self.check_open()
        known = self.functions.of(function)
        if outer is not None and outer.scope is not None and not is_fetching(outer):
            return self.nested(known, args, kwargs, outer)
        if self.in_worker_process:
            raise KernelError("a decision is opened in a worker process", what=known.name,
                              expected="the process that opened the kernel, which has the journal",
                              remedy="open it there, and submit its tasks from within")
        task = self.open_decision(known, self.recording)
        if known.is_async:
            return self.decide_async(task, args, kwargs, (subject, policy, versions))
        return self.decide(task, args, kwargs, (subject, policy, versions))

    def replay(self, bytes decision not None, Replaying boundary not None, function, /, *args,
               **kwargs):
        """Run ``function`` as the decision of this id, with its inputs from ``boundary``.

        Everything runs inline and nothing is journalled. Returns as ``decision`` does.
        """
        cdef Ref task
        self.check_open()
        if current() is not None and (<Ref>current()).scope is not None:
            raise KernelError("a replay inside a decision", what="replay",
                              expected="a replay on its own",
                              remedy="return from the decision first")
        task = self.open_decision(self.functions.of(function), boundary)
        task.id = id_from_bytes(decision)
        task.scope.decision = task.id
        if task.function.is_async:
            return self.decide_async(task, args, kwargs, None)
        return self.decide(task, args, kwargs, None)

    cdef Ref open_decision(self, Function function, Boundary boundary):
        cdef Ref task = self.new_task(function)
        cdef DecisionScope scope = DecisionScope.__new__(DecisionScope)
        scope.decision = task.id
        scope.boundary = boundary
        scope.children = []
        scope.recorded = boundary.mode == "recording"
        scope.replayed = boundary.mode == "replaying"
        task.scope = scope
        task.thread = thread_ident()
        return task

    cdef int begin(self, Ref task, tuple args, dict kwargs, tuple about) except -1:
        if about is not None:
            task.scope.subject = about[0]
            task.scope.policy = about[1]
        if task.scope.recorded or task.scope.replayed:
            begin_watching()
            if task.scope.recorded:
                try:
                    self.append_opened(task, args, kwargs, about)
                except BaseException:
                    end_watching()
                    raise
        task.state = RUNNING
        tracing.submitted(self.ring, task)
        if task.function.is_async:
            tracing.begin_coroutine(self.ring, task)
        else:
            tracing.begin(self.ring, task)
        return 0

    cdef decide(self, Ref task, tuple args, dict kwargs, tuple about):
        cdef Ref previous
        self.begin(task, args, kwargs, about)
        previous = enter(task)
        try:
            if self.on_decision_opened is not None:
                self.tell(self.on_decision_opened, (task,))
            value = task.function.call(*args, **kwargs)
            if task.scope.children:
                self.finish_children(task)
        except BaseException as error:
            leave(previous)
            tracing.end(self.ring, task)
            self.close_decision(task, FAILED, error)
            raise
        leave(previous)
        tracing.end(self.ring, task)
        self.close_decision(task, DONE, value)
        return decided(task, value)

    async def decide_async(self, Ref task, tuple args, dict kwargs, about):
        task.attachment("owner", running_lane)
        self.begin(task, args, kwargs, about)
        token = enter_coroutine(task)
        try:
            if self.on_decision_opened is not None:
                self.tell(self.on_decision_opened, (task,))
            value = await task.function.call(*args, **kwargs)
            for child in task.scope.children:
                try:
                    await child
                except Exception:
                    pass        # whose result nobody asked for
        except BaseException as error:
            leave_coroutine(token)
            self.close_decision(task, FAILED, error)
            raise
        leave_coroutine(token)
        self.close_decision(task, DONE, value)
        return decided(task, value)

    cdef nested(self, Function function, tuple args, dict kwargs, Ref outer):
        if function.is_async:
            return nested_async(function, args, kwargs, outer)
        cdef Ref task = self.submit_task(function.call, args, kwargs, _inline)
        self.help(task)
        return decided_by(outer, unwrap(task))

    cdef int finish_children(self, Ref task) except -1:
        """A decision ends after its tasks: what they read belongs to its record."""
        cdef size_t i = 0
        while i < len(task.scope.children):
            self.finish(<Ref>task.scope.children[i], 0)
            i += 1
        return 0

    cdef int append_opened(self, Ref task, tuple args, dict kwargs, tuple about) except -1:
        """``decision.opened``: [function, code digest, arguments, named arguments, subject, policy,
        versions]."""
        cdef Writer *w = &task.scope.inputs
        cdef bytes same = task.function.opening
        try:
            write_raw(w, <const char *>same, len(same))
            write_array_header(w, len(args))
            for argument in args:
                write_value(w, argument, 1)
            write_value(w, kwargs, 0)
            write_value(w, about[0], 0)
            same = self.grounds(about[1], about[2])
            write_raw(w, <const char *>same, len(same))
            self.sink.append(OPENED_KIND, 0, &task.id, w.data, w.length)
        finally:
            w.length = 0
        return 0

    cdef bytes grounds(self, policy, versions):
        """Policy and versions as they are written; mostly they are those of the last decision."""
        cdef tuple last = self.last_grounds
        if last is not None and last[0] is policy and last[1] is versions:
            return <bytes>last[2]
        encoded = encode(policy) + encode(list(versions))
        if type(versions) is tuple and (policy is None or type(policy) is str):
            self.last_grounds = (policy, versions, encoded)
        return encoded

    cdef int close_decision(self, Ref task, int state, result) except -1:
        cdef DecisionScope scope = task.scope
        cdef bint recorded = scope.recorded
        cdef Ref child
        cdef object unrecordable = None
        if recorded or scope.replayed:
            end_watching()
        self.ring.append_slowly(task, state, result, SRDS_KIND_COROUTINE if task.function.is_async
                                else SRDS_KIND_DECISION)
        task.state = <unsigned char>state
        if state == FAILED:
            for child in scope.children:
                self.give_up(child, cancelled_error(child))
        # What goes on after the answer (a coroutine that nobody awaited) is no part of it.
        scope.recorded = scope.replayed = False
        scope.boundary = _live
        scope.children = []
        if self.actors.live:
            self.actors.end_of(scope)
        if self.forked():
            return 0        # the journal is the parent's
        if recorded:
            (<Recording>self.recording).finish(scope)
            if scope.tasks.length:
                self.append_tasks(scope)
            if state == DONE:
                try:
                    self.append_closed(task, True, result)
                except ValueNotRecordable as error:
                    unrecordable = error
            if unrecordable is not None or state == FAILED:
                self.append_closed(task, False, describe_error(unrecordable or result))
        if self.on_decision_closed is not None:
            self.tell(self.on_decision_closed, (task,))
        if unrecordable is not None:
            raise unrecordable
        return 0

    cdef int append_closed(self, Ref task, bint ok, result) except -1:
        """``decision.closed``: [ok, answer], or [false, [exception, arguments]]."""
        cdef DecisionScope scope = task.scope
        cdef Writer own
        cdef Writer *w = &scope.inputs
        cdef bint shared = not scope.writing
        if not shared:
            # A thread that the decision left behind is reading something that comes too late.
            own.data = NULL
            own.length = own.capacity = 0
            w = &own
        scope.writing = True
        try:
            write_array_header(w, 2)
            write_value(w, ok, 0)
            write_value(w, result, 0)
            self.sink.append(CLOSED_KIND, 0, &task.id, w.data, w.length)
        finally:
            if shared:
                w.length = 0
                scope.writing = False
            else:
                free(own.data)
        return 0

    cdef int task_ended(self, Ref task) except -1:
        """One entry of a ``tasks`` event: [task, parent, function, code digest, ok, started (ns,
        monotonic), nanoseconds]. Gathered in blocks, because one leaf a task would cost more than
        the task."""
        if not task.scope.recorded:
            return 0
        cdef Writer *w = &task.scope.tasks
        cdef int64_t started, ended
        self.ring.last_times(&started, &ended)
        write_array_header(w, 7)
        write_value(w, id_to_bytes(task.id), 0)
        write_value(w, id_to_bytes(task.parent), 0)
        write_text(w, task.function.name)
        write_value(w, task.function.code, 0)
        write_value(w, task.state == DONE, 0)
        write_value(w, started, 0)
        write_value(w, ended - started, 0)
        if w.length >= TASK_BLOCK:
            try:
                self.append_tasks(task.scope)
            except Exception:
                pass    # the block is kept; the decision's close appends it or raises
        return 0

    cdef int finish_scope(self, DecisionScope scope) except -1:
        if scope.tasks.length:
            self.append_tasks(scope)
        return 0

    cdef int append_gathered(self, Ref task, const unsigned char *events, size_t n) except -1:
        """One after the other: kind (2 bytes), length (4), data."""
        cdef uint16_t kind
        cdef uint32_t length
        while task.scope.recorded and n > 6:
            memcpy(&kind, events, 2)
            memcpy(&length, events + 2, 4)
            if length > n - 6:
                raise KernelError("a worker's record is cut short", what="events",
                                  expected=f"{length} bytes", remedy="report this as a bug")
            self.sink.append(kind, 0, &task.scope.decision, events + 6, length)
            events += 6 + length
            n -= 6 + length
        return 0

    cdef Remote open_remote(self):
        from microkernel.processes.fabric import Fabric

        return Fabric(self)

    def __reduce__(self):
        # In another process it stands for that process's kernel.
        return current_kernel, ()

    cdef int append_tasks(self, DecisionScope scope) except -1:
        cdef Writer block = scope.tasks
        scope.tasks.data = NULL
        scope.tasks.length = scope.tasks.capacity = 0
        try:
            self.sink.append(TASKS_KIND, 0, &scope.decision, block.data, block.length)
        except BaseException:
            write_raw(&block, scope.tasks.data, scope.tasks.length)
            free(scope.tasks.data)
            scope.tasks = block
            raise
        free(block.data)
        return 0


cdef object _here = None        # returns the kernel of this process that other processes know


def stand_for_process(Kernel kernel not None, *, bint worker):
    """Make ``kernel`` the one that a kernel which comes from another process turns into."""
    global _here
    kernel.in_worker_process = worker
    _here = weakref.ref(kernel)


def current_kernel():
    """The kernel whose task the calling code runs in, else the one that has processes.

    Raises ``KernelError`` elsewhere.
    """
    cdef Ref task = current()
    if task is not None and task.kernel is not None:
        return task.kernel
    kernel = None if _here is None else _here()
    if kernel is None:
        raise KernelError("no kernel runs this code", what="current_kernel",
                          expected="a call from within a task", remedy="pass the kernel along")
    return kernel


cdef Decision decided(Ref task, answer):
    cdef Decision decision = Decision.__new__(Decision)
    decision.id = id_to_bytes(task.id)
    decision.answer = answer
    return decision


cdef Decision decided_by(Ref outer, answer):
    cdef Decision decision = Decision.__new__(Decision)
    decision.id = id_to_bytes(outer.scope.decision)
    decision.answer = answer
    return decision


async def nested_async(Function function, tuple args, dict kwargs, Ref outer):
    return decided_by(outer, await function.call(*args, **kwargs))
