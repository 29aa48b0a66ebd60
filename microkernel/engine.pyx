"""The engine: what a program calls to have tasks run and to get their results.

Each of these floors adds one idea to the one below: ``Scheduler`` the books, ``Runner`` running
what is ready, ``Waiter`` waiting by helping, ``Streamer`` results that come in many parts.
``Kernel`` adds decisions.
"""
from collections import deque

from cpython.ref cimport PyObject, Py_INCREF
from cpython.tuple cimport PyTuple_New, PyTuple_SET_ITEM
from libc.stdint cimport int64_t

from microkernel.function cimport Function
from microkernel.pending cimport Completions, Pending, monotonic_ns
from microkernel.scheduler cimport cancelled_error, unwrap
from microkernel.streaming cimport Streamer
from microkernel.streams cimport settle_later
from microkernel.task cimport DONE, PROCESS, Ref, current, watched

from microkernel.errors import KernelError
from microkernel.settings import TaskOptions
from microkernel.streams import Stream

cdef enum:
    MAP_WINDOW = 1024           # tasks that map submits ahead of what it has returned
    STREAM_WINDOW = 16          # items that a stream makes ahead of what was taken


cdef class Submitter:
    """``submit``, ``map`` and ``stream`` with options; made by ``Kernel.options``."""

    def submit(self, function, /, *args, **kwargs):
        """``Kernel.submit`` with these options."""
        return self.engine.submit_task(function, args, kwargs, self.options)

    def map(self, function, *iterables, window=MAP_WINDOW, progress=None):
        """``Kernel.map`` with these options."""
        return self.engine.mapped(function, iterables, self.options, window, progress)

    def stream(self, function, /, *args, window=STREAM_WINDOW, **kwargs):
        """``Kernel.stream`` with these options."""
        return Stream(self.engine.open_stream(function, args, kwargs, self.options, window),
                      self.engine)


