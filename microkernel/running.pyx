"""Running tasks: in the thread that waits, or in a thread of the kernel's own; and stopping them.

A burst of submissions wakes each sleeping worker at most once, and an awake worker goes from task
to task without giving up the GIL. That is what makes a threaded task cost less than a microsecond
here and several in an executor that locks and signals for each.

Beginning a task again after an error is part of running it: the task keeps its id, and its children
and inputs are counted on, so that each of its attempts has its own entries in the record and a
replay goes through the same ones.
"""
import logging
import threading

from cpython.ref cimport PyObject
from libc.stdint cimport int64_t

from microkernel.mailbox cimport Method
from microkernel.pending cimport Doorbell, monotonic_ns
from microkernel.ready_queue cimport ReadyQueue
from microkernel.scheduler cimport (
    Scheduler,
    be_worker,
    cancelled_error,
    in_worker,
    is_root,
    resolved,
    resolved_names,
)
from microkernel.task cimport (
    DONE,
    ENDING,
    HOLDS,
    PAUSED,
    PROCESS,
    RUNNING,
    STREAMS,
    WAITING,
    Ref,
    current,
    enter,
    leave,
    thread_ident,
)
from microkernel.tracing cimport trace

from microkernel.errors import KernelError, TaskCancelled

cdef extern from "Python.h":
    int PyThreadState_SetAsyncExc(unsigned long thread, PyObject *exception)

cdef object _log = logging.getLogger("microkernel")


cdef class Worker:
    """A thread that runs ready tasks until there are none, then sleeps at its bell."""


cdef class Runner(Scheduler):
    """Tasks being run, begun again and stopped; ``Waiter`` adds waiting for them."""

    def __init__(self, settings, bytes run_id not None):
        super().__init__(settings, run_id)
        self.workers = []
        self.asleep = []
        self.most_workers = settings.workers

    # Workers

    cdef int need_worker(self) except -1:
        return 0 if self.workers else self.start_worker()

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
        cdef Ref task
        be_worker()
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
            return self.miss(task)
        if task.wants & STREAMS:
            return self.run_stream(task)
        previous = self.begin_task(task)
        try:
            if task.kwargs is None:
                value = task.function.call(*resolved(task.args))
            else:
                value = task.function.call(*resolved(task.args), **resolved_names(task.kwargs))
        except BaseException as raised:
            error = raised
        self.leave_task(task, previous)
        if task.state == RUNNING:
            if error is not None:
                self.failed(task, error)
            elif task.deadline_ns and monotonic_ns() >= task.deadline_ns:
                self.miss(task)
            else:
                task.state = ENDING
                self.complete(task, DONE, value)
        if task.wants & HOLDS and task.state >= DONE:
            self.let_go(task)       # it was given up while it ran
        if error is not None:
            self.stop_thread_by(error)
        return 0

    cdef inline Ref begin_task(self, Ref task):
        """What comes before a task's function; give what is returned to ``leave_task``."""
        cdef Ref previous
        task.state = RUNNING
        task.thread = thread_ident()
        trace.begin(self.ring, task)
        if self.on_started is not None:
            self.tell(self.on_started, (task,))
        previous = enter(task)
        if previous is not None:
            previous.helping += 1
        return previous

    cdef inline int leave_task(self, Ref task, Ref previous) except -1:
        leave(previous)
        trace.end(self.ring, task)
        if previous is not None:
            previous.helping -= 1
        if task.interrupted:
            # Under the GIL nobody can aim at this task any more; an exception still on its way
            # must not hit the next one.
            PyThreadState_SetAsyncExc(task.thread, NULL)
        return 0

    cdef int stop_thread_by(self, object error) except -1:
        if isinstance(error, (KeyboardInterrupt, SystemExit)) and not in_worker():
            raise error
        return 0

    # Beginning again

    cdef int failed(self, Ref task, object error) except -1:
        """The function of a task raised: it is begun again if its options say so, or fails."""
        cdef int failures
        if task.options is None or not task.options.retries:
            task.state = ENDING
            return self.fail(task, error)
        failures = task.attachment("failures", int) + 1
        task.attachments["failures"] = failures
        if failures > task.options.retries or not is_retried(task, error):
            task.state = ENDING
            return self.fail(task, error)
        if task.deadline_ns and monotonic_ns() >= task.deadline_ns:
            return self.miss(task)
        task.attempt += task.attempt < 255
        if task.wants & HOLDS:
            self.let_go(task)
        if task.options.backoff and not (task.scope is not None and task.scope.replayed):
            return self.pause(task, <int64_t>(
                min(task.options.backoff * 2**min(failures - 1, 30), 1e9) * 1e9))
        return self.make_ready(task)

    cdef int pause(self, Ref task, int64_t length_ns) except -1:
        """Make the task ready when this time has passed."""
        task.state = WAITING
        task.wants |= PAUSED
        if self.alarm is None:
            self.alarm_bell = Doorbell()
            self.alarm = threading.Thread(target=self._end_pauses, daemon=True, name="srds-pauses")
            self.alarm.start()
        if self.pauses.add(task, monotonic_ns() + length_ns):
            self.alarm_bell.ring()
        return 0

    def _end_pauses(self):
        """The life of the thread that ends pauses; there is none before the first."""
        cdef Ref task
        while not self.stopping:
            self.alarm_bell.listen()
            while True:
                task = self.pauses.due(monotonic_ns())
                if task is None:
                    break
                task.wants &= ~PAUSED
                self.pauses.left -= 1
                try:
                    self.make_ready(task)
                except Exception:
                    _log.exception("%s could not be begun again", task.function.name)
                task = None
            if self.stopping:
                return
            self.alarm_bell.sleep(self.pauses.first())

    # Stopping

    cdef bint give_up(self, Ref task, object error) except -1:
        """End a task by an error, whatever it is doing; whether that was possible."""
        cdef bint begun = task.state == RUNNING or (task.place == PROCESS and task.slot)
        if task.state >= ENDING or is_root(task):
            return False
        if task.wants & STREAMS:
            self.cut_stream(task, "cancelled")
        task.state = ENDING
        if begun:
            self.interrupt(task)
        self.fail(task, error)
        return True

    cdef int interrupt(self, Ref task) except -1:
        """Raise TaskCancelled between two byte codes of a task that runs in another thread."""
        if task.interrupted:
            return 0
        task.interrupted = 1
        if type(task.function) is Method and (<Method>task.function).mailbox.interrupt(task):
            return 0
        if task.place == PROCESS and task.slot:
            return self.remote.interrupt(task)
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
        for task in [*self.resources.parked_tasks(), *self.pauses.take_all()]:
            task.state = ENDING
            self.fail(task, cancelled_error(task))
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
        cdef int64_t until = monotonic_ns() + <int64_t>(self.settings.grace * 1e9)
        self.stopping = True
        if self.alarm is not None:
            self.alarm_bell.ring()
            self.alarm.join()
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


cdef bint is_retried(Ref task, object error) except -1:
    """Whether the options of a task say that it is begun again after this error."""
    if isinstance(error, (KeyboardInterrupt, SystemExit, GeneratorExit)):
        return False
    retry_on = task.options.retry_on
    if isinstance(retry_on, tuple):
        return isinstance(error, retry_on)
    try:
        return bool(retry_on(error))
    except Exception as raised:
        error.add_note(f"retry_on raised {raised!r}: it was not begun again")
        return False
