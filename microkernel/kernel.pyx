"""The kernel: tasks, their order, their results, and the decisions that are kept.

It knows functions, references and time, and nothing of models, tables or users. Running tasks is
the engine's part; here is what makes one of them a decision: it is opened and closed in the
journal, and all that it and its tasks read comes through a boundary.
"""
import os

from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport free

from microkernel.boundary cimport Live
from microkernel.engine cimport Engine
from microkernel.event_sink cimport EventSink
from microkernel.function cimport Function
from microkernel.ids cimport TaskId, id_from_bytes, id_to_bytes
from microkernel.pending cimport monotonic_ns
from microkernel.recording cimport Recording, describe_error
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
    cdef tuple last_grounds

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
            self.close_decision(task, FAILED, error)
            raise
        leave(previous)
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
        task.state = <unsigned char>state
        if state == FAILED:
            for child in scope.children:
                self.give_up(child, cancelled_error(child))
        # What goes on after the answer (a coroutine that nobody awaited) is no part of it.
        scope.recorded = scope.replayed = False
        scope.boundary = _live
        scope.children = []
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
        cdef int64_t now = monotonic_ns()
        write_array_header(w, 7)
        write_value(w, id_to_bytes(task.id), 0)
        write_value(w, id_to_bytes(task.parent), 0)
        write_text(w, task.function.name)
        write_value(w, task.function.code, 0)
        write_value(w, task.state == DONE, 0)
        write_value(w, task.started_ns, 0)
        write_value(w, now - task.started_ns if task.started_ns else 0, 0)
        if w.length >= TASK_BLOCK:
            try:
                self.append_tasks(task.scope)
            except Exception:
                pass    # the block is kept; the decision's close appends it or raises
        return 0

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
