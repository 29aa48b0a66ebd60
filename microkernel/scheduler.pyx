"""Which task runs when and where, and who is told of its end.

A task runs in one of two places under the same rules and with the same ids: *inline*, in the thread
that waits for it, in the order of submission, so that a debugger works and runs repeat; or in a
*thread* of the kernel's own. Everything here happens under the GIL, between two byte codes of
anybody else, which is why counting dependencies needs no lock. What may let another thread in (a
hook, a sink, the destructor of an argument) is called only when the books are balanced.

A burst of submissions wakes each sleeping worker at most once, and an awake worker goes from task
to task without giving up the GIL. That is what makes a threaded task cost less than a microsecond
here and several in an executor that locks and signals for each.
"""
import logging
import threading
from heapq import heapify, heappop, heappush

from cpython.ref cimport PyObject
from libc.stdint cimport int64_t

from microkernel.function cimport Function, Functions
from microkernel.ids cimport id_from_bytes, id_to_bytes, mix
from microkernel.pending cimport Completions, Doorbell, monotonic_ns
from microkernel.ready_queue cimport ReadyQueue
from microkernel.task cimport (
    DONE,
    ENDING,
    FAILED,
    READY,
    RUNNING,
    WAITING,
    Ref,
    current,
    enter,
    forks,
    is_fetching,
    leave,
    thread_ident,
)

from microkernel.errors import DeadlineMissed, KernelClosed, KernelError, TaskCancelled
from microkernel.instrument import Instrument

cdef extern from "Python.h":
    int PyThreadState_SetAsyncExc(unsigned long thread, PyObject *exception)

cdef extern from *:
    """
    static __thread int srds_is_worker = 0;
    """
    int srds_is_worker

cdef enum:
    GRACE_SECONDS = 5           # that tasks which were told to stop are waited for at closing

cdef object _log = logging.getLogger("microkernel")


cdef class Worker:
    """A thread that runs ready tasks until there are none, then sleeps at its bell."""


