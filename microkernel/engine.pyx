"""The engine: which task runs when and where, and who is told of its end.

A task runs in one of two places under the same rules and with the same ids: *inline*, in the thread
that waits for it, in the order of submission, so that a debugger works and runs repeat; or in a
*thread* of the engine's own. Everything here happens under the GIL, between two byte codes of
anybody else, which is why counting dependencies needs no lock.

A burst of submissions wakes each sleeping worker at most once, and an awake worker goes from task
to task without giving up the GIL. That is what makes a threaded task cost less than a microsecond
here and several in an executor that locks and signals for each.
"""
import asyncio
import logging
import threading
from collections import deque

from cpython.ref cimport PyObject
from libc.stdint cimport int64_t, uint64_t

from microkernel.ids cimport id_from_bytes, id_to_bytes, mix
from microkernel.pending cimport Completions, Doorbell, Pending, monotonic_ns
from microkernel.ready_queue cimport ReadyQueue
from microkernel.task cimport (
    DONE,
    FAILED,
    READY,
    RUNNING,
    WAITING,
    Function,
    Ref,
    current,
    enter,
    leave,
    thread_ident,
)

from microkernel.errors import DeadlineMissed, KernelClosed, KernelError, TaskCancelled
from microkernel.instrument import Instrument
from microkernel.settings import TaskOptions

cdef extern from "Python.h":
    int PyThreadState_SetAsyncExc(unsigned long thread, PyObject *exception)

cdef extern from *:
    """
    static __thread int srds_is_worker = 0;
    """
    int srds_is_worker

cdef enum:
    REMEMBERED_FUNCTIONS = 4096
    MAP_WINDOW = 1024           # tasks that map submits ahead of what it has returned
    GRACE_SECONDS = 5           # that a task which was told to stop is waited for at closing

cdef object _log = logging.getLogger("microkernel")


cdef class Worker:
    """A thread that runs ready tasks until there are none, then sleeps at its bell."""


cdef class Submitter:
    """``submit`` and ``map`` with options; made by ``Kernel.options``."""

    def submit(self, function, *args, **kwargs):
        """``Kernel.submit`` with these options."""
        return self.engine.submit_task(function, args, kwargs, self.options)

    def map(self, function, *iterables):
        """``Kernel.map`` with these options."""
        self.engine.check_open()
        return mapped(self.engine, function, zip(*iterables), self.options)


