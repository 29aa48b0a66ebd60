"""Which task runs when and where, and who is told of its end.

A task runs in one of three places under the same rules and with the same ids: *inline*, in the
thread that waits for it, in the order of submission, so that a debugger works and runs repeat; in a
*thread* of the kernel's own; or in another *process*. Here are the books: which task depends on
which, which may begin, how each ended. ``Runner`` runs them. Everything here happens under the GIL,
between two byte codes of anybody else, which is why counting dependencies needs no lock. What may
let another thread in (a hook, a sink, the destructor of an argument) is called only when the books
are balanced.
"""
import logging

from libc.stdint cimport int64_t

from microkernel.alarms cimport Alarms
from microkernel.encoded cimport Encoded
from microkernel.function cimport Function, Functions
from microkernel.ids cimport id_from_bytes, id_to_bytes, mix
from microkernel.mailbox cimport Method
from microkernel.pending cimport Completions, Doorbell, add_waiter, monotonic_ns
from microkernel.ready_queue cimport ReadyQueue
from microkernel.remote cimport Remote
from microkernel.resources cimport Resources
from microkernel.task cimport (
    DONE,
    ENDING,
    FAILED,
    HOLDS,
    INLINE,
    NEEDS,
    PAUSED,
    PROCESS,
    READY,
    RUNNING,
    STALLED,
    STREAMS,
    THREAD,
    URGENT,
    WAITING,
    DecisionScope,
    Ref,
    current,
    forks,
    is_fetching,
)
from microkernel.tracing cimport trace
from microkernel.tracing.trace cimport TraceRing

from microkernel.errors import (
    DeadlineMissed,
    KernelClosed,
    KernelError,
    NotOverridden,
    TaskCancelled,
)
from microkernel.instrument import Instrument
from microkernel.settings import NO_FALLBACK

cdef extern from *:
    """
    static __thread int srds_is_worker = 0;
    """
    int srds_is_worker

cdef object _log = logging.getLogger("microkernel")


