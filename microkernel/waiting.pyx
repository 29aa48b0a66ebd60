"""Waiting for tasks. Who waits helps.

A thread that waits for a task runs it, or what it needs, itself where it may, so that any number of
nested waits ends with any number of threads. A thread that is in the middle of a task runs only
what that wait needs: with an unrelated task on top, both could wait for each other for ever.

For the same reason a task lends its CPU share while it waits, and what it waits for goes before
tasks that have been given their resources and have not begun.
"""
from libc.stdint cimport int64_t

from microkernel.mailbox cimport Method
from microkernel.pending cimport Completions, Doorbell, Pending, add_waiter, monotonic_ns
from microkernel.running cimport Runner
from microkernel.scheduler cimport in_worker, is_root, unwrap
from microkernel.streams cimport settle_later
from microkernel.task cimport (
    DONE,
    HOLDS,
    INLINE,
    PARKED,
    PROCESS,
    READY,
    STREAMS,
    WAITING,
    Ref,
    current,
)

from microkernel.errors import KernelError, ReplayDivergence


cdef class Waiter(Runner):
    """Tasks and waiting for them; ``Streamer`` adds streams."""

    # Helping

    cdef bint mine(self, Ref task) except -1:
        """Whether this thread may run the task while it waits."""
        if type(task.function) is Method:
            return task.place == INLINE     # one of another place runs where its actor is
        if task.place == PROCESS:
            return self.remote.take_back(task)
        return task.place == INLINE or in_worker()

    cdef Ref needed_by(self, Ref task):
        """A ready task that this thread may run, and that ``task`` needs or is; None if none is."""
        cdef list open_tasks
        cdef set seen
        if task.state == WAITING and task.wants & PARKED:
            self.insist(task)
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
                if task.wants & PARKED and self.insist(task):
                    open_tasks.append(task)
                else:
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
            if self.inline_queue.length == 0 and not (self.remote_left and self.remote.lends):
                return False
            if self.inline_queue.length and (here is None or is_root(here)):
                return self.run_one_inline()
        task = self.needed_by_any(pending)
        if task is None:
            return False
        self.run_task(task)
        return True

    cdef bint insist(self, Ref task) except -1:
        """The task at hand waits for one that is parked: let that go before those that have what
        they need and have not begun. Whether it may begin now."""
        cdef Ref here = current()
        cdef Ref holder
        if here is None or is_root(here):
            return False        # it holds nothing up, and its turn comes
        if self.resources.admit_now(task):
            self.enqueue(task)
            return True
        for ref in self.resources.held_last_first():
            holder = <Ref>ref
            if holder.state == READY and not holder.wants & STREAMS and (
                    holder.place != PROCESS or self.remote.take_back(holder)):
                self.resources.park_again(holder)
                if self.resources.admit_now(task):
                    self.enqueue(task)
                    return True
        if here.wants & HOLDS:
            name = self.resources.stands_in_its_own_way(here, task)
            if name is not None:
                raise KernelError(
                    f"{here.function.name} waits for {task.function.name}, which cannot begin: "
                    f"together they need more {name} than there is", what=name,
                    expected="that a task and those it waits for fit in side by side",
                    remedy=f"return from the first task before getting the second, or ask for "
                    f"less {name}")
        return False

    cdef bint lend_share(self, Ref here) except -1:
        """``here`` is about to wait: others may have its CPU share. Whether it had one to lend."""
        if here is None or not here.wants & HOLDS or not self.resources.lend(here):
            return False
        self.admit_parked()
        return True

    cdef int run_urgent(self, Ref here) except -1:
        """A thread that is free to run anything runs what asked to go first."""
        cdef Ref task
        if here is not None and not is_root(here):
            return 0
        task = self.inline_queue.pop_urgent()
        while task is not None:
            self.run_task(task)
            task = self.inline_queue.pop_urgent()
        return 0

    cdef int help(self, Ref target) except -1:
        """Run what ``target`` needs, then itself, in this thread as far as that may be; wait for
        what runs elsewhere."""
        cdef Ref here = current()
        cdef bint lent
        if self.inline_queue.urgent is not None:
            self.run_urgent(here)
        if here is None:
            if target.state == READY and self.mine(target):
                self.run_task(target)
            if target.state < DONE:
                self.help_with_all(target, None)
            self.inline_queue.drop_gaps()
            return 0
        lent = self.lend_share(here)
        try:
            self.help_with_all(target, here)
        finally:
            if lent:
                self.resources.take_back(here)
        self.inline_queue.drop_gaps()
        return self.heed_interruption()

    cdef int help_with_all(self, Ref target, Ref here) except -1:
        cdef list needed = [target]
        cdef Ref task
        cdef Ref argument
        while needed:
            if here is not None:
                self.heed_interruption()
            task = <Ref>needed[-1]
            if task.state == WAITING:
                argument = unfinished_argument(task)
                if argument is not None:
                    needed.append(argument)
                    continue
                if task.wants & PARKED and self.insist(task):
                    continue
            if task.state == READY and self.mine(task):
                self.run_task(task)
            if task.state >= DONE:
                needed.pop()
            elif task.state != READY or not self.mine(task):
                self.block(Pending([task]), 1, 0, False)
        return 0

    cdef int check_awaited(self, Ref task) except -1:
        """Raise where this thread's wait for the task would be an error."""
        self.check_ours(task)
        if type(task.function) is Method and task.state < DONE:
            (<Method>task.function).mailbox.awaited(task)
        return 0

    cdef int finish(self, Ref task, int64_t until) except -1:
        if task.state >= DONE:
            return 0
        if task.wants & STREAMS:
            self.cut_stream(task, None)
        if until == 0 and self.mine(task):
            self.check_awaited(task)
            return self.help(task)
        return self.finish_all([task], until)

    cdef int finish_all(self, list refs, int64_t until) except -1:
        cdef Ref task
        cdef list elsewhere = []
        for ref in refs:
            task = <Ref>ref
            if task.state >= DONE:
                continue
            self.check_awaited(task)
            if until or not self.mine(task):
                elsewhere.append(task)
            else:
                self.help(task)
        if elsewhere and until == 0 and self.remote_left:
            elsewhere = self.finish_in_order(elsewhere)
        if elsewhere:
            pending = Pending(elsewhere)
            self.block(pending, len(pending), until, True)
        return 0

    cdef list finish_in_order(self, list tasks):
        """Wait for tasks in other processes, one after the other, as long as this thread is the one
        that takes in what arrives: then nobody has to tell it. Returns the tasks that are left."""
        cdef size_t i, n = len(tasks)
        cdef int64_t first
        cdef Ref task
        cdef Doorbell bell
        if current() is not None or self.remote.lends:
            return tasks
        bell = Doorbell()
        self.callers.append(bell)
        try:
            for i in range(n):
                task = <Ref>tasks[i]
                while task.state < DONE:
                    if task.place != PROCESS or self.inline_queue.length:
                        return tasks[i:]
                    bell.listen()
                    self.remote.pump()
                    if task.state >= DONE:
                        break
                    first = self.deadlines.first()
                    if not self.remote.lead(bell, first, n - i):
                        return tasks[i:]
                    if first and monotonic_ns() >= first:
                        self.miss_the_late()
        finally:
            self.callers.remove(bell)
            bell.stop_listening()
            if self.remote_left and self.callers:
                self.wake_caller()
        return None

    cdef int block(self, Pending pending, size_t count, int64_t until, bint must) except -1:
        """Until ``count`` of the tasks have ended, or until ``until``: run what this thread may
        run, else sleep. ``must``: raise TimeoutError when the time is up."""
        cdef Completions completions = pending.completions
        cdef Doorbell bell = completions.bell
        cdef Ref here = current()
        cdef bint lent
        if completions.waited_for:
            raise KernelError("two wait for one Pending at the same time", what=repr(pending),
                              expected="one at a time", remedy="give each its own Pending")
        if self.forked():
            self.check_open()
        completions.waited_for = True
        completions.needed = count
        self.callers.append(bell)
        lent = self.lend_share(here)
        try:
            while True:
                # Listening first, then looking: what comes in between rings.
                bell.listen()
                if self.remote_left:
                    self.remote.pump()
                if completions.available() >= count:
                    return 0
                self.heed_interruption()
                if until and monotonic_ns() >= until:
                    if must:
                        raise TimeoutError(
                            f"{count - completions.available()} of {count} tasks are not done")
                    return 0
                if not self.run_something(pending):
                    self.rest(bell, until, count - completions.available())
        finally:
            self.callers.remove(bell)
            bell.stop_listening()
            completions.waited_for = False
            if lent:
                self.resources.take_back(here)
            if self.remote_left and self.callers:
                self.wake_caller()      # one of those who wait takes in what arrives from now on

    cdef int rest(self, Doorbell bell, int64_t until, size_t count) except -1:
        """Sleep until rung, until ``until`` or the next deadline of a task, which ends by it.
        ``count`` ends of tasks are what the caller needs."""
        cdef int64_t first = self.deadlines.first()
        cdef int64_t limit = first if first and (until == 0 or first < until) else until
        if self.remote_left == 0 or not self.remote.lead(bell, limit, count):
            bell.sleep(limit)
        if first and monotonic_ns() >= first:
            self.miss_the_late()
        return 0

    cdef int drain(self) except -1:
        cdef Doorbell bell = Doorbell()
        self.callers.append(bell)
        try:
            while True:
                bell.listen()
                if self.run_one_inline():
                    continue
                if self.remote_left:
                    self.remote.pump()
                if self.threads_left == 0 and self.remote_left == 0 and self.pauses.left == 0:
                    return 0
                self.rest(bell, 0, self.remote_left)
        finally:
            self.callers.remove(bell)

    cdef list wait_live(self, Pending pending, size_t count, int64_t until, list positions):
        cdef Completions completions = pending.completions
        cdef list done
        cdef size_t i
        if completions.available() < count:
            self.block(pending, count, until, False)
        done = completions.done[completions.taken:completions.taken + count]
        for i in range(completions.taken, completions.taken + len(done)):
            completions.done[i] = None      # what was taken is the caller's, and goes with him
        completions.taken += len(done)
        if completions.taken > 4096:
            del completions.done[:completions.taken]
            completions.taken = 0
        for ref in done:
            position = pending.positions.pop(ref)
            if positions is not None:
                positions.append(position)
        return done

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
        self.check_awaited(task)
        if task.wants & STREAMS:
            self.cut_stream(task, None)
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
        import asyncio      # whoever awaits has it; others start without

        loop = asyncio.get_running_loop()
        future = loop.create_future()
        settle = settle_later(loop, future)
        if not add_waiter(task, settle):
            return
        if task.place == PROCESS:
            self.remote.attend(1)
        await self._settled(future, 0)

    async def _settled(self, future, int64_t until):
        """Until the future is settled, ``until`` (0: for ever), or a deadline of a task."""
        cdef int64_t first = self.deadlines.first()
        cdef int64_t limit = first if first and (until == 0 or first < until) else until
        if limit == 0:
            await future
            return
        import asyncio

        try:
            await asyncio.wait_for(future, max(0.0, (limit - monotonic_ns()) / 1e9))
        except asyncio.TimeoutError:
            self.miss_the_late()


cdef int add_unfinished(list tasks, Ref task) except -1:
    for argument in task.args:
        if type(argument) is Ref and (<Ref>argument).state < DONE:
            tasks.append(argument)
    if task.kwargs is not None:
        for argument in task.kwargs.values():
            if type(argument) is Ref and (<Ref>argument).state < DONE:
                tasks.append(argument)
    if type(task.function) is Method:
        argument = (<Method>task.function).mailbox.before(task)
        if argument is not None:
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
    if type(task.function) is Method:
        return (<Method>task.function).mailbox.before(task)
    return None
