"""Actors in processes of their own, seen from the driver.

A call goes to the actor's process as a task goes to a worker's: one message, written once, in a
ring that the process empties in order. So the order of calls is the order of the ring, and a call
costs what a task costs. What was sent stays an entry here until it is answered.

When the process dies, the actor is constructed again in another one, as often as ``restarts``
allows: from the constructor's arguments and, if its class has ``checkpoint`` and ``restore``, the
last checkpoint. A checkpoint is a call like others, made after every ``checkpoint_every`` of them;
because answers come in the order of calls, no result of a later call is given out before it is
here. With ``retry_calls``, calls that had been answered since the checkpoint are run again, their
results dropped, and then those that had not been; so for methods whose effect is their state and
that do the same again, nothing is lost and nothing happens twice.
"""
import logging

from libc.stdint cimport uint32_t

from microkernel.actors.actor cimport Actor, died
from microkernel.actors.host cimport CONCURRENT
from microkernel.actors.switchboard cimport switchboard_of
from microkernel.engine cimport Engine
from microkernel.ids cimport mix
from microkernel.mailbox cimport Method
from microkernel.processes.fabric cimport Fabric
from microkernel.processes.station cimport (
    SRDS_ACTOR,
    SRDS_CALL,
    SRDS_CANCEL,
    Entry,
    srds_load32,
)
from microkernel.scheduler cimport unwrap
from microkernel.task cimport DONE, ENDING, FAILED, PROCESS, READY, WAITING, Ref

from microkernel.actors.options import method_names
from microkernel.errors import KernelError
from microkernel.processes.pickling import UnfinishedReferences

cdef enum:
    MOST_SENT = 65536           # calls; the ring's room is the limit before

cdef object _log = logging.getLogger("microkernel")