cdef class Scheduler:
    """Tasks, their order, their ends and the workers; ``Runner`` runs them."""

    def __init__(self, settings, bytes run_id not None):
        self.settings = settings
        self.run_id = run_id
        self.run = id_from_bytes(run_id)
        self.process = forks()
        self.inline_queue = ReadyQueue()
        self.thread_queue = ReadyQueue()
        self.callers = []
        self.deadlines = Alarms()
        self.pauses = Alarms(PAUSED)
        self.resources = Resources(settings.capacity)
        self.functions = Functions()
        self.ring = TraceRing(run_id, settings.placement)
        self.place = place_named(settings.placement)
        self.on_submitted = self.hooks("submitted")
        self.on_started = self.hooks("started")
        self.on_finished = self.hooks("finished")
        self.on_object_made = self.hooks("object_made")
        self.open = True

    cdef list hooks(self, str name):
        """The methods of this name that the instruments override; None when there are none."""
        return [getattr(instrument, name) for instrument in self.settings.instruments
                if getattr(type(instrument), name) is not getattr(Instrument, name)] or None

    cdef int tell(self, list hooks, tuple event) except -1:
        for hook in tuple(hooks):
            try:
                hook(*event)
            except Exception:
                if hook in hooks:
                    hooks.remove(hook)
                _log.exception("an instrument raised and is not called again: %r", hook)
        return 0

    cdef bint forked(self) noexcept:
        """Whether this is a forked child of the process that opened the kernel."""
        return self.process != forks()

    cdef int check_open(self) except -1:
        if not self.open or self.forked():
            raise KernelClosed(
                "the kernel is closed" if not self.open else "the kernel belongs to the process "
                "that this one was forked from", what="Kernel", expected="an open kernel",
                remedy="open one here: with Kernel() as kernel")
        return 0

    cdef int check_ours(self, Ref task) except -1:
        if task.kernel is not self and task.state < DONE:
            raise KernelError(f"{task.function.name} is a task of another kernel", what=repr(task),
                              expected="a reference that this kernel made, or one that is done",
                              remedy="get its result from its own kernel first")
        return 0

    # Submitting

    cdef Ref new_task(self, Function function):
        """A task of the running task, or of the run, with the next id."""
        cdef Ref parent = current()
        cdef Ref task = Ref.__new__(Ref)
        task.kernel = self
        task.function = function
        # What a source submits while it is asked belongs to no decision: a replay does not ask it.
        if parent is None or parent.kernel is None or is_fetching(parent):
            task.parent = self.run
            task.id = mix(self.run, self.roots, function.hash)
            self.roots += 1
        else:
            task.parent = parent.id
            task.id = mix(parent.id, parent.next_child(), function.hash)
            task.scope = parent.scope
        return task

    cdef Ref submit_task(self, object call, tuple args, dict kwargs, object options):
        self.check_open()
        return self.submit_function(self.functions.of(call), args, kwargs, options)

    cdef Ref submit_function(self, Function function, tuple args, dict kwargs, object options):
        cdef bint references = False
        cdef Ref task = self.prepare(function, args, kwargs, options, &references)
        self.hand_in(task, references)
        return task

    cdef Ref prepare(self, Function function, tuple args, dict kwargs, object options,
                     bint *references):
        """A new task with its id and its place, of which nobody knows yet."""
        cdef Ref task
        if function.is_async:
            raise KernelError(f"{function.name} is a coroutine function", what=function.name,
                              expected="a function",
                              remedy="await it, or make it a decision, which may be a coroutine")
        for argument in args:
            if type(argument) is Ref:
                self.check_ours(<Ref>argument)
                references[0] = True
        if kwargs:
            for argument in kwargs.values():
                if type(argument) is Ref:
                    self.check_ours(<Ref>argument)
                    references[0] = True
        if options is not None and options.resources:
            self.resources.need_of(options)     # raises for what can never be, before it has an id
        task = self.new_task(function)
        task.args = args
        task.kwargs = kwargs if kwargs else None
        task.place = self.place
        if options is not None:
            self.grant(task, options)
        if task.scope is not None and task.scope.replayed:
            task.place = INLINE         # a replay needs no other thread, and none to wait for
        return task

    cdef int hand_in(self, Ref task, bint references) except -1:
        """Make a prepared task one of the kernel's, which may begin."""
        self.enlist(task)
        if task.scope is not None:
            task.scope.children.append(task)
        if task.options is not None and task.options.deadline is not None:
            if task.scope is None or not task.scope.replayed:
                self.set_deadline(task, monotonic_ns() + <int64_t>(task.options.deadline * 1e9))
            elif not task.wants & STREAMS and self.missed_in_record(task):
                return 0
        if references:
            task.missing += 1       # while they are counted, some may end
            args = task.args        # which it loses when one of them has failed
            kwargs = task.kwargs
            for argument in <tuple>args:
                if type(argument) is Ref:
                    self.depend(task, <Ref>argument)
            if kwargs is not None:
                for argument in (<dict>kwargs).values():
                    if type(argument) is Ref:
                        self.depend(task, <Ref>argument)
            task.missing -= 1
        if task.missing == 0 and task.state == WAITING:
            self.make_ready(task)
        return 0

    cdef int grant(self, Ref task, object options) except -1:
        """Note what the task was given beside its function; its deadline is set later."""
        task.options = options
        if options.placement is not None:
            task.place = place_named(options.placement)
        if options.priority:
            task.priority = options.priority
            task.wants |= URGENT
        # What the machine of a recorded run had is no concern of a replay, where nothing overlaps.
        if options.resources and not (task.scope is not None and task.scope.replayed):
            task.wants |= NEEDS
        return 0

    cdef int enlist(self, Ref task) except -1:
        """A new task has its place: see to it that somebody is there, count it, tell of it."""
        if task.place == THREAD:
            self.need_worker()
        elif task.place == PROCESS and self.remote is None:
            self.remote = self.open_remote()
        trace.submitted(self.ring, task)
        if self.on_submitted is not None:
            self.tell(self.on_submitted, (task,))
        if task.place == THREAD:
            self.threads_left += 1
        elif task.place == PROCESS:
            self.remote_left += 1
        return 0

    cdef bint missed_in_record(self, Ref task) except -1:
        """In a replay: whether the task's deadline was missed when it was recorded; the clock has
        no say then."""
        if task.scope.boundary.recorded(task, "deadline", "kernel", None) is None:
            return False
        task.state = ENDING
        self.end_late(task)
        return True

    cdef int depend(self, Ref task, Ref on) except -1:
        if on.state == FAILED:
            if task.state == WAITING:
                task.state = ENDING
                self.complete(task, FAILED, on.result)
        elif on.state < DONE:
            task.missing += 1
            if not add_waiter(on, task):
                task.missing -= 1
                return self.depend(task, on)
            if on.place == PROCESS:
                self.remote.attend(1)
        return 0

    cdef int make_ready(self, Ref task) except -1:
        if type(task.function) is Method:
            return (<Method>task.function).mailbox.ready(task)
        if task.wants & NEEDS and not task.wants & HOLDS and not self.resources.admit(task):
            return 0
        return self.enqueue(task)

    cdef int enqueue(self, Ref task) except -1:
        """A task has all that it needs: it may begin."""
        if task.wants & STREAMS and task.place == INLINE:
            task.state = WAITING
            task.wants |= STALLED       # for somebody to ask for an item
            return self.wake_caller()
        task.state = READY
        if task.place == THREAD:
            self.thread_queue.push(task)
            return self.wake_worker()
        if task.place == PROCESS:
            return self.remote.push(task)
        self.inline_queue.push(task)
        if self.callers:
            self.wake_caller()
        return 0

    cdef int let_go(self, Ref task) except -1:
        """Take back the resources of a task, and let those in who waited for them."""
        self.resources.release(task)
        return self.admit_parked()

    cdef int admit_parked(self) except -1:
        cdef Ref task = self.resources.next_admitted()
        while task is not None:
            self.enqueue(task)
            task = self.resources.next_admitted()
        return 0

    # What the other floors do

    cdef int need_worker(self) except -1:
        """See to it that there is a thread for tasks in threads."""
        raise NotOverridden

    cdef int wake_worker(self) except -1:
        """There is one more task for the threads."""
        raise NotOverridden

    cdef int interrupt(self, Ref task) except -1:
        """Stop a task that has ended in the books where it still runs."""
        raise NotOverridden

    cdef int failed(self, Ref task, object error) except -1:
        """The function of a task raised: begin it again, or end it."""
        raise NotOverridden

    cdef int run_stream(self, Ref task) except -1:
        """Make items of a stream that is ready."""
        raise NotOverridden

    cdef int cut_stream(self, Ref task, str end) except -1:
        """A stream is about to be ended by something else than its generator."""
        raise NotOverridden

    cdef int end_actors(self, bint cancelled) except -1:
        """The kernel closes; its calls have ended or are ``cancelled``."""
        return 0

    cdef Remote open_remote(self):
        """The other processes, when the first task is to run there."""
        raise KernelError("this kernel has no other processes", what="placement 'process'",
                          expected="inline or thread", remedy="use a Kernel")

    cdef int end_elsewhere(self, Ref task, bint ok, object value) except -1:
        """A task that ran in another process has ended there, with its result or its error."""
        if task.state >= ENDING:
            return 0        # given up meanwhile: cancelled, or too late
        if ok and task.deadline_ns and monotonic_ns() >= task.deadline_ns:
            task.slot = 0
            return self.miss(task)
        if not ok:
            return self.failed(task, value)
        task.state = ENDING
        return self.complete(task, DONE, value)

    cdef int append_gathered(self, Ref task, const unsigned char *events, size_t n) except -1:
        """What a recorded task read in another process."""
        return 0

    cdef int finish_scope(self, DecisionScope scope) except -1:
        """Write what is gathered of a decision's tasks."""
        return 0

    cdef int fail(self, Ref task, object error) except -1:
        """End a task, which is ENDING, by an error."""
        try:
            if not getattr(error, "__notes__", None):
                error.add_note(f"in task {task.function.name} ({id_to_bytes(task.id).hex()})")
        except Exception:
            pass        # an exception that cannot be annotated is raised as it is
        return self.complete(task, FAILED, (error, error.__traceback__))

    cdef int complete(self, Ref task, int state, object result) except -1:
        """Store a result and tell those who wait for it, and so on down the line of failures."""
        cdef object waiters
        cdef list failed = None
        cdef object stop = None
        while True:
            trace.append(self.ring, task, state, result)
            task.state = <unsigned char>state
            task.result = result
            task.args = None
            task.kwargs = None
            waiters = task.waiters
            task.waiters = None
            if task.deadline_ns:
                self.deadlines.left -= 1
            if task.wants:
                self.asking_ended(task)
            if task.place == THREAD:
                self.threads_left -= 1
                if self.threads_left == 0 and self.callers:
                    self.wake_caller()
            elif task.place == PROCESS:
                self.remote_left -= 1
                if self.remote_left == 0 and self.callers:
                    self.wake_caller()
            if task.scope is not None:
                self.task_ended(task)
            if type(waiters) is list:
                for waiter in <list>waiters:
                    failed = self.tell_waiter(task, waiter, failed)
            elif waiters is not None:
                failed = self.tell_waiter(task, waiters, failed)
            if type(task.function) is Method:
                (<Method>task.function).mailbox.ended(task)
            if self.on_finished is not None:
                try:
                    self.tell(self.on_finished, (task,))
                except BaseException as raised:
                    stop = raised       # Ctrl-C in a hook: the others are told first
            if not failed:
                break
            task = <Ref>failed.pop()
        if stop is not None:
            raise stop
        return 0

    cdef list tell_waiter(self, Ref task, object waiter, list failed):
        """Tell one who waited that the task is done; those that fail with it join ``failed``."""
        cdef Ref dependent
        if task.place == PROCESS and type(waiter) is not Completions:
            self.remote.attend(-1)
        if type(waiter) is Ref:
            dependent = <Ref>waiter
            if dependent.state != WAITING:
                pass
            elif task.state == FAILED:
                # Marked now, so that it is not listed twice; told in its turn.
                dependent.state = ENDING
                failed = [] if failed is None else failed
                failed.append(dependent)
            else:
                dependent.missing -= 1
                if dependent.missing == 0:
                    self.make_ready(dependent)
        elif type(waiter) is Completions:
            (<Completions>waiter).complete(task)
        else:
            waiter()
        return failed

    cdef int asking_ended(self, Ref task) except -1:
        """A task ends that asked for more than its turn."""
        if task.wants & PAUSED:
            task.wants &= ~PAUSED
            self.pauses.left -= 1
        # One that still runs, though nobody waits for it, keeps what it has until it stops.
        if task.wants & HOLDS and (task.place == PROCESS or not task.interrupted):
            self.let_go(task)
        return 0

    cdef int task_ended(self, Ref task) except -1:
        """Called for each task of a decision when it ends; the kernel notes it."""
        return 0

    # Deadlines

    cdef int set_deadline(self, Ref task, int64_t deadline_ns) except -1:
        task.deadline_ns = deadline_ns
        task.wants |= URGENT
        if self.deadlines.add(task, deadline_ns) and self.callers:
            self.wake_caller()
        return 0

    cdef int miss_the_late(self) except -1:
        cdef Ref task = self.deadlines.due(monotonic_ns())
        while task is not None:
            self.miss(task)
            task = self.deadlines.due(monotonic_ns())
        return 0

    cdef int miss(self, Ref task) except -1:
        """End a task by its deadline; recorded, because in a replay the clock has no say."""
        cdef bint begun = task.state == RUNNING or (task.place == PROCESS and task.slot)
        if task.wants & STREAMS:
            self.cut_stream(task, "late")
        task.state = ENDING
        if task.scope is not None and task.scope.recorded and not task.wants & STREAMS:
            try:
                task.scope.boundary.keep(task, "deadline", "kernel", None, True)
            except Exception as error:
                self.fail(task, error)
                raise
        if begun:
            self.interrupt(task)
        return self.end_late(task)

    cdef int end_late(self, Ref task) except -1:
        """End a task, which is ENDING, by its deadline."""
        if task.options is not None and task.options.fallback is not NO_FALLBACK:
            return self.complete(task, DONE, task.options.fallback)
        return self.fail(task, deadline_missed(task))

    cdef int wake_caller(self) except -1:
        """Something changed that those who wait for a task may have to act on."""
        for bell in self.callers:
            (<Doorbell>bell).ring()
        return 0


