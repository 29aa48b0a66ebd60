"""Time, randomness and identifiers of a recorded task come through the boundary, unasked.

Two kinds of source are told apart. Clocks, the operating system's entropy and identifiers made of
it are *recorded*: the answer of the real function is an input of the decision. The generators that
a program shares without owning them (``random``'s module functions, NumPy's and torch's global
generators) are *derived*: within a task they draw from ``microkernel.random.stream``, which depends
on the task's id alone, so that a replay draws the same without any record, whatever other tasks
draw meanwhile. A generator that the program seeded itself is left alone.

The functions of C modules are caught where the interpreter calls them (``shims.h``), those of NumPy
and torch at the module attribute. Everything is put in place when the first decision is recorded or
replayed, and acts only inside one.

Not an input is what the standard library asks the clock on its own account, to stamp a log line or
to wait no longer than it was told: its answer reaches no decision, and a replay that logs more or
waits less must not run dry.
"""
import sys
import threading

from cpython.ref cimport PyObject

from microkernel.task cimport Ref, watched as watched_now

from microkernel import clocks, generators

cdef extern from "shims.h":
    int SRDS_SLOTS
    int srds_watched
    object (*srds_intercept)(int slot, object self, PyObject *const *args, Py_ssize_t nargs,
                             PyObject *kwnames)
    int srds_patch(int slot, object callable)
    void srds_unpatch(int slot)
    object srds_call_original(int slot, object self, PyObject *const *args, Py_ssize_t nargs,
                              PyObject *kwnames)


cdef list _names = []       # per slot what is recorded, "time.time"
cdef list _kinds = []       # per slot "time", "entropy", ..., or a function for derived sources
cdef bint _installed = False
cdef object _installing = threading.RLock()
cdef list _torch = generators.torch_functions

cdef frozenset _ON_THEIR_OWN_ACCOUNT = frozenset((
    "asyncio.base_events", "asyncio.timeouts", "concurrent.futures._base", "logging",
    "multiprocessing.connection", "queue", "selectors", "subprocess", "threading"))


cdef class _Original:
    """A call of the real function, kept until the boundary asks for it."""

    cdef int slot
    cdef object owner
    cdef PyObject *const *args
    cdef Py_ssize_t nargs
    cdef PyObject *kwnames

    def __call__(self):
        return srds_call_original(self.slot, self.owner, self.args, self.nargs, self.kwnames)

    def given(self, argument):
        """The real function of another argument."""
        cdef PyObject *one = <PyObject *>argument
        return srds_call_original(self.slot, self.owner, &one, 1, NULL)


cdef object intercept(int slot, object self, PyObject *const *args, Py_ssize_t nargs,
                      PyObject *kwnames):
    cdef Ref task = watched_now()
    cdef _Original original
    cdef Py_ssize_t i
    if task is None:
        return srds_call_original(slot, self, args, nargs, kwnames)
    kind = _kinds[slot]
    if type(kind) is str:
        if kind == "time" and asked_by() in _ON_THEIR_OWN_ACCOUNT:
            return srds_call_original(slot, self, args, nargs, kwnames)
    elif kwnames != NULL:
        if <tuple>kwnames != ("tz",):
            return srds_call_original(slot, self, args, nargs, kwnames)
        nargs += 1      # the one keyword that any of them takes stands where a position would
    original = _Original.__new__(_Original)
    original.slot = slot
    original.owner = self
    original.args = args
    original.nargs = nargs
    original.kwnames = kwnames
    if type(kind) is str:
        return task.scope.boundary.exchange(
            task, <str>kind, <str>_names[slot], recorded_key(kind, args, nargs, kwnames), original)
    if kwnames != NULL:
        original.nargs -= 1
    return kind(task, original, self, tuple([<object>args[i] for i in range(nargs)]))


cdef object asked_by():
    """The name of the module whose code called the function."""
    try:
        return sys._getframe().f_globals.get("__name__")
    except ValueError:
        return None     # called from C with no Python code below


cdef object recorded_key(str kind, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames):
    """What of the arguments decides the answer: how many bytes, or which clock."""
    cdef Py_ssize_t given = nargs
    if kwnames != NULL:
        given += len(<tuple>kwnames)
    if given == 0:
        return None
    if kind == "entropy":
        return <object>args[0]
    return str(<object>args[0])


cdef int begin_watching() except -1:
    global srds_watched
    if not _installed:
        install()
    srds_watched += 1
    if srds_watched == 1 and _torch:
        generators.settle_torch()
    return 0


cdef int end_watching() except -1:
    global srds_watched
    srds_watched -= 1
    if srds_watched == 0 and _torch:
        generators.settle_torch()
    return 0


def watching():
    """Whether any decision is being recorded or replayed at this moment."""
    return srds_watched > 0


def install():
    """Put the shims in place; the second time changes nothing."""
    global srds_intercept, _installed
    with _installing:
        if _installed:
            return
        srds_intercept = intercept
        catalogue = _catalogue()
        if len(catalogue) > SRDS_SLOTS:
            raise SystemError(f"{len(catalogue)} functions to watch and {SRDS_SLOTS} slots")
        for slot, (name, kind, function) in enumerate(catalogue):
            _names.append(name)
            _kinds.append(kind)
            if srds_patch(slot, function) < 0:
                take_away()
                raise SystemError(f"{name} cannot be watched in this interpreter")
        generators.install(watching)
        _installed = True


cdef take_away():
    for slot in range(len(_names)):
        srds_unpatch(slot)
    _names.clear()
    _kinds.clear()


def remove():
    """Take the shims away again; for tests. No decision may be open."""
    global _installed
    if srds_watched:
        raise RuntimeError("a decision is being recorded")
    with _installing:
        generators.remove()
        take_away()
        _installed = False


def watched():
    """The names of the functions that are watched, and how: a kind of input, or "derived"."""
    return {name: kind if type(kind) is str else "derived" for name, kind in zip(_names, _kinds)}


def _catalogue():
    import _random
    import datetime
    import posix
    import time
    found = []

    def add(name, kind, function):
        if function is not None:
            found.append((name, kind, function))

    for name in ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns",
                 "process_time", "process_time_ns", "thread_time", "thread_time_ns"):
        add(f"time.{name}", "time", getattr(time, name, None))
    for name in ("ctime", "localtime", "gmtime", "asctime", "strftime"):
        add(f"time.{name}", getattr(clocks, name), getattr(time, name))
    add("time.sleep", "sleep", time.sleep)
    for name in ("clock_gettime", "clock_gettime_ns"):
        add(f"time.{name}", "time", getattr(time, name, None))
    add("datetime.now", clocks.now, vars(datetime.datetime)["now"])
    add("datetime.utcnow", clocks.utcnow, vars(datetime.datetime).get("utcnow"))
    add("os.urandom", "entropy", posix.urandom)
    add("os.getrandom", "entropy", getattr(posix, "getrandom", None))
    try:
        import _uuid
    except ImportError:
        pass
    else:
        add("uuid.uuid1", "identifier", _uuid.generate_time_safe)
    for name in ("random", "getrandbits", "seed", "getstate", "setstate"):
        handler = getattr(generators, "random_" if name == "random" else name)
        add(f"random.{name}", handler, vars(_random.Random)[name])
    return found
