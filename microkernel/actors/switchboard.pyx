"""Calls from one process to an actor that another one has.

A reference that is sent to a worker becomes a ``DistantActor`` there: its calls go to the driver,
as messages like those of tasks, with the actor's id before the arguments. The driver's
``Switchboard`` makes the call in the caller's name and answers it; whatever the driver can do with
an actor (restart it, find it by name, keep its calls in order) so holds for calls from anywhere.
"""
import time

from libc.stdint cimport uint32_t

from microkernel.actors.actor cimport Actor
from microkernel.actors.host cimport Reply
from microkernel.actors.reference cimport reference_to
from microkernel.engine cimport Engine
from microkernel.pending cimport monotonic_ns
from microkernel.processes.station cimport (
    SRDS_CALL,
    SRDS_ERROR,
    SRDS_OK,
    Handler,
    Station,
    srds_message,
    srds_task,
)
from microkernel.task cimport ENDING, PROCESS, READY, WAITING, Ref

from microkernel.actors.options import ActorOptions, method_names
from microkernel.errors import ActorBusy, ActorDied, KernelError
from microkernel.processes.pickling import UnfinishedReferences

cdef enum:
    NUMBERS = 0xffffff          # the part of a method's number that is one
    PATIENCE_US = 50            # between looks at a full ring


class Names:
    """What the driver answers about its actors."""

    def find(self, name):
        """The actor of this name."""


cdef class Switchboard(Handler):
    """In the driver: connects callers and actors, and tells actors that their process has ended."""

    def __cinit__(self):
        self.stations = {}

    cdef int station_ended(self, int station) except -1:
        actor = self.stations.pop(station, None)
        if actor is not None:
            (<Actor>actor).crashed()
        return 0

    cdef int message(self, int sender, srds_message *message) except -1:
        try:
            self.connect(sender, <srds_task *>message)
        except Exception as error:
            self.station.answer(sender, message.slot, SRDS_ERROR, error, monotonic_ns(),
                                monotonic_ns())
        return 0

    cdef int connect(self, int sender, srds_task *message) except -1:
        cdef Engine engine = self.station.engine
        cdef Reply reply = Reply.__new__(Reply)
        cdef Ref call = Ref.__new__(Ref)
        cdef Actor actor
        cdef int number = message.function & NUMBERS
        cdef uint32_t slot = message.slot
        call.id.hi = message.id_hi
        call.id.lo = message.id_lo
        call.parent.hi = message.parent_hi
        call.parent.lo = message.parent_lo
        _, args, kwargs, _ = self.station.read_arguments(message)
        key = args[0]
        if not key:
            found = reference_to(self.actors.named_outside(args[1]))
            return self.station.answer(sender, slot, SRDS_OK, found, monotonic_ns(),
                                       monotonic_ns())
        found = self.actors.known.get(key)
        if found is None:
            raise ActorDied("the actor has ended", what="actor", expected="an actor that lives",
                            remedy="spawn another one")
        actor = <Actor>found
        if actor.scope is not None and actor.scope.recorded:
            raise KernelError(f"{actor.described} is called by another task of the decision than "
                              "the one that spawned it", what=actor.described,
                              expected="calls of the task that spawned it",
                              remedy="spawn it outside the decision")
        if actor.most_pending and actor.pending >= actor.most_pending:
            raise ActorBusy(f"{actor.described} has {actor.pending} calls that have not ended",
                            what=actor.described, expected=f"fewer than {actor.most_pending}",
                            remedy="wait for earlier calls before making more")
        call.kernel = engine
        call.function = actor.method(method_names(actor.cls)[number - 1])
        reply.station = self.station
        reply.call = call
        reply.to = sender
        reply.slot = slot
        reply.begun_ns = monotonic_ns()
        call.waiters = [reply]
        if actor.place == PROCESS:
            engine.remote.attend(1)
        actor.submit(call, args[1:], kwargs or {}, None)
        return 0


cdef Switchboard switchboard_of(Station station):
    """The one of a driver's station."""
    cdef Switchboard switchboard
    if station.handlers[SRDS_CALL] is None:
        switchboard = Switchboard.__new__(Switchboard)
        switchboard.station = station
        station.handle(SRDS_CALL, switchboard)
    return <Switchboard>station.handlers[SRDS_CALL]


def connect(Engine engine not None, Actors actors not None):
    """Be ready for calls from other processes."""
    if engine.remote is not None and not engine.remote.lends:
        switchboard_of(<Station>engine.remote).actors = actors


cdef class DistantActor(Actor):
    """In a worker: an actor of the driver's, or one that the driver knows."""

    def __init__(self, Engine engine not None, cls, bytes key not None, str described, str source):
        super().__init__(engine, cls, ActorOptions(), None, None)
        self.key = key
        self.described = described
        self.source = source
        self.kept = True
        self.place = PROCESS
        for number, name in enumerate(method_names(cls)):
            self.method(name).number = number + 1

    cdef bytes sent_away(self):
        return self.key

    cdef int start(self) except -1:
        cdef Ref call
        if self.sending:
            return 0            # sending may run Python code, which may make calls
        self.sending = True
        try:
            while True:
                call = self.next()
                if call is None:
                    return 0
                self.send(call)
        finally:
            self.sending = False

    cdef int send(self, Ref call) except -1:
        cdef Station station = <Station>self.engine.remote
        cdef tuple args = call.args
        call.args = (self.key, *args)
        call.state = READY
        station.outstanding += 1
        try:
            while not station.send_task(0, SRDS_CALL, call):
                station.poll()
                time.sleep(PATIENCE_US / 1e6)
        except UnfinishedReferences as unfinished:
            station.outstanding -= 1
            call.args = args
            call.state = WAITING
            self.hold(call, unfinished.references)
        except Exception as error:
            station.outstanding -= 1
            if call.state == READY:
                call.state = ENDING
                self.engine.fail(call, error)
        return 0

    cdef int finish(self) except -1:
        return 0
