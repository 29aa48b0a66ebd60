"""The engine: submitting tasks and waiting for them, in functions and in coroutines.

Who waits helps: a thread that waits for a task runs it, or what it needs, itself where it may,
so that any number of nested waits ends with any number of threads. A thread that is in the middle
of a task runs only what that wait needs: with an unrelated task on top, both could wait for
each other for ever.
"""
import asyncio
from collections import deque

from libc.stdint cimport int64_t

from microkernel.pending cimport Completions, Doorbell, Pending, monotonic_ns
from microkernel.scheduler cimport Scheduler, cancelled_error, in_worker, is_root, unwrap
from microkernel.task cimport DONE, ENDING, READY, RUNNING, WAITING, Ref, current, watched

from microkernel.errors import KernelError, ReplayDivergence
from microkernel.settings import TaskOptions

cdef enum:
    MAP_WINDOW = 1024           # tasks that map submits ahead of what it has returned


cdef class Submitter:
    """``submit`` and ``map`` with options; made by ``Kernel.options``."""

    def submit(self, function, /, *args, **kwargs):
        """``Kernel.submit`` with these options."""
        return self.engine.submit_task(function, args, kwargs, self.options)

    def map(self, function, *iterables):
        """``Kernel.map`` with these options."""
        self.engine.check_open()
        return mapped(self.engine, function, zip(*iterables), self.options)


