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
"""
from cpython.ref cimport PyObject

from microkernel.task cimport Ref, current, thread_ident

from microkernel import clocks, generators

cdef extern from "shims.h":
    int srds_watched
    object (*srds_intercept)(int slot, object self, PyObject **args, Py_ssize_t nargs,
                             PyObject *kwnames)
    int srds_patch(int slot, object callable)
    void srds_unpatch(int slot)
    object srds_call_original(int slot, object self, PyObject **args, Py_ssize_t nargs,
                              PyObject *kwnames)


cdef list _names = []       # per slot what is recorded, "time.time"
cdef list _kinds = []       # per slot "time", "entropy", ..., or a function for derived sources
cdef bint _installed = False


cdef class _Original:
    """A call of the real function, kept until the boundary asks for it."""

    cdef int slot
    cdef object owner
    cdef PyObject **args
    cdef Py_ssize_t nargs
    cdef PyObject *kwnames

    def __call__(self):
        return srds_call_original(self.slot, self.owner, self.args, self.nargs, self.kwnames)

    def given(self, argument):
        """The real function of another argument."""
        cdef PyObject *one = <PyObject *>argument
        return srds_call_original(self.slot, self.owner, &one, 1, NULL)


cdef object intercept(int slot, object self, PyObject **args, Py_ssize_t nargs, PyObject *kwnames):
    cdef Ref task = current()
    cdef _Original original
    if (task is None or task.scope is None
            or not (task.scope.recorded or task.scope.replayed)
            or task.fetching == thread_ident()):
        return srds_call_original(slot, self, args, nargs, kwnames)
    original = _Original.__new__(_Original)
    original.slot = slot
    original.owner = self
    original.args = args
    original.nargs = nargs
    original.kwnames = kwnames
    kind = _kinds[slot]
    if type(kind) is str:
        return task.scope.boundary.exchange(
            task, <str>kind, <str>_names[slot], recorded_key(kind, args, nargs, kwnames), original)
    return kind(task, original, self, tuple([<object>args[i] for i in range(nargs)]))


cdef object recorded_key(str kind, PyObject **args, Py_ssize_t nargs, PyObject *kwnames):
    """What of the arguments decides the answer: how many bytes, or which time zone."""
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
    if srds_watched == 0:
        generators.decisions_open()
    srds_watched += 1
    return 0


cdef int end_watching() except -1:
    global srds_watched
    srds_watched -= 1
    if srds_watched == 0:
        generators.decisions_closed()
    return 0


def install():
    """Put the shims in place; the second time changes nothing."""
    global srds_intercept, _installed
    if _installed:
        return
    srds_intercept = intercept
    for slot, (name, kind, function) in enumerate(_catalogue()):
        if srds_patch(slot, function) < 0:
            raise SystemError(f"{name} cannot be watched in this interpreter")
        _names.append(name)
        _kinds.append(kind)
    _installed = True
    generators.install()


def remove():
    """Take the shims away again; for tests. No decision may be open."""
    global _installed
    if srds_watched:
        raise RuntimeError("a decision is being recorded")
    for slot in range(len(_names)):
        srds_unpatch(slot)
    _names.clear()
    _kinds.clear()
    generators.remove()
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
    add("datetime.now", "time", vars(datetime.datetime)["now"])
    add("datetime.utcnow", "time", vars(datetime.datetime).get("utcnow"))
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
