"""The one door through which a task reads what lies outside it.

``read(source, key, fetch)`` returns ``fetch()`` and, inside a recorded decision, keeps the answer
in the journal; in a replay it returns what was kept and calls nobody. The code that reads is the
same in all three cases. Outside a decision the door is open and costs a function call.

Time, randomness and identifiers come through the same door without being asked for: see
``microkernel.shims``.
"""

from microkernel.ids cimport id_to_bytes
from microkernel.recording cimport Recording
from microkernel.task cimport (
    Boundary,
    Ref,
    current,
    enter,
    enter_coroutine,
    leave,
    leave_coroutine,
)


cdef class Live(Boundary):
    """The boundary of a kernel without a journal: it asks the source and keeps nothing."""

    def __cinit__(self):
        self.mode = "live"


def read(str source not None, key, fetch):
    """The answer of ``fetch()``, as an input of the running task.

    ``source`` names what is read (a table, a service), ``key`` what of it; both are what a replay
    finds the input by, so they must not hold anything that changes from run to run. ``key`` and
    the answer are plain data (``microkernel.values``). An exception of ``fetch`` is recorded, too.

    >>> read("table", "row 7", lambda: 42)
    42
    """
    cdef Ref task = current()
    if task is None or task.scope is None:
        return fetch()
    return task.scope.boundary.exchange(task, "read", source, key, fetch)


async def aread(str source not None, key, fetch):
    """``read`` for a coroutine function ``fetch``.

    What other coroutines of the same decision read meanwhile is recorded as their own.
    """
    cdef Ref task = current()
    if task is None or task.scope is None or not (task.scope.recorded or task.scope.replayed):
        return await fetch()
    if task.scope.replayed:
        return await _read_in_replay(task, source, key, fetch)
    value = error = None
    token = enter_coroutine(_outside(task))
    try:
        value = await fetch()
    except Exception as raised:
        error = raised
    finally:
        leave_coroutine(token)
    try:
        if error is None:
            return task.scope.boundary.keep(task, "read", source, key, value)
        return task.scope.boundary.exchange(task, "read", source, key, _raiser(error))
    finally:
        if task.scope.recorded:
            (<Recording>task.scope.boundary).flush(task.scope)


cdef Ref _outside(Ref task):
    """A stand-in for ``task`` that belongs to no decision: what a source does is not recorded."""
    cdef Ref outside = Ref.__new__(Ref)
    outside.id = task.id
    outside.function = task.function
    return outside      # it has no kernel: what it submits is a task of the run


async def _read_in_replay(Ref task, str source, key, fetch):
    """The recorded answer; that of the source where the policy for extra reads says so."""
    live = []
    value = task.scope.boundary.exchange(task, "read", source, key, lambda: live.append(True))
    if not live:
        return value
    token = enter_coroutine(_outside(task))
    try:
        return await fetch()
    finally:
        leave_coroutine(token)


def _raiser(error):
    def raise_it():
        raise error
    return raise_it


def exchange(str kind not None, str source not None, key, fetch):
    """``read`` for frameworks: an input of another ``kind``, for example ``prediction``."""
    cdef Ref task = current()
    if task is None or task.scope is None:
        return fetch()
    return task.scope.boundary.exchange(task, kind, source, key, fetch)


def keep(str kind not None, str source not None, key, value):
    """Record an input that was obtained already; in a replay, return the recorded one instead."""
    cdef Ref task = current()
    if task is None or task.scope is None:
        return value
    return task.scope.boundary.keep(task, kind, source, key, value)


def outside(function):
    """Call ``function()`` outside the decision at hand: what it reads is no input of anything.

    For a framework that recomputes in a replay what a source computed when it was recorded.
    """
    cdef Ref task = current()
    cdef Ref stand_in, previous
    if task is None or task.scope is None:
        return function()
    stand_in = _outside(task)
    previous = enter(stand_in)
    try:
        return function()
    finally:
        leave(previous)


def mode():
    """"live", "recording" or "replaying" inside a decision; None outside."""
    cdef Ref task = current()
    return None if task is None or task.scope is None else task.scope.boundary.mode


def decision_id():
    """The 16 bytes of the decision that the calling code runs in; None outside."""
    cdef Ref task = current()
    return None if task is None or task.scope is None else id_to_bytes(task.scope.decision)


def note_difference(str source not None, difference):
    """In a replay, say that a recomputed input differs from the recorded one."""
    cdef Ref task = current()
    if task is not None and task.scope is not None and task.scope.boundary.mode == "replaying":
        task.scope.boundary.differences.append((source, difference))