cdef class Engine(Scheduler):
    """Tasks and waiting for them; ``Kernel`` is the engine with decisions, events and a journal."""

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        self.close(cancel=kind is not None)

    def close(self, *, cancel=False):
        """Finish what was submitted (or, with ``cancel``, give it up) and stop the workers.

        A task that was told to stop and does not within five seconds is left to its thread, which
        ends with the process; a log message names it. Raises ``KernelError`` in a task of this
        kernel, which would wait for itself.
        """
        cdef Ref here = current()
        if not self.open:
            return
        if self.forked():
            self.open = False       # the parent's tasks and threads are the parent's
            return
        if here is not None and here.kernel is self:
            raise KernelError("a task closes the kernel that runs it", what=here.function.name,
                              expected="a call from outside its tasks",
                              remedy="return from the task first")
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
        self.callers.append(bell)
        try:
            while True:
                bell.listen()
                if self.run_one_inline():
                    continue
                if self.threads_left == 0:
                    return 0
                self.rest(bell, 0)
        finally:
            self.callers.remove(bell)

    # Submitting

    def submit(self, function, /, *args, **kwargs):
        """Hand ``function(*args, **kwargs)`` to the kernel and return its ``Ref`` at once.

        Arguments that are references are replaced by their results, and the task waits for them.
        """
        return self.submit_task(function, args, kwargs, None)

    def options(self, *, placement=None, deadline=None):
        """``submit`` and ``map`` with ``TaskOptions``.

        >>> from microkernel import Kernel
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
        cdef Ref task
        self.check_open()
        task = self.new_task(self.functions.of(_put))
        task.result = value
        task.state = DONE
        if self.on_object_made is not None:
            self.tell(self.on_object_made, (task,))
        return task

    # Waiting

    def get(self, refs, timeout=None):
        """The result of a reference, or the list of results of several.

        Raises what the task raised, with the traceback of the place where it did; ``TimeoutError``
        after ``timeout`` seconds (an inline task that has begun is not broken off);
        ``DeadlineMissed`` when a task's own deadline passes.
        """
        cdef int64_t until = moment(timeout)
        cdef Ref task
        if type(refs) is Ref and (until == 0 or (<Ref>refs).state >= DONE):
            if (<Ref>refs).state < DONE:
                self.finish(<Ref>refs, 0)
            return unwrap(<Ref>refs)
        wanted = [refs] if type(refs) is Ref else list(refs)
        for ref in wanted:
            if type(ref) is not Ref:
                raise KernelError(f"get takes references, not {type(ref).__qualname__}",
                                  what=type(ref).__qualname__,
                                  expected="what submit or put returned",
                                  remedy="pass plain values as they are")
        task = watched()
        if until == 0 or task is None:
            self.finish_all(wanted, until)
        else:
            self._finish_in_time(task, wanted, until)
        if type(refs) is Ref:
            return unwrap(<Ref>refs)
        return [unwrap(<Ref>ref) for ref in wanted]

    def _finish_in_time(self, Ref task not None, list refs, int64_t until):
        """``finish_all`` within a decision: whether the time was up is one of its inputs."""
        def in_time():
            try:
                self.finish_all(refs, until)
            except TimeoutError:
                return False
            return True

        if task.scope.replayed:
            in_time_then = task.scope.boundary.exchange(task, "timeout", "kernel", None, in_time)
            if in_time_then:
                self.finish_all(refs, 0)
        else:
            in_time_then = in_time()
            task.scope.boundary.keep(task, "timeout", "kernel", None, in_time_then)
        if not in_time_then:
            raise TimeoutError(f"not all of {len(refs)} tasks were done in time")

    cdef bint mine(self, Ref task) noexcept:
        """Whether this thread may run the task while it waits."""
        return not task.threaded or in_worker()

    cdef Ref needed_by(self, Ref task):
        """A ready task that this thread may run, and that ``task`` needs or is; None if none is."""
        cdef list open_tasks
        cdef set seen
        if task.state == READY:
            return task if self.mine(task) else None
        if task.state != WAITING:
            return None
        open_tasks = [task]
        seen = set()
        while open_tasks:
            task = <Ref>open_tasks.pop()
            if task.state == READY:
                if self.mine(task):
                    return task
            elif task.state == WAITING and task not in seen:
                seen.add(task)
                add_unfinished(open_tasks, task)
        return None

    cdef Ref needed_by_any(self, Pending pending):
        cdef Ref task
        cdef list tasks = pending.in_order()
        cdef size_t i
        while pending.first < <size_t>len(tasks) and (<Ref>tasks[pending.first]).state >= DONE:
            pending.first += 1
        for i in range(pending.first, <size_t>len(tasks)):
            task = self.needed_by(<Ref>tasks[i])
            if task is not None:
                return task
        return None

    cdef bint run_something(self, Pending pending) except -1:
        """Run one task of those that this thread may run while it waits for ``pending``."""
        cdef Ref here = current()
        cdef Ref task
        if not in_worker():
            if self.inline_queue.length == 0:
                return False
            if here is None or is_root(here):
                return self.run_one_inline()
        task = self.needed_by_any(pending)
        if task is None:
            return False
        self.run_task(task)
        return True

    cdef int help(self, Ref target) except -1:
        """Run what ``target`` needs, then itself, in this thread as far as that may be; wait for
        what runs elsewhere."""
        cdef list needed = [target]
        cdef Ref task
        cdef Ref argument
        while needed:
            self.heed_interruption()
            task = <Ref>needed[-1]
            if task.state >= DONE:
                needed.pop()
                continue
            if task.state == READY and self.mine(task):
                needed.pop()
                self.run_task(task)
                continue
            argument = unfinished_argument(task) if task.state == WAITING else None
            if argument is not None:
                needed.append(argument)
            else:
                self.block(Pending([task]), 1, 0, False)
        self.inline_queue.drop_gaps()
        return self.heed_interruption()

    cdef int finish(self, Ref task, int64_t until) except -1:
        if task.state >= DONE:
            return 0
        if until == 0 and self.mine(task):
            self.check_ours(task)
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
            self.check_ours(task)
            if until or not self.mine(task):
                elsewhere.append(task)
            else:
                self.help(task)
        if elsewhere:
            pending = Pending(elsewhere)
            self.block(pending, len(pending), until, True)
        return 0

    cdef int block(self, Pending pending, size_t count, int64_t until, bint must) except -1:
        """Until ``count`` of the tasks have ended, or until ``until``: run what this thread may
        run, else sleep. ``must``: raise TimeoutError when the time is up."""
        cdef Completions completions = pending.completions
        cdef Doorbell bell = completions.bell
        if completions.waited_for:
            raise KernelError("two wait for one Pending at the same time", what=repr(pending),
                              expected="one at a time", remedy="give each its own Pending")
        if self.forked():
            self.check_open()
        completions.waited_for = True
        completions.needed = count
        self.callers.append(bell)
        try:
            while True:
                # Listening first, then looking: what comes in between rings.
                bell.listen()
                if completions.available() >= count:
                    return 0
                self.heed_interruption()
                if until and monotonic_ns() >= until:
                    if must:
                        raise TimeoutError(
                            f"{count - completions.available()} of {count} tasks are not done")
                    return 0
                if not self.run_something(pending):
                    self.rest(bell, until)
        finally:
            self.callers.remove(bell)
            bell.stop_listening()
            completions.waited_for = False

    cdef int rest(self, Doorbell bell, int64_t until) except -1:
        """Sleep until rung, until ``until`` or the next deadline of a task, which ends by it."""
        cdef int64_t first = self.first_deadline()
        bell.sleep(first if first and (until == 0 or first < until) else until)
        if first and monotonic_ns() >= first:
            self.miss_the_late()
        return 0

    def wait(self, refs, count=1, timeout=None):
        """Wait until ``count`` of ``refs`` have ended, at most ``timeout`` seconds.

        Returns the ended ones (in the order in which they ended, at most ``count``) and a
        ``Pending`` of the others. Giving that ``Pending`` to the next ``wait`` costs nothing for
        the tasks that are still running; a plain collection is gone through once.
        """
        cdef Pending pending = refs if type(refs) is Pending else Pending(refs)
        cdef Ref task = watched()
        cdef int64_t until = moment(timeout)
        cdef list positions
        if count < 0:
            raise KernelError(f"wait for {count} tasks", what="count", expected="0 or more",
                              remedy="leave it out to wait for one")
        if pending.checked is not self:
            for ref in pending.positions:
                self.check_ours(<Ref>ref)
            pending.checked = self
        count = min(count, len(pending.positions))
        if task is None:
            return self.wait_live(pending, count, until, None), pending
        if task.scope.replayed:
            return self._wait_in_replay(task, pending, count, until), pending
        positions = []
        done = self.wait_live(pending, count, until, positions)
        task.scope.boundary.keep(task, "wait", "kernel", None, positions)
        return done, pending

    cdef list wait_live(self, Pending pending, size_t count, int64_t until, list positions):
        cdef Completions completions = pending.completions
        cdef list done
        if completions.available() < count:
            self.block(pending, count, until, False)
        done = completions.done[completions.taken:completions.taken + count]
        completions.taken += len(done)
        if completions.taken > 4096:
            del completions.done[:completions.taken]
            completions.taken = 0
        for ref in done:
            position = pending.positions.pop(ref)
            if positions is not None:
                positions.append(position)
        return done

    def _wait_in_replay(self, Ref task not None, Pending pending not None, size_t count,
                        int64_t until):
        """The tasks that the recorded run got here; the ones of now if it did not wait here."""
        live = []

        def wait_now():
            live.append(self.wait_live(pending, count, until, None))

        positions = task.scope.boundary.exchange(task, "wait", "kernel", None, wait_now)
        return live[0] if live else self.wait_as_recorded(pending, positions)

    cdef list wait_as_recorded(self, Pending pending, object positions):
        cdef list done = []
        cdef dict tasks = pending.numbered()
        for position in positions:
            ref = tasks.pop(position, None)
            if ref is None or ref not in pending.positions:
                raise ReplayDivergence("the recorded run waited for another task here",
                                       what=f"task number {position}",
                                       expected="a task of this wait",
                                       remedy="replay with the recorded code")
            self.help(<Ref>ref)
            done.append(ref)
            del pending.positions[ref]
        return done

    async def wait_async(self, Ref task not None):
        """The result of ``task``, for coroutines; what ``await ref`` calls."""
        cdef Ref needed
        self.check_ours(task)
        while task.state < DONE:
            needed = self.needed_by(task)
            if needed is not None:
                self.run_task(needed)
                continue
            needed = task
            while needed.state == WAITING:
                argument = unfinished_argument(needed)
                if argument is None:
                    break
                needed = argument
            await self._end_of(needed)
        return unwrap(task)

    async def _end_of(self, Ref task not None):
        """Until the task is done or a deadline has passed, without blocking the event loop."""
        cdef int64_t first
        loop = asyncio.get_running_loop()
        future = loop.create_future()

        def finished():
            try:
                loop.call_soon_threadsafe(_settle, future)
            except RuntimeError:
                pass        # the loop is closed: nobody waits any more

        if task.waiters is None:
            task.waiters = [finished]
        else:
            task.waiters.append(finished)
        first = self.first_deadline()
        if first == 0:
            await future
            return
        try:
            await asyncio.wait_for(future, max(0.0, (first - monotonic_ns()) / 1e9))
        except asyncio.TimeoutError:
            self.miss_the_late()

    # Giving up

    def cancel(self, Ref ref not None):
        """Give a task up; whether that was possible.

        A queued task never runs. A running one gets ``TaskCancelled`` between two byte codes of
        its own or where it waits for a task (not inside another C function). What depends on it
        ends with the same error. A decision cannot be cancelled from its inside.
        """
        cdef Ref task = watched()
        cdef bint possible
        self.check_ours(ref)
        if task is not None and task.scope.replayed:
            possible = task.scope.boundary.exchange(
                task, "cancel", "kernel", None, lambda: self.give_up(ref, cancelled_error(ref)))
            if possible:
                self.give_up(ref, cancelled_error(ref))
            else:
                self.help(ref)
            return possible
        possible = self.give_up(ref, cancelled_error(ref))
        if task is not None:
            task.scope.boundary.keep(task, "cancel", "kernel", None, possible)
        return possible

    cdef bint give_up(self, Ref task, object error) except -1:
        cdef bint running = task.state == RUNNING
        if task.state >= ENDING or is_root(task):
            return False
        task.state = ENDING
        if running:
            self.interrupt(task)
        self.fail(task, error)
        return True


cdef int64_t moment(object timeout) except -1:
    """The monotonic time at which ``timeout`` seconds have passed; 0 for never."""
    if timeout is None:
        return 0
    if not timeout >= 0:
        raise KernelError(f"a timeout of {timeout} s", what="timeout", expected="0 s or more",
                          remedy="leave it out to wait as long as it takes")
    return 0 if timeout > 1e9 else monotonic_ns() + <int64_t>(timeout * 1e9) + 1


cdef int add_unfinished(list tasks, Ref task) except -1:
    for argument in task.args:
        if type(argument) is Ref and (<Ref>argument).state < DONE:
            tasks.append(argument)
    if task.kwargs is not None:
        for argument in task.kwargs.values():
            if type(argument) is Ref and (<Ref>argument).state < DONE:
                tasks.append(argument)
    return 0


cdef Ref unfinished_argument(Ref task):
    """An argument that the task waits for; None when the last of them has ended just now."""
    for argument in task.args:
        if type(argument) is Ref and (<Ref>argument).state < DONE:
            return <Ref>argument
    if task.kwargs is not None:
        for argument in task.kwargs.values():
            if type(argument) is Ref and (<Ref>argument).state < DONE:
                return <Ref>argument
    return None


def _put():
    """The function that objects made by ``put`` are named after."""


def _settle(future):
    if not future.done():
        future.set_result(None)


def mapped(Engine engine, function, rows, options):
    """The generator behind ``map``."""
    window = deque()
    for row in rows:
        window.append(engine.submit_task(function, row, {}, options))
        if len(window) >= MAP_WINDOW:
            yield engine.get(window.popleft())
    while window:
        yield engine.get(window.popleft())