cdef class Engine(Streamer):
    """Tasks and waiting for them; ``Kernel`` is the engine with decisions, events and a journal."""

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        self.close(cancel=kind is not None)

    def close(self, *, cancel=False):
        """Finish what was submitted (or, with ``cancel``, give it up) and stop the workers.

        Streams end where they stand. A task that was told to stop and does not within
        ``KernelSettings.grace`` seconds is left to its thread, which ends with the process; a log
        message names it. Raises ``KernelError`` in a task of this
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
                self.end_flows(False)
            self.end_streams()
            if not cancel:
                self.drain()
        except BaseException:
            cancel = True
            raise
        finally:
            self.open = False
            if cancel:
                self.end_flows(True)
                self.cancel_all()
            self.end_actors(cancel)
            try:
                if self.remote is not None:
                    self.remote.close(cancel)
            finally:
                self.stop_workers(cancel)

    cdef int end_flows(self, bint cancelled) except -1:
        """Let all that was put into flows go through, or give it up."""
        if self.flows is None:
            return 0
        for flow in list(self.flows):
            if cancelled:
                flow.cancel()
            else:
                try:
                    flow.close()
                except Exception:
                    pass        # those who use the flow are told
        return 0

    # Submitting

    # Called at each submission: ``call_submit``, below, is put in its place.
    def submit(self, function, /, *args, **kwargs):
        """Hand ``function(*args, **kwargs)`` to the kernel and return its ``Ref`` at once.

        Arguments that are references are replaced by their results, and the task waits for them.
        """
        return self.submit_task(function, args, kwargs, None)

    def options(self, **options):
        """``submit``, ``map`` and ``stream`` with ``TaskOptions``, which are given by name.

        >>> from microkernel import Kernel
        >>> with Kernel() as kernel:
        ...     kernel.get(kernel.options(placement="thread", deadline=5.0).submit(sum, [1, 2]))
        3
        """
        cdef Submitter submitter = Submitter.__new__(Submitter)
        submitter.engine = self
        submitter.options = TaskOptions(**options)
        if submitter.options.resources:
            self.resources.need_of(submitter.options)
        return submitter

    def map(self, function, *iterables, window=MAP_WINDOW, progress=None):
        """Yield ``function`` of each element, in order, as ``map`` does.

        At most ``window`` tasks are submitted ahead of what was taken, so the iterables may be
        endless. ``progress``, a label or True, shows on standard error how many were taken; a
        function is called with how many were, and of how many (None where the iterables do not
        know their length).
        """
        return self.mapped(function, iterables, None, window, progress)

    cdef object mapped(self, object function, tuple iterables, object options, object window,
                       object progress):
        cdef object total = None
        self.check_open()
        if not (isinstance(window, int) and window > 0):
            raise KernelError(f"a window of {window!r} tasks", what="window",
                              expected="a whole number, 1 or more",
                              remedy=f"leave it out for {MAP_WINDOW:,}")
        if not callable(progress):
            return followed(results_in_order(self, function, zip(*iterables), options, window, None,
                                             None), progress, iterables)
        from microkernel.tracing.progress import total_of

        total = total_of(*iterables)
        return results_in_order(self, function, zip(*iterables), options, window, progress, total)

    def stream(self, function, /, *args, window=STREAM_WINDOW, **kwargs):
        """Run a generator function as a task and return its items as a ``Stream``, as they come.

        At most ``window`` items are made ahead of what was taken; inline each is made when it is
        asked for.

        >>> from microkernel import Kernel
        >>> with Kernel() as kernel, kernel.stream(iter, "abc") as letters:
        ...     list(letters)
        ['a', 'b', 'c']
        """
        return Stream(self.open_stream(function, args, kwargs, None, window), self)

    def put(self, value):
        """A reference to ``value``, for giving it to many tasks.

        With tasks in processes, what is large in ``value`` (arrays, bytes, tables) is copied once
        into memory that all of them see, or lies there already if it was made by ``empty``. Raises
        ``ObjectStoreFull`` when there is no room within ten seconds.
        """
        cdef Ref task
        self.check_open()
        task = self.new_task(_object)
        if (task.scope is None or not task.scope.replayed) and self.shares():
            self.remote.keep(task, value)
        else:
            task.result = value
        task.state = DONE
        if self.on_object_made is not None:
            self.tell(self.on_object_made, (task,))
        return task

    def empty(self, shape, dtype=float):
        """A NumPy array, not initialised, to be filled and then put, or returned from a task.

        With tasks in processes it lies in memory that all of them see, so that this costs no copy;
        from then on it is read-only. Raises ``ObjectStoreFull`` as ``put`` does.
        """
        self.check_open()
        if self.shares():
            return self.remote.empty(shape, dtype)
        import numpy

        return numpy.empty(shape, dtype)

    def object_statistics(self):
        """How much of the memory for objects is used, and by whom; None without processes."""
        return self.remote.object_statistics() if self.remote is not None else None

    cdef bint shares(self) except -1:
        """Whether objects go into memory that other processes see, too."""
        if self.remote is None and self.place == PROCESS:
            self.remote = self.open_remote()
        return self.remote is not None

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

    def wait(self, refs, count=1, timeout=None, *, progress=None):
        """Wait until ``count`` of ``refs`` have ended, at most ``timeout`` seconds.

        Returns the ended ones (in the order in which they ended, at most ``count``) and a
        ``Pending`` of the others. Giving that ``Pending`` to the next ``wait`` costs nothing for
        the tasks that are still running; a plain collection is gone through once.
        ``progress(done, count)`` is called as tasks end, with how many have.
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
        if progress is not None and (task is None or not task.scope.replayed):
            self._wait_step_by_step(pending, count, until, progress)
        if task is None:
            return self.wait_live(pending, count, until, None), pending
        if task.scope.replayed:
            return self._wait_in_replay(task, pending, count, until), pending
        positions = []
        done = self.wait_live(pending, count, until, positions)
        task.scope.boundary.keep(task, "wait", "kernel", None, positions)
        return done, pending

    def _wait_step_by_step(self, Pending pending not None, size_t count, int64_t until, progress):
        """Until enough tasks have ended, telling ``progress`` each time that some have."""
        cdef Completions completions = pending.completions
        cdef size_t done = completions.available()
        while done < count:
            progress(done, count)
            self.block(pending, done + 1, until, False)
            if completions.available() <= done:
                return          # the time is up
            done = completions.available()
        progress(min(done, count), count)

    def _wait_in_replay(self, Ref task not None, Pending pending not None, size_t count,
                        int64_t until):
        """The tasks that the recorded run got here; the ones of now if it did not wait here."""
        live = []

        def wait_now():
            live.append(self.wait_live(pending, count, until, None))

        positions = task.scope.boundary.exchange(task, "wait", "kernel", None, wait_now)
        return live[0] if live else self.wait_as_recorded(pending, positions)

    def as_completed(self, refs, timeout=None, *, progress=None):
        """The references in the order in which they end: an iterator, and for coroutines an
        asynchronous one. Raises ``TimeoutError`` when not all have ended after ``timeout`` seconds.
        ``progress``, a label or True, makes it an iterator that shows how many have.

        >>> from microkernel import Kernel
        >>> with Kernel() as kernel:
        ...     refs = [kernel.submit(abs, n) for n in (-1, -2)]
        ...     [kernel.get(ref) for ref in kernel.as_completed(refs)]
        [1, 2]
        """
        ended = AsCompleted(self, Pending(refs), moment(timeout))
        return followed(ended, progress, (ended,))

    async def _wait_for_one(self, Pending pending not None, int64_t until):
        """``wait`` for coroutines: a list of one task, or of none when the time is up."""
        cdef Completions completions = pending.completions
        cdef Ref task = watched()
        cdef Ref needed
        cdef list positions = None if task is None else []
        if task is not None and task.scope.replayed:
            return self._wait_in_replay(task, pending, 1, until)
        import asyncio      # whoever awaits has it; others start without

        completions.needed = 1
        while completions.available() == 0 and not (until and monotonic_ns() >= until):
            needed = self.needed_by_any(pending)
            if needed is not None:
                self.run_task(needed)
                continue
            loop = asyncio.get_running_loop()
            future = loop.create_future()
            completions.notify = settle_later(loop, future)
            if self.remote_left:
                self.remote.attend(1)
                try:
                    await self._settled(future, until)
                finally:
                    self.remote.attend(-1)
            else:
                await self._settled(future, until)
        done = self.wait_live(pending, min(1, completions.available()), until, positions)
        if task is not None:
            task.scope.boundary.keep(task, "wait", "kernel", None, positions)
        return done

    # Giving up

    def cancel(self, Ref ref not None, *, force=False):
        """Give a task up; whether that was possible.

        A queued task never runs. A running one gets ``TaskCancelled`` between two byte codes of
        its own or where it waits for a task (not inside another C function). What depends on it
        ends with the same error. A decision cannot be cancelled from its inside. The process of a
        task that has not stopped after ``KernelSettings.grace`` seconds is ended and replaced; with
        ``force`` it is at once.
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
        if force and ref.place == PROCESS and ref.slot:
            self.remote.kill(ref)
        possible = self.give_up(ref, cancelled_error(ref))
        if task is not None:
            task.scope.boundary.keep(task, "cancel", "kernel", None, possible)
        return possible

cdef int64_t moment(object timeout) except -1:
    """The monotonic time at which ``timeout`` seconds have passed; 0 for never."""
    if timeout is None:
        return 0
    if not timeout >= 0:
        raise KernelError(f"a timeout of {timeout} s", what="timeout", expected="0 s or more",
                          remedy="leave it out to wait as long as it takes")
    return 0 if timeout > 1e9 else monotonic_ns() + <int64_t>(timeout * 1e9) + 1


def _put():
    """The function that objects made by ``put`` are named after."""


cdef Function _object = Function(_put)


def results_in_order(Engine engine, function, rows, options, window, progress, total):
    """The generator behind ``map``."""
    ahead = deque()
    done = 0
    for row in rows:
        ahead.append(engine.submit_task(function, row, {}, options))
        if len(ahead) < window:
            continue
        result = engine.get(ahead.popleft())
        if progress is not None:
            done += 1
            progress(done, total)
        yield result
        del result
    while ahead:
        result = engine.get(ahead.popleft())
        if progress is not None:
            done += 1
            progress(done, total)
        yield result
        del result


cdef class AsCompleted:
    """Tasks in the order in which they end; what ``Kernel.as_completed`` returns."""

    cdef Engine engine
    cdef Pending pending
    cdef int64_t until

    def __cinit__(self, Engine engine not None, Pending pending not None, int64_t until):
        self.engine = engine
        self.pending = pending
        self.until = until
        for ref in pending:
            engine.check_ours(<Ref>ref)
        pending.checked = engine

    def __len__(self):
        return len(self.pending)

    def __iter__(self):
        return self

    def __next__(self):
        if not len(self.pending):
            raise StopIteration
        timeout = max(0, self.until - monotonic_ns()) / 1e9 if self.until else None
        return self.checked(self.engine.wait(self.pending, 1, timeout)[0])

    def __aiter__(self):
        return self

    async def __anext__(self):
        if not len(self.pending):
            raise StopAsyncIteration
        return self.checked(await self.engine._wait_for_one(self.pending, self.until))

    cdef object checked(self, list done):
        if not done:
            raise TimeoutError(f"{len(self.pending)} tasks are not done")
        return done[0]


cdef object followed(object results, object progress, tuple sources):
    """``results``, with the progress of taking them shown if that is asked for."""
    if progress is None or progress is False:
        return results
    from microkernel.tracing.progress import shown_progress, total_of

    return shown_progress(results, progress, total_of(*sources))


def mapped(Engine engine, function, rows, options):
    """The generator behind ``map``."""
    window = deque()
    for row in rows:
        window.append(engine.submit_task(function, row, {}, options))
        if len(window) >= MAP_WINDOW:
            yield engine.get(window.popleft())
    while window:
        yield engine.get(window.popleft())


# What a method of C costs less than one with ``*args, **kwargs``: a dictionary for each call.

cdef extern from "Python.h":
    ctypedef struct PyMethodDef:
        const char *ml_name
        void *ml_meth
        int ml_flags
        const char *ml_doc
    int METH_FASTCALL
    int METH_KEYWORDS
    object PyDescr_NewMethod(PyTypeObject *kind, PyMethodDef *method)
    void PyType_Modified(PyTypeObject *kind)
    ctypedef struct PyTypeObject:
        PyObject *tp_dict

cdef PyMethodDef _submit


cdef PyObject *call_submit(PyObject *engine, PyObject **args, Py_ssize_t n,
                           PyObject *names) except NULL:
    cdef tuple positional
    cdef dict named = None
    cdef Ref task
    cdef Py_ssize_t i
    if names != NULL:
        n_named = len(<tuple>names)
        named = {(<tuple>names)[i]: <object>args[n + i] for i in range(n_named)}
    if n == 0:
        raise TypeError("submit() takes a function and its arguments")
    positional = PyTuple_New(n - 1)
    for i in range(1, n):
        Py_INCREF(<object>args[i])
        PyTuple_SET_ITEM(positional, i - 1, <object>args[i])
    task = (<Engine>engine).submit_task(<object>args[0], positional, named, None)
    Py_INCREF(task)
    return <PyObject *>task


cdef int replace_submit() except -1:
    cdef PyTypeObject *kind = <PyTypeObject *>Engine
    cdef bytes text = b"submit($self, function, /, *args, **kwargs)\n--\n\n" + (
        Engine.submit.__doc__.encode())
    cdef dict methods = <dict>kind.tp_dict
    _texts.append(text)
    _submit.ml_name = "submit"
    _submit.ml_meth = <void *>call_submit
    _submit.ml_flags = METH_FASTCALL | METH_KEYWORDS
    _submit.ml_doc = text
    methods["submit"] = PyDescr_NewMethod(kind, &_submit)
    PyType_Modified(kind)
    return 0


cdef list _texts = []           # which the method points to
replace_submit()
