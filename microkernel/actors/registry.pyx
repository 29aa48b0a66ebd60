"""The actors of a kernel: making them, finding them by name, ending them."""
import logging

from libc.stdint cimport int64_t

from microkernel.actors.actor cimport Actor
from microkernel.actors.calls cimport AbsentActor
from microkernel.actors.inline cimport InlineActor
from microkernel.actors.reference cimport ActorRef, reference_to
from microkernel.actors.threads cimport CoroutineActor, ThreadActor
from microkernel.engine cimport Engine
from microkernel.ids cimport id_to_bytes
from microkernel.mailbox cimport Method
from microkernel.pending cimport monotonic_ns
from microkernel.task cimport INLINE, PROCESS, THREAD, DecisionScope, Ref, current, watched

from microkernel.actors.options import MOST_COROUTINES, ActorOptions, has_async_methods
from microkernel.errors import ActorDied, KernelError

cdef enum:
    GRACE_SECONDS = 5           # that actors which were told to stop are waited for at closing

cdef object _log = logging.getLogger("microkernel")
cdef object _default = ActorOptions()


cdef class Actors:
    """What ``Kernel.spawn``, ``Kernel.actor`` and ``Kernel.stop`` do."""

    def __cinit__(self, Engine engine not None):
        self.engine = engine
        self.live = set()
        self.named = {}
        self.known = {}

    cdef ActorRef spawn(self, object cls, tuple args, dict kwargs, object options):
        cdef Ref opening
        cdef Method constructing
        cdef Actor actor
        self.engine.check_open()
        if not isinstance(cls, type):
            raise KernelError(f"{cls!r} is no class", what="spawn", expected="a class",
                              remedy="spawn(Class, *arguments)")
        if options is None:
            options = _default
        constructing = Method(cls)
        opening = self.engine.new_task(constructing)
        key = (opening.scope, options.name)
        if options.name is not None and key in self.named:
            raise KernelError(f"an actor named {options.name!r} lives already", what=options.name,
                              expected="a name that no other actor has",
                              remedy="stop the other one first, or find it with Kernel.actor")
        actor = self.make(opening, cls, options)
        constructing.mailbox = actor
        constructing.call = actor.construct
        self.live.add(actor)
        self.known[id_to_bytes(opening.id)] = actor
        if options.name is not None:
            self.named[key] = actor
        reference = reference_to(actor)
        try:
            actor.open(opening, args, kwargs)
        except BaseException:
            self.ended(actor)       # before it began: a reference of another kernel, a failed hook
            actor.kept = True
            raise
        return reference

    cdef Actor make(self, Ref opening, object cls, object options):
        """An actor of the class for its placement: a thread where a process of its own cannot be,
        in a worker and in a recorded decision, whose record this process keeps."""
        cdef unsigned char place = self.engine.place
        cdef bint is_async = has_async_methods(cls)
        concurrency = options.concurrency or (MOST_COROUTINES if is_async else 1)
        about = (self.engine, cls, options, options.name, self.ended)
        if options.placement is not None:
            place = place_of(options.placement)
        if opening.scope is not None and opening.scope.replayed:
            place = INLINE          # a replay needs no other thread
        elif opening.scope is not None and opening.scope.recorded and not is_async:
            concurrency = 1         # nobody records how calls of several threads interleave
        if place == INLINE:
            return InlineActor(*about)
        if place == PROCESS and not (opening.scope is not None and opening.scope.recorded):
            if self.engine.remote is None:
                self.engine.remote = self.engine.open_remote()
            if not self.engine.remote.lends:
                from microkernel.actors.process import ProcessActor

                return ProcessActor(*about, fabric=self.engine.remote, concurrency=concurrency,
                                    is_async=is_async)
        if is_async:
            return CoroutineActor(*about, concurrency=concurrency)
        return ThreadActor(*about, concurrency=concurrency)

    cdef ActorRef find(self, str name):
        """The actor of this name. In a recorded decision that there is one is an input."""
        cdef Ref task = current()
        if task is not None and task.scope is not None:
            actor = self.named.get((task.scope, name))
            if actor is not None:
                return reference_to(<Actor>actor)
        task = watched()
        if task is None:
            return reference_to(self.named_outside(name))
        return self._find_from_decision(task, name)

    cdef Actor named_outside(self, str name):
        actor = self.named.get((None, name))
        if actor is None and self.engine.remote is not None and self.engine.remote.lends:
            return self.named_in_driver(name).actor
        if actor is None:
            raise KernelError(f"no actor is named {name!r}", what=name,
                              expected=", ".join(sorted(self.names())) or "the name of an actor",
                              remedy="spawn it with options=ActorOptions(name=...)")
        return <Actor>actor

    def _find_from_decision(self, Ref task not None, str name not None):
        found = []

        def class_name():
            found.append(self.named_outside(name))
            return (<Actor>found[0]).class_name

        described = task.scope.boundary.exchange(task, "actor", "kernel", name, class_name)
        actor = found[0] if found else self.named.get((None, name))
        if actor is None:
            actor = AbsentActor(self.engine, described, name)
        return reference_to(<Actor>actor)

    cdef ActorRef named_in_driver(self, str name):
        """From a worker: the driver is asked."""
        if self.driver is None:
            from microkernel.actors.switchboard import DistantActor, Names

            self.driver = DistantActor(self.engine, Names, b"", "the driver", "")
        asking = reference_to(self.driver)
        return self.engine.get(asking.find(name))

    def refer(self, bytes key not None, cls, str described not None, str source not None):
        """The actor of this id, as a reference that was sent here names it."""
        actor = self.known.get(key)
        if actor is None:
            if self.engine.remote is None or not self.engine.remote.lends:
                raise ActorDied(f"{described} has ended", what=described,
                                expected="an actor that lives", remedy="spawn another one")
            from microkernel.actors.switchboard import DistantActor

            actor = self.known[key] = DistantActor(self.engine, cls, key, described, source)
        return reference_to(<Actor>actor)

    def names(self):
        """The names of the actors that do not belong to a decision."""
        return [name for scope, name in self.named if scope is None]

    cdef int stop(self, ActorRef reference, bint now) except -1:
        cdef Actor actor = reference.actor
        if actor.engine is not self.engine:
            raise KernelError(f"{actor.described} is an actor of another kernel", what="stop",
                              expected="an actor of this kernel", remedy="stop it there")
        self.unname(actor)
        return actor.stop(now)

    cdef int unname(self, Actor actor) except -1:
        key = (actor.scope, actor.options.name)
        if self.named.get(key) is actor:
            del self.named[key]
        return 0

    def ended(self, Actor actor not None):
        """Called by an actor when it has let go of everything."""
        self.live.discard(actor)
        self.known.pop(id_to_bytes(actor.id), None)
        self.unname(actor)

    cdef int end_of(self, DecisionScope scope) except -1:
        """End the actors of a decision with it."""
        for actor in [actor for actor in self.live if (<Actor>actor).scope is scope]:
            self.unname(<Actor>actor)
            (<Actor>actor).stop(False)
        return 0

    cdef int close(self, bint cancelled) except -1:
        """End all actors and wait for their threads, for a bounded time where they are cancelled
        or do not return."""
        cdef Actor actor
        cdef int64_t until = monotonic_ns() + <int64_t>GRACE_SECONDS * 1000000000
        cdef list threads = []
        for actor in list(self.live):
            if isinstance(actor, ThreadActor):
                threads.extend((thread, actor) for thread in (<ThreadActor>actor).threads)
            if cancelled:
                actor.die("was stopped with its kernel")
            else:
                actor.stop(False)
        for thread, actor in threads:
            thread.join(max(0.0, (until - monotonic_ns()) / 1e9))
            if thread.is_alive():
                _log.warning("%s does not stop; its thread is left behind", actor.described)
        return 0


cdef unsigned char place_of(str placement):
    if placement == "inline":
        return INLINE
    return THREAD if placement == "thread" else PROCESS