cdef class ProcessActor(Actor):
    """An actor in a process of its own."""

    def __cinit__(self):
        self.place = PROCESS
        self.checkpoints = {}
        self.log = []

    def __init__(self, *args, Fabric fabric not None, size_t concurrency=1, bint is_async=False):
        super().__init__(*args)
        self.fabric = fabric
        self.concurrent = is_async or concurrency > 1
        self.window = concurrency if self.concurrent else MOST_SENT
        self.restarts_left = self.options.restarts
        if self.options.checkpoint_every:
            if self.concurrent:
                raise KernelError(f"{self.described} has checkpoints and concurrent calls",
                                  what="checkpoint_every", expected="one call at a time, between "
                                  "which there is a state", remedy="leave out one of the two")
            for name in ("checkpoint", "restore"):
                if not callable(getattr(self.cls, name, None)):
                    raise KernelError(f"{self.described} has no method {name}",
                                      what="checkpoint_every", expected="a class with "
                                      "checkpoint(self) and restore(self, state)",
                                      remedy="define both, or leave out checkpoint_every")
        self.switchboard = switchboard_of(fabric)
        for number, name in enumerate(method_names(self.cls)):
            self.method(name).number = (number + 1) | (CONCURRENT if self.concurrent else 0)

    cdef int open(self, Ref opening, tuple args, dict kwargs) except -1:
        self.constructing = <Method>opening.function
        self.constructing.call = self.cls
        if self.restarts_left:
            self.made_of = (args, kwargs)
        self.station = self.fabric.start_dedicated()
        self.switchboard.stations[self.station] = self
        return Actor.open(self, opening, args, kwargs)

    cdef object bound(self, Method method, str name):
        return None             # it is called elsewhere

    # Sending

    cdef int start(self) except -1:
        cdef Ref call
        if self.sending or self.station == 0:
            return 0            # sending may run Python code, which may make calls
        self.sending = True
        try:
            while self.fabric.sent[self.station] < self.window:
                call = self.next()
                if call is None:
                    break
                if not self.send(call):
                    if call is not self.opening:
                        self.queue.appendleft(call)
                    break
        finally:
            self.sending = False
        return 0

    cdef int send(self, Ref call) except -1:
        """Send a call, or end it with the error that sending it gave; 0: no room."""
        cdef Engine engine = self.engine
        cdef tuple args = call.args
        cdef dict kwargs = call.kwargs
        cdef bint sent
        call.state = READY
        self.fabric.outstanding += 1
        try:
            sent = self.fabric.send_task(
                self.station, SRDS_ACTOR if call is self.opening else SRDS_CALL, call)
        except UnfinishedReferences as unfinished:
            self.fabric.outstanding -= 1
            call.state = WAITING
            self.hold(call, unfinished.references)
            return 1
        except Exception as error:
            self.fabric.outstanding -= 1
            if call.state == READY:
                call.state = ENDING
                engine.fail(call, error)
            return 1
        if not sent:
            self.fabric.outstanding -= 1
            if call.state == READY:
                call.state = WAITING
            return 0
        if self.concurrent and call.slot:
            # It is taken from the ring at once, whose room then holds something else.
            self.fabric.entry(call.slot).message = NULL
        if self.fabric.dozing:
            self.fabric.call_attendant()
        if self.options.checkpoint_every and call is not self.opening:
            self.note_sent(call, args, kwargs)
        return 1

    cdef int note_sent(self, Ref call, tuple args, dict kwargs) except -1:
        """Have a checkpoint made when it is time, and remember the calls since the last."""
        if self.is_internal(call):
            return 0
        if self.options.retry_calls:
            self.log.append((call, call.function, args, kwargs))
        self.unsaved += 1
        if self.unsaved >= <size_t>self.options.checkpoint_every:
            self.unsaved = 0
            saving = self.internal_call("checkpoint", (), None)
            self.checkpoints[saving] = self.logged + len(self.log)
            self.queue.appendleft(saving)
        return 0

    cdef bint began(self, Ref call) except -1:
        """Whether the actor's process had begun with a call, as far as is known here."""
        cdef Entry *entry = self.fabric.entry(call.slot)
        if entry == NULL or entry.message == NULL:
            return entry != NULL and self.concurrent
        return srds_load32(&entry.message.claim) == 1 + <uint32_t>self.station

    cdef list begun(self):
        cdef list calls = []
        cdef uint32_t index = self.fabric.first[self.station] if self.station else 0
        while index:
            calls.append(<Ref>self.fabric.entries[index].task)
            index = self.fabric.entries[index].after
        return calls

    cdef bint interrupt(self, Ref call) except -1:
        if not self.concurrent or not call.slot or not self.station:
            return False
        self.fabric.send_message(self.station, SRDS_CANCEL, call.slot, 0, NULL, 0)
        return True

    cdef int returned(self, Ref call) except -1:
        return self.start() if self.queue else 0

    # Crashes

    cdef int crashed(self) except -1:
        cdef Ref call
        self.station = 0
        self.checkpoints.clear()
        self.restoring = None
        self.returned_calls = 0
        if self.failure is not None or (self.closing and self.pending == 0):
            return self.gone() if self.pending == 0 else 0
        if self.restarts_left == 0:
            return self.die("died with its process")
        self.restarts_left -= 1
        self.attempt += self.attempt < 255
        _log.warning("the process of %s died; it is made again", self.described)
        queued = list(self.queue)
        self.queue.clear()
        self.queue.extend([call for call in queued if not self.is_internal(call)])
        for call in queued:
            if call.state < ENDING and self.is_internal(call):
                call.state = ENDING     # what the last restart had not done yet
                self.engine.fail(call, died(self, "died with its process", False))
        if not self.options.retry_calls:
            self.fail_queued("died with its process")
        try:
            self.station = self.fabric.start_dedicated()
        except KernelError as error:
            return self.die(f"died with its process, and no other could be started ({error})")
        self.switchboard.stations[self.station] = self
        return self.construct_again()

    cdef int lost(self, Ref call, bint begun) except -1:
        if call is self.opening or call.state >= ENDING:
            return 0
        if self.is_internal(call):
            call.state = ENDING
            return self.engine.fail(call, died(self, "died with its process", begun))
        if self.failure is None and self.options.retry_calls:
            call.state = WAITING
            call.attempt += begun and call.attempt < 255
            self.queue.insert(self.returned_calls, call)
            self.returned_calls += 1
            return 0
        call.state = ENDING
        begun = begun or self.concurrent
        return self.engine.fail(call, died(self, "died with its process", begun))

    cdef int fail_queued(self, str reason) except -1:
        cdef Ref call
        calls = list(self.queue)
        self.queue.clear()
        for call in calls:
            if call.state < ENDING:
                call.state = ENDING
                self.engine.fail(call, died(self, reason, False))
        return 0

    cdef int construct_again(self) except -1:
        cdef Ref opening = self.opening
        cdef Ref call
        if opening is None:
            opening = Ref.__new__(Ref)
            opening.kernel = self.engine
            opening.function = self.constructing
            opening.id = self.id
            opening.parent = self.owner
            opening.scope = self.scope
            opening.args = self.made_of[0]
            opening.kwargs = self.made_of[1] or None
            opening.place = PROCESS
            self.pending += 1
            self.engine.remote_left += 1
            self.opening = opening
        opening.state = WAITING
        opening.attempt = self.attempt
        again = []
        if self.has_state:
            self.restoring = self.internal_call("restore", (self.state,), None)
            again.append(self.restoring)
        log = self.log
        self.log = []
        for call, method, args, kwargs in log:
            # Unanswered ones come back by ``lost``, unless they were being run again already; what
            # was given up is not done again.
            if self.is_internal(call) or call.state >= DONE and not call.interrupted:
                once_more = self.internal_call((<Method>method).key, args, kwargs)
                again.append(once_more)
                self.log.append((once_more, method, args, kwargs))
        self.unsaved = len(self.log)
        self.queue.extendleft(reversed(again))
        self.returned_calls = len(again)
        return self.start()

    cdef Ref internal_call(self, str name, tuple args, dict kwargs):
        """A call that nobody made, to be queued; the actor itself is its parent."""
        cdef Ref call = Ref.__new__(Ref)
        cdef Method method = self.method(name)
        call.kernel = self.engine
        call.function = method
        call.parent = self.id
        call.id = mix(self.id, self.internal, method.hash)
        call.scope = self.scope
        call.args = args
        call.kwargs = kwargs
        call.place = PROCESS
        self.internal += 1
        self.pending += 1
        self.engine.remote_left += 1
        return call

    cdef bint is_internal(self, Ref call) noexcept:
        return call.parent.hi == self.id.hi and call.parent.lo == self.id.lo

    cdef int ended(self, Ref call) except -1:
        if self.checkpoints and call in self.checkpoints:
            self.saved(call)
        elif call is self.restoring:
            self.restoring = None
            if call.state == FAILED and self.failure is None:
                # There is no state to go on with: what restore raised is every call's answer.
                self.failure = call.result
                self.fail_all(None)
        return Actor.ended(self, call)

    cdef int saved(self, Ref call) except -1:
        """A checkpoint has been answered."""
        before = self.checkpoints.pop(call)
        if call.state == DONE:
            self.state = unwrap(call)
            self.has_state = True
            del self.log[:before - self.logged]
            self.logged = before
        else:
            _log.warning("%s has no checkpoint: %s", self.described, call.result[0])
        return 0

    # Ends

    cdef int die(self, str reason) except -1:
        cdef int station = self.station
        Actor.die(self, reason)
        if station:
            self.switchboard.stations.pop(station, None)
            self.station = 0
            self.fabric.stop_station(station)
            self.fabric.kill_station(station)
        return 0

    cdef int finish(self) except -1:
        cdef int station = self.station
        if station:
            self.station = 0
            self.switchboard.stations.pop(station, None)
            self.fabric.stop_station(station)
        return self.gone()

    cdef int gone(self) except -1:
        self.made_of = self.state = None
        self.log = []
        return Actor.gone(self)