cdef unsigned char place_named(str placement):
    if placement == "inline":
        return INLINE
    return THREAD if placement == "thread" else PROCESS


cdef bint in_worker() noexcept:
    """Whether the calling thread is a kernel's worker."""
    return srds_is_worker


cdef void be_worker() noexcept:
    """Make the calling thread one that may run what it waits for, as a worker may."""
    global srds_is_worker
    srds_is_worker = 1


cdef bint is_root(Ref task) noexcept:
    """Whether the task is a decision itself, for which no other task can wait."""
    return (task.scope is not None and task.id.hi == task.scope.decision.hi
            and task.id.lo == task.scope.decision.lo)


cdef inline object result_of(Ref task):
    """The value of a task that has one."""
    result = task.result
    return (<Encoded>result).decode() if type(result) is Encoded else result


cdef tuple resolved(tuple args):
    """The arguments, with references replaced by their results."""
    for argument in args:
        if type(argument) is Ref:
            return tuple([result_of(<Ref>value) if type(value) is Ref else value for value in args])
    return args


cdef dict resolved_names(dict kwargs):
    return {name: result_of(<Ref>value) if type(value) is Ref else value
            for name, value in kwargs.items()}


cdef object unwrap(Ref task):
    """The result of a task that is done; raises its error."""
    if task.state == DONE:
        return result_of(task)
    # With the traceback of the task each time: raised by several callers, it would grow otherwise.
    error, traceback = task.result
    raise error.with_traceback(traceback)


cdef object cancelled_error(Ref task):
    return TaskCancelled(f"{task.function.name} was cancelled", what=task.function.name,
                         expected="a task that is left to run", remedy="submit it again")


cdef object deadline_missed(Ref task):
    return DeadlineMissed(f"{task.function.name} had no result by its deadline",
                          what=task.function.name, expected="a result in time",
                          remedy="give it a later deadline, or answer without it")