cdef class Engine:
    """Tasks and their order; ``Kernel`` is the engine with decisions, events and a journal."""

    def __init__(self, settings, bytes run_id not None):
        self.settings = settings
        self.run_id = run_id
        self.run = id_from_bytes(run_id)
        self.inline_queue = ReadyQueue()
        self.thread_queue = ReadyQueue()
        self.workers = []
        self.asleep = []
        self.callers = []
        self.functions = {}
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
                hooks.remove(hook)
                _log.exception("an instrument raised and is not called again: %r", hook)
        return 0

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        self.close(cancel=kind is not None)

    def close(self, *, cancel=False):
        """Finish what was submitted (or, with ``cancel``, give it up) and stop the workers.

        A task that was told to stop and does not within five seconds is left to its thread, which
        ends with the process; a log message names it.
        """
        if not self.open:
            return
        try:
            if not cancel:
                self.drain()
        except BaseException:
            cancel = True
            raise
        finally:
            self.open = False
            if cancel:
                self.cancel_all()
            self.stop_workers(cancel)

    cdef int drain(self) except -1:
        cdef Doorbell bell = Doorbell()
        while True:
            while self.run_one_inline():
                pass
            if self.threads_left == 0:
                return 0
            self.callers.append(bell)
            try:
                bell.sleep(0)
            finally:
                self.callers.remove(bell)

    cdef int cancel_all(self) except -1:
        cdef Ref task
        cdef ReadyQueue queue
        cdef Worker worker
        for queue in (self.inline_queue, self.thread_queue):
            while True:
                task = queue.pop()
                if task is None:
                    break
                self.fail(task, cancelled_error(task))
        for worker in self.workers:
            task = worker.running
            if task is not None and task.state == RUNNING:
                self.interrupt(task)
                self.fail(task, cancelled_error(task))
        return 0

    cdef int stop_workers(self, bint cancelled) except -1:
        cdef Worker worker
        self.stopping = True
        for worker in self.workers:
            worker.bell.ring()
        for worker in self.workers:
            if worker.thread is threading.current_thread():
                continue
            worker.thread.join(GRACE_SECONDS if cancelled else None)
            if worker.thread.is_alive():
                _log.warning("%s does not stop; its thread is left behind",
                             worker.running.function.name if worker.running is not None else "a task")
        return 0

    def _work(self, Worker me not None):
        """The life of a worker thread."""
        global srds_is_worker
        srds_is_worker = 1
        cdef Ref task
        while True:
            task = self.thread_queue.pop()
            if task is None:
                if self.stopping:
                    return
                self.asleep.append(me)
                me.bell.sleep(0)
                continue
            me.running = task
            try:
                self.run_task(task)
            except BaseException:
                # Only an instrument, or an interruption that came too late, can raise here.
                _log.exception("after task %s", task.function.name)
            me.running = None

    cdef int wake_worker(self) except -1:
        cdef Worker worker
        if self.asleep:
            worker = <Worker>self.asleep.pop()
            worker.bell.ring()
        elif <size_t>len(self.workers) < self.most_workers:
            worker = Worker.__new__(Worker)
            worker.bell = Doorbell()
            worker.thread = threading.Thread(
                target=self._work, args=(worker,), daemon=True,
                name=f"srds-worker-{len(self.workers)}")
            self.workers.append(worker)
            worker.thread.start()
        return 0

    cdef int task_ended(self, Ref task) except -1:
        """Called for each task of a decision when it ends; the kernel notes it."""
        return 0

    # Submitting

    def submit(self, function, *args, **kwargs):
        """Hand ``function(*args, **kwargs)`` to the kernel and return its ``Ref`` at once.

        Arguments that are references are replaced by their results, and the task waits for them.
        """
        return self.submit_task(function, args, kwargs, None)

    def options(self, *, placement=None, deadline=None):
        """``submit`` and ``map`` with ``TaskOptions``.

        >>> with Kernel() as kernel:
        ...     kernel.get(kernel.options(placement="thread", deadline=5.0).submit(sum, [1, 2]))
        3
        """
        cdef Submitter submitter = Submitter.__new__(Submitter)
        submitter.engine = self
        submitter.options = TaskOptions(placement=placement, deadline=deadline)
        return submitter

    def map(self, function, *iterables):
        """Yield ``function`` of each element, in order, as ``map`` does.

        At most 1,024 tasks are submitted ahead of what was taken, so the iterables may be endless.
        """
        self.check_open()
        return mapped(self, function, zip(*iterables), None)

    def put(self, value):
        """A reference to ``value``, for giving it to many tasks."""
        cdef Ref task = self.new_task(self.function_of(_put))
        task.result = value
        task.state = DONE
        if self.on_object_made is not None:
            self.tell(self.on_object_made, (task,))
        return task

    cdef int check_open(self) except -1:
        if not self.open:
            raise KernelClosed("the kernel is closed", what="Kernel", expected="an open kernel",
                               remedy="open one: with Kernel() as kernel")
        return 0

    cdef Function function_of(self, object call):
        try:
            known = self.functions.get(call)
        except TypeError:
            return Function(call)
        if known is None:
            if not callable(call):
                raise KernelError(f"{call!r} cannot be called", what=repr(call),
                                  expected="a function", remedy="submit(function, *arguments)")
            if len(self.functions) >= REMEMBERED_FUNCTIONS:
                self.functions.clear()
            known = self.functions[call] = Function(call)
        return <Function>known

    cdef Ref new_task(self, Function function):
        """A task of the running task, or of the run, with the next id."""
        cdef Ref parent = current()
        cdef Ref task = Ref.__new__(Ref)
        task.kernel = self
        task.function = function
        if parent is None:
            task.parent = self.run
            task.id = mix(self.run, self.roots, function.hash)
            self.roots += 1
        else:
            task.parent = parent.id
            task.id = mix(parent.id, parent.next_child(), function.hash)
            task.scope = parent.scope
            task.depth = parent.depth + 1
        return task

    cdef submit_task(self, call, tuple args, dict kwargs, options):
        cdef Function function
        cdef Ref task
        self.check_open()
        function = self.function_of(call)
        if function.is_async:
            raise KernelError(f"{function.name} is a coroutine function", what=function.name,
                              expected="a function",
                              remedy="await it, or make it a decision, which may be a coroutine")
        task = self.new_task(function)
        task.args = args
        task.kwargs = kwargs if kwargs else None
        task.threaded = self.threaded
        if options is not None:
            if options.placement is not None:
                task.threaded = options.placement == "thread"
            if options.deadline is not None:
                task.deadline_ns = monotonic_ns() + <int64_t>(options.deadline * 1e9)
        if task.scope is not None:
            task.scope.children.append(task)
            if task.scope.replayed and self.missed_in_record(task):
                return task
        self.threads_left += task.threaded
        for argument in args:
            if type(argument) is Ref:
                self.depend(task, <Ref>argument)
        if task.kwargs is not None:
            for argument in kwargs.values():
                if type(argument) is Ref:
                    self.depend(task, <Ref>argument)
        if self.on_submitted is not None:
            self.tell(self.on_submitted, (task,))
        if task.missing == 0 and task.state == WAITING:
            self.make_ready(task)
        return task

    cdef bint missed_in_record(self, Ref task) except -1:
        """In a replay: whether the task's deadline was missed when it was recorded. The clock has
        no say then, nor has the place: replayed tasks run inline."""
        task.threaded = False
        if task.deadline_ns == 0:
            return False
        task.deadline_ns = 0
        if task.scope.boundary.recorded(task, "deadline", "kernel", None) is None:
            return False
        self.fail(task, _deadline_missed(task))
        return True

    cdef int depend(self, Ref task, Ref on) except -1:
        if on.state == FAILED and task.state == WAITING:
            self.fail(task, on.result)
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

    cdef int wake_caller(self) except -1:
        """An inline task became ready while those who could run it are asleep."""
        for bell in self.callers:
            (<Doorbell>bell).ring()
        return 0

    # Running

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
        try:
            if task.kwargs is None:
                value = task.function.call(*resolved(task.args))
            else:
                value = task.function.call(*resolved(task.args), **resolved_names(task.kwargs))
        except BaseException as raised:
            error = raised
        leave(previous)
        if task.interrupted:
            # Under the GIL nobody can aim at this task any more; an exception still on its way
            # must not hit the next one.
            PyThreadState_SetAsyncExc(task.thread, NULL)
        if task.state != RUNNING:
            return 0    # given up meanwhile: cancelled, or too late
        if error is not None:
            self.fail(task, error)
            if isinstance(error, (KeyboardInterrupt, SystemExit)) and not srds_is_worker:
                raise error
        elif task.deadline_ns and monotonic_ns() >= task.deadline_ns:
            self.miss(task)
        else:
            self.complete(task, DONE, value)
        return 0

    cdef int fail(self, Ref task, error) except -1:
        if not getattr(error, "__notes__", None):
            error.add_note(f"in task {task.function.name} ({id_to_bytes(task.id).hex()})")
        task.extra("traceback", lambda: error.__traceback__)
        return self.complete(task, FAILED, error)

    cdef int complete(self, Ref task, int state, result) except -1:
        """Store a result and tell those who wait for it, and so on down the line of failures."""
        cdef list waiters
        cdef list failed = None
        cdef Ref dependent
        while True:
            task.state = <unsigned char>state
            task.result = result
            task.args = None
            task.kwargs = None
            waiters = task.waiters
            task.waiters = None
            if task.threaded:
                self.threads_left -= 1
                if self.threads_left == 0 and self.callers:
                    self.wake_caller()
            if self.on_finished is not None:
                self.tell(self.on_finished, (task,))
            if waiters is not None:
                for waiter in waiters:
                    if type(waiter) is Ref:
                        dependent = <Ref>waiter
                        if dependent.state != WAITING:
                            continue
                        if state == FAILED:
                            # Marked now, so that it is not listed twice; told in its turn.
                            dependent.state = RUNNING
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
            if task.scope is not None:
                self.task_ended(task)
            if not failed:
                return 0
            task = <Ref>failed.pop()

    cdef int miss(self, Ref task) except -1:
        if task.scope is not None and task.scope.recorded:
            task.scope.boundary.keep(task, "deadline", "kernel", None, True)
        if task.state == RUNNING:
            self.interrupt(task)
        return self.fail(task, _deadline_missed(task))

    cdef int interrupt(self, Ref task) except -1:
        """Raise TaskCancelled between two byte codes of a task that runs in another thread."""
        task.interrupted = True
        # While it helps another task in its thread, that one would be hit; it looks afterwards.
        if task.helping == 0 and task.thread != thread_ident():
            PyThreadState_SetAsyncExc(task.thread, <PyObject *>TaskCancelled)
        return 0

    cdef int help(self, Ref target) except -1:
        """Run what ``target`` needs, then itself, in this thread as far as that may be; wait for
        what runs elsewhere."""
        cdef list needed = [target]
        cdef Ref task
        cdef Ref here = current()
        if here is not None:
            here.helping += 1
        try:
            while needed:
                task = <Ref>needed[-1]
                if task.state >= DONE:
                    needed.pop()
                elif task.state == READY and self.mine(task):
                    needed.pop()
                    self.run_task(task)
                elif task.state == WAITING:
                    needed.append(unfinished_argument(task))
                else:
                    self.block(Pending([task]), 1, 0, False)
        finally:
            if here is not None:
                here.helping -= 1
        if here is not None and here.interrupted and here.helping == 0:
            raise cancelled_error(here)
        return 0

    cdef bint run_one_inline(self) except -1:
        cdef Ref task = self.inline_queue.pop()
        if task is None:
            return False
        self.run_task(task)
        return True

    # Waiting

    def get(self, refs, timeout=None):
        """The result of a reference, or the list of results of several.

        Raises what the task raised, with the traceback of the place where it did; ``TimeoutError``
        after ``timeout`` seconds; ``DeadlineMissed`` when a task's own deadline passes.
        """
        cdef int64_t until = 0
        if timeout is not None:
            until = monotonic_ns() + <int64_t>(timeout * 1e9)
        if type(refs) is Ref:
            if (<Ref>refs).state < DONE:
                self.finish(<Ref>refs, until)
            return unwrap(<Ref>refs)
        refs = list(refs)
        for ref in refs:
            if type(ref) is not Ref:
                raise KernelError(f"get takes references, not {type(ref).__qualname__}",
                                  what=type(ref).__qualname__, expected="what submit or put returned",
                                  remedy="pass plain values as they are")
        self.finish_all(refs, until)
        return [unwrap(<Ref>ref) for ref in refs]

    cdef bint mine(self, Ref task) noexcept:
        """Whether this thread may run the task while it waits."""
        return not task.threaded or srds_is_worker

    cdef int finish(self, Ref task, int64_t until) except -1:
        if task.state >= DONE:
            return 0
        if until == 0 and self.mine(task):
            self.help(task)
            return 0
        return self.finish_all([task], until)

    cdef int finish_all(self, list refs, int64_t until) except -1:
        cdef Ref task
        cdef list elsewhere = []
        for ref in refs:
            task = <Ref>ref
            if task.state >= DONE:
                continue
            if self.mine(task):
                if until and monotonic_ns() >= until:
                    raise TimeoutError(f"{task.function.name} is not done")
                self.help(task)
            else:
                elsewhere.append(task)
        if elsewhere:
            pending = Pending(elsewhere)
            self.block(pending, len(pending), until, True)
        return 0

    cdef int block(self, Pending pending, size_t count, int64_t until, bint must) except -1:
        """Sleep until ``count`` of the tasks have ended, or until ``until``, running inline tasks
        that become ready meanwhile. A task whose own deadline passes ends by it.
        ``must``: raise TimeoutError when the time is up."""
        cdef Completions completions = pending.completions
        cdef int64_t first, wake
        completions.needed = count
        while completions.available() < count:
            if not srds_is_worker and self.run_one_inline():
                continue
            first = self.first_deadline(pending)
            wake = first if first and (until == 0 or first < until) else until
            self.callers.append(completions.bell)
            try:
                completions.bell.sleep(wake)
            finally:
                self.callers.remove(completions.bell)
            if first and monotonic_ns() >= first:
                self.miss_the_late(pending)
            if until and monotonic_ns() >= until:
                if must and completions.available() < count:
                    raise TimeoutError(
                        f"{count - completions.available()} of {count} tasks are not done")
                break
        return 0

    cdef int64_t first_deadline(self, Pending pending) noexcept:
        cdef int64_t first = 0
        cdef Ref task
        for task in pending.positions:
            if task.state < DONE and task.deadline_ns:
                if first == 0 or task.deadline_ns < first:
                    first = task.deadline_ns
        return first

    cdef int miss_the_late(self, Pending pending) except -1:
        cdef int64_t now = monotonic_ns()
        cdef Ref task
        for task in list(pending.positions):
            if task.state < DONE and task.deadline_ns and task.deadline_ns <= now:
                self.miss(task)
        return 0

    def wait(self, refs, count=1, timeout=None):
        """Wait until ``count`` of ``refs`` have ended, at most ``timeout`` seconds.

        Returns the ended ones (in the order in which they ended, at most ``count``) and a
        ``Pending`` of the others. Giving that ``Pending`` to the next ``wait`` costs nothing for
        the tasks that are still running; a plain collection is gone through once.
        """
        cdef Pending pending = refs if type(refs) is Pending else Pending(refs)
        cdef Ref task = current()
        cdef int64_t until = 0
        count = min(count, len(pending.positions))
        if timeout is not None:
            until = monotonic_ns() + <int64_t>(timeout * 1e9) + 1
        if task is None or task.scope is None or not (task.scope.recorded or task.scope.replayed):
            return self.wait_live(pending, count, until), pending
        if task.scope.replayed:
            positions = task.scope.boundary.exchange(task, "wait", "kernel", None, None)
            return self.wait_as_recorded(pending, positions), pending
        before = dict(pending.positions)
        done = self.wait_live(pending, count, until)
        task.scope.boundary.keep(task, "wait", "kernel", None, [before[ref] for ref in done])
        return done, pending

    cdef list wait_live(self, Pending pending, size_t count, int64_t until):
        cdef Completions completions = pending.completions
        cdef list done
        while completions.available() < count and not (until and monotonic_ns() >= until):
            if not self.run_one_inline():
                break
        if completions.available() < count and not (until and monotonic_ns() >= until):
            self.block(pending, count, until, False)
        done = completions.done[completions.taken:completions.taken + count]
        completions.taken += len(done)
        if completions.taken > 4096:
            del completions.done[:completions.taken]
            completions.taken = 0
        for ref in done:
            del pending.positions[ref]
        return done

    cdef list wait_as_recorded(self, Pending pending, positions):
        cdef list done = []
        by_position = {position: ref for ref, position in pending.positions.items()}
        for position in positions:
            ref = by_position.get(position)
            if ref is None:
                raise KernelError("the recorded run waited for another task here",
                                  what=f"task number {position}", expected="a task of this wait")
            self.help(<Ref>ref)
            done.append(ref)
            del pending.positions[ref]
        return done

    async def wait_async(self, Ref task):
        if task.state < DONE and not task.threaded:
            self.help(task)
        if task.state < DONE:
            loop = asyncio.get_running_loop()
            future = loop.create_future()

            def finished():
                loop.call_soon_threadsafe(_settle, future)

            if task.waiters is None:
                task.waiters = [finished]
            else:
                task.waiters.append(finished)
            left = None
            if task.deadline_ns:
                left = max(0.0, (task.deadline_ns - monotonic_ns()) / 1e9)
            try:
                await asyncio.wait_for(future, left)
            except asyncio.TimeoutError:
                if task.state < DONE:
                    self.miss(task)
        return unwrap(task)

    def cancel(self, Ref ref not None):
        """Give a task up; whether that was possible.

        A queued task never runs. A running one gets ``TaskCancelled`` between two byte codes of
        its own (not while it is inside a C function). What depends on it ends with the same error.
        """
        cdef Ref task = current()
        cdef bint recorded = task is not None and task.scope is not None and task.scope.recorded
        if task is not None and task.scope is not None and task.scope.replayed:
            cancelled = task.scope.boundary.exchange(task, "cancel", "kernel", None, None)
        else:
            cancelled = ref.state < DONE
            if recorded:
                task.scope.boundary.keep(task, "cancel", "kernel", None, cancelled)
        if cancelled:
            if ref.state == RUNNING:
                self.interrupt(ref)
            if ref.state < DONE:
                self.fail(ref, cancelled_error(ref))
        elif ref.state < DONE:
            self.help(ref)
        return cancelled

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
    if task.state == DONE:
        return task.result
    # With the traceback of the task each time: raised by several callers, it would grow otherwise.
    error = task.result
    raise error.with_traceback(task.extras["traceback"] if task.extras else error.__traceback__)


cdef Ref unfinished_argument(Ref task):
    for argument in task.args:
        if type(argument) is Ref and (<Ref>argument).state < DONE:
            return <Ref>argument
    for argument in task.kwargs.values():
        if type(argument) is Ref and (<Ref>argument).state < DONE:
            return <Ref>argument
    raise KernelError(f"{task.function.name} waits for nothing", what=task.function.name)


cdef cancelled_error(Ref task):
    return TaskCancelled(f"{task.function.name} was cancelled", what=task.function.name)


def _put():
    """The function that objects made by ``put`` are named after."""


def _settle(future):
    if not future.done():
        future.set_result(None)


cdef _deadline_missed(Ref task):
    return DeadlineMissed(f"{task.function.name} had no result by its deadline",
                          what=task.function.name, expected="a result in time",
                          remedy="give it a later deadline, or answer without it")


def mapped(Engine engine, function, rows, options):
    window = deque()
    for row in rows:
        window.append(engine.submit_task(function, row, {}, options))
        if len(window) >= MAP_WINDOW:
            yield engine.get(window.popleft())
    while window:
        yield engine.get(window.popleft())