cdef class Scheduler:
    """Tasks, their order, their ends and the workers; ``Engine`` adds waiting for them."""

    def __init__(self, settings, bytes run_id not None):
        self.settings = settings
        self.run_id = run_id
        self.run = id_from_bytes(run_id)
        self.process = forks()
        self.inline_queue = ReadyQueue()
        self.thread_queue = ReadyQueue()
        self.workers = []
        self.asleep = []
        self.callers = []
        self.deadlines = []
        self.functions = Functions()
        self.threaded = settings.placement == "thread"
        self.most_workers = settings.workers
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
        cdef Function function
        cdef Ref task
        cdef bint references = False
        self.check_open()
        function = self.functions.of(call)
        if function.is_async:
            raise KernelError(f"{function.name} is a coroutine function", what=function.name,
                              expected="a function",
                              remedy="await it, or make it a decision, which may be a coroutine")
        for argument in args:
            if type(argument) is Ref:
                self.check_ours(<Ref>argument)
                references = True
        if kwargs:
            for argument in kwargs.values():
                if type(argument) is Ref:
                    self.check_ours(<Ref>argument)
                    references = True
        task = self.new_task(function)
        task.args = args
        task.kwargs = kwargs if kwargs else None
        task.threaded = self.threaded
        if options is not None and options.placement is not None:
            task.threaded = options.placement == "thread"
        if task.scope is not None and task.scope.replayed:
            task.threaded = False       # a replay needs no other thread, and none to wait for
        if task.threaded and not self.workers:
            self.start_worker()
        if self.on_submitted is not None:
            self.tell(self.on_submitted, (task,))
        self.threads_left += task.threaded
        if task.scope is not None:
            task.scope.children.append(task)
        if options is not None and options.deadline is not None:
            if task.scope is None or not task.scope.replayed:
                self.set_deadline(task, monotonic_ns() + <int64_t>(options.deadline * 1e9))
            elif self.missed_in_record(task):
                return task
        if references:
            for argument in args:
                if type(argument) is Ref:
                    self.depend(task, <Ref>argument)
            if task.kwargs is not None:
                for argument in kwargs.values():
                    if type(argument) is Ref:
                        self.depend(task, <Ref>argument)
        if task.missing == 0 and task.state == WAITING:
            self.make_ready(task)
        return task

    cdef bint missed_in_record(self, Ref task) except -1:
        """In a replay: whether the task's deadline was missed when it was recorded; the clock has
        no say then."""
        if task.scope.boundary.recorded(task, "deadline", "kernel", None) is None:
            return False
        task.state = ENDING
        self.fail(task, deadline_missed(task))
        return True

    cdef int depend(self, Ref task, Ref on) except -1:
        if on.state == FAILED:
            if task.state == WAITING:
                task.state = ENDING
                self.complete(task, FAILED, on.result)
        elif on.state < DONE:
            task.missing += 1
            if on.waiters is None:
                on.waiters = [task]
            else:
                on.waiters.append(task)
        return 0

    cdef int make_ready(self, Ref task) except -1:
        task.state = READY
        if task.threaded:
            self.thread_queue.push(task)
            return self.wake_worker()
        self.inline_queue.push(task)
        if self.callers:
            self.wake_caller()
        return 0

    # Workers

    cdef int start_worker(self) except -1:
        cdef Worker worker = Worker.__new__(Worker)
        worker.bell = Doorbell()
        worker.thread = threading.Thread(target=self._work, args=(worker,), daemon=True,
                                         name=f"srds-worker-{len(self.workers)}")
        self.workers.append(worker)
        try:
            worker.thread.start()
        except RuntimeError as error:
            self.workers.remove(worker)
            raise KernelError(f"no worker thread could be started: {error}", what="threads",
                              expected="a thread", remedy="raise the limit on threads, or place "
                              "tasks inline") from error
        return 0

    cdef int wake_worker(self) except -1:
        if self.asleep:
            (<Worker>self.asleep.pop()).bell.ring()
        elif <size_t>len(self.workers) < self.most_workers:
            try:
                self.start_worker()
            except KernelError as error:
                # There is at least one: submitting has seen to it.
                self.most_workers = len(self.workers)
                _log.warning("going on with %d workers: %s", self.most_workers, error)
        return 0

    def _work(self, Worker me not None):
        """The life of a worker thread."""
        global srds_is_worker
        srds_is_worker = 1
        cdef Ref task
        while True:
            task = self.thread_queue.pop()
            if task is None:
                # Listening first, then looking again: what comes in between rings.
                me.bell.listen()
                self.asleep.append(me)
                task = self.thread_queue.pop()
                if task is None:
                    if self.stopping:
                        return
                    me.bell.sleep(0)
                    continue
                if me in self.asleep:
                    self.asleep.remove(me)
            me.running = task
            try:
                self.run_task(task)
            except BaseException:
                # Only a sink that failed, or an interruption that came too late, can raise here.
                _log.exception("after task %s", task.function.name)
            me.running = None
            task = None

    cdef int wake_caller(self) except -1:
        """Something changed that those who wait for a task may have to act on."""
        for bell in self.callers:
            (<Doorbell>bell).ring()
        return 0

    # Running

    cdef bint run_one_inline(self) except -1:
        cdef Ref task = self.inline_queue.pop()
        if task is None:
            return False
        self.run_task(task)
        return True

    cdef int run_task(self, Ref task) except -1:
        """Run a ready task in this thread. Its error is kept in the task; only what must stop
        this thread (Ctrl-C in the main thread) is raised."""
        cdef Ref previous
        cdef object value = None
        cdef object error = None
        if task.deadline_ns and monotonic_ns() >= task.deadline_ns:
            self.miss(task)
            return 0
        task.state = RUNNING
        task.thread = thread_ident()
        if task.scope is not None:
            task.started_ns = monotonic_ns()
        if self.on_started is not None:
            self.tell(self.on_started, (task,))
        previous = enter(task)
        if previous is not None:
            previous.helping += 1
        try:
            if task.kwargs is None:
                value = task.function.call(*resolved(task.args))
            else:
                value = task.function.call(*resolved(task.args), **resolved_names(task.kwargs))
        except BaseException as raised:
            error = raised
        leave(previous)
        if previous is not None:
            previous.helping -= 1
        if task.interrupted:
            # Under the GIL nobody can aim at this task any more; an exception still on its way
            # must not hit the next one.
            PyThreadState_SetAsyncExc(task.thread, NULL)
        if task.state != RUNNING:
            return 0    # given up meanwhile: cancelled, or too late
        if error is None and task.deadline_ns and monotonic_ns() >= task.deadline_ns:
            self.miss(task)
            return 0
        task.state = ENDING
        if error is None:
            self.complete(task, DONE, value)
        else:
            self.fail(task, error)
            if isinstance(error, (KeyboardInterrupt, SystemExit)) and not srds_is_worker:
                raise error
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
        cdef list waiters
        cdef list failed = None
        cdef Ref dependent
        cdef object stop = None
        while True:
            task.state = <unsigned char>state
            task.result = result
            task.args = None
            task.kwargs = None
            waiters = task.waiters
            task.waiters = None
            if task.deadline_ns:
                self.deadlines_left -= 1
            if task.threaded:
                self.threads_left -= 1
                if self.threads_left == 0 and self.callers:
                    self.wake_caller()
            if task.scope is not None:
                self.task_ended(task)
            if waiters is not None:
                for waiter in waiters:
                    if type(waiter) is Ref:
                        dependent = <Ref>waiter
                        if dependent.state != WAITING:
                            continue
                        if state == FAILED:
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

    cdef int task_ended(self, Ref task) except -1:
        """Called for each task of a decision when it ends; the kernel notes it."""
        return 0

    # Deadlines

    cdef int set_deadline(self, Ref task, int64_t deadline_ns) except -1:
        task.deadline_ns = deadline_ns
        self.deadlines_left += 1
        if <size_t>len(self.deadlines) > 2 * self.deadlines_left + 64:
            # The deadlines of tasks that made it in time must not keep their results alive.
            self.deadlines = [entry for entry in self.deadlines if (<Ref>entry[2]).state < DONE]
            heapify(self.deadlines)
        self.deadlines_set += 1
        heappush(self.deadlines, (deadline_ns, self.deadlines_set, task))
        if self.callers and self.deadlines[0][2] is task:
            self.wake_caller()
        return 0

    cdef int64_t first_deadline(self) except -1:
        """The next deadline of a task that is not done; 0 when there is none."""
        while self.deadlines:
            if (<Ref>self.deadlines[0][2]).state < ENDING:
                return self.deadlines[0][0]
            heappop(self.deadlines)
        return 0

    cdef int miss_the_late(self) except -1:
        cdef int64_t first = self.first_deadline()
        while first and monotonic_ns() >= first:
            self.miss(<Ref>self.deadlines[0][2])
            first = self.first_deadline()
        return 0

    cdef int miss(self, Ref task) except -1:
        """End a task by its deadline; recorded, because in a replay the clock has no say."""
        cdef bint running = task.state == RUNNING
        task.state = ENDING
        if task.scope is not None and task.scope.recorded:
            try:
                task.scope.boundary.keep(task, "deadline", "kernel", None, True)
            except Exception as error:
                self.fail(task, error)
                raise
        if running:
            self.interrupt(task)
        return self.fail(task, deadline_missed(task))

    # Stopping

    cdef int interrupt(self, Ref task) except -1:
        """Raise TaskCancelled between two byte codes of a task that runs in another thread."""
        if task.interrupted:
            return 0
        task.interrupted = 1
        if task.thread != thread_ident():
            # While another task runs on top of it, that one would be hit; it looks afterwards.
            if task.helping == 0:
                PyThreadState_SetAsyncExc(task.thread, <PyObject *>TaskCancelled)
            if self.callers:
                self.wake_caller()
        return 0

    cdef int heed_interruption(self) except -1:
        """Raise TaskCancelled in a task that was told to stop while it waited."""
        cdef Ref here = current()
        if here is not None and here.interrupted == 1 and here.helping == 0:
            here.interrupted = 2
            PyThreadState_SetAsyncExc(thread_ident(), NULL)
            raise cancelled_error(here)
        return 0

    cdef int cancel_all(self) except -1:
        cdef Ref task
        cdef ReadyQueue queue
        cdef Worker worker
        for queue in (self.inline_queue, self.thread_queue):
            while True:
                task = queue.pop()
                if task is None:
                    break
                task.state = ENDING
                self.fail(task, cancelled_error(task))
        for worker in self.workers:
            task = worker.running
            if task is not None and task.state == RUNNING:
                self.interrupt(task)
                task.state = ENDING
                self.fail(task, cancelled_error(task))
        return 0

    cdef int stop_workers(self, bint cancelled) except -1:
        cdef Worker worker
        cdef int64_t until = monotonic_ns() + <int64_t>GRACE_SECONDS * 1000000000
        self.stopping = True
        for worker in self.workers:
            worker.bell.ring()
        for worker in self.workers:
            if cancelled or (worker.running is not None and worker.running.interrupted):
                worker.thread.join(max(0.0, (until - monotonic_ns()) / 1e9))
            else:
                worker.thread.join()
            if worker.thread.is_alive():
                _log.warning("%s does not stop; its thread is left behind",
                             worker.running.function.name if worker.running is not None
                             else "a task")
        return 0


cdef bint in_worker() noexcept:
    """Whether the calling thread is a kernel's worker."""
    return srds_is_worker


cdef bint is_root(Ref task) noexcept:
    """Whether the task is a decision itself, for which no other task can wait."""
    return (task.scope is not None and task.id.hi == task.scope.decision.hi
            and task.id.lo == task.scope.decision.lo)


cdef tuple resolved(tuple args):
    """The arguments, with references replaced by their results."""
    for argument in args:
        if type(argument) is Ref:
            return tuple([(<Ref>value).result if type(value) is Ref else value for value in args])
    return args


cdef dict resolved_names(dict kwargs):
    return {name: (<Ref>value).result if type(value) is Ref else value
            for name, value in kwargs.items()}


cdef object unwrap(Ref task):
    """The result of a task that is done; raises its error."""
    if task.state == DONE:
        return task.result
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
