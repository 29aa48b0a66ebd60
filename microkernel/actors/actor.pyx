"""An actor: an object whose methods are called by tasks, in order.

A call is a task: it has an id, which derives from its caller and the number of the call, waits for
the references among its arguments, and ends with a result that is a ``Ref`` like any other. What an
actor adds is the order. The calls of one caller run in the order in which they were made, so a call
whose argument is not there yet holds up the later ones of its caller; other callers pass it, for
the argument may come of their calls. The queue is the actor's alone: what is at its front is begun
by ``start``, which each placement implements.

Modelled on Ray's actors; an exception of a method goes to its caller and the actor lives on.
"""
import sys
from collections import deque

from libc.stdint cimport int64_t

from microkernel.engine cimport Engine
from microkernel.ids cimport id_to_bytes, name_hash
from microkernel.mailbox cimport Mailbox, Method
from microkernel.pending cimport Pending, monotonic_ns
from microkernel.task cimport (
    DONE,
    ENDING,
    FAILED,
    PROCESS,
    RUNNING,
    THREAD,
    WAITING,
    Ref,
    thread_ident,
)
from microkernel.tracing cimport trace

from microkernel.errors import ActorBusy, ActorDied, KernelError, NotOverridden


cdef class Actor(Mailbox):
    """Order, ends and limits of an actor's calls; each placement adds where they run."""

    def __init__(self, Engine engine not None, cls, options, str name, end):
        self.engine = engine
        self.cls = cls
        self.options = options
        self.class_name = f"{cls.__module__}:{cls.__qualname__}"
        self.described = cls.__qualname__ if name is None else f"{cls.__qualname__} {name!r}"
        self.source = self.class_name if name is None else f"{self.class_name} {name}"
        self.end = end
        self.methods = {}
        self.queue = deque()
        self.held = {}
        self.running = []
        self.most_pending = options.max_pending
        self.kept = name is not None

    # Making it

    cdef int open(self, Ref opening, tuple args, dict kwargs) except -1:
        """Construct it by the task ``opening``, which comes before every call."""
        self.id = opening.id
        self.owner = opening.parent
        self.scope = opening.scope
        self.opening = opening
        if self.scope is not None:
            self.scope.children.append(opening)
        self.submit(opening, args, kwargs, None)
        return 0

    def construct(self, /, *args, **kwargs):
        """What the opening task calls."""
        self.instance = self.cls(*args, **kwargs)

    cdef Method method(self, str name):
        """The method of this name, as the function of its calls."""
        cdef Method method = self.methods.get(name)
        if method is not None:
            return method
        function = None if name[0] == "_" else getattr(self.cls, name, None)
        if not callable(function):
            raise AttributeError(f"{self.described} has no method {name!r}; an actor is reached "
                                 "by its public methods only")
        method = Method(function)
        method.name = f"{self.class_name}.{name}"
        method.key = name
        method.hash = name_hash(method.name)
        method.mailbox = self
        method.call = None if self.instance is None else self.bound(method, name)
        self.methods[name] = method
        return method

    cdef object bound(self, Method method, str name):
        """What a call of the method calls."""
        return getattr(self.instance, name)

    # Calls

    cdef Ref submit(self, Ref task, tuple args, dict kwargs, object options):
        """Hand the call in: ``Scheduler.submit_task`` for one whose turn the actor decides."""
        cdef Engine engine = self.engine
        cdef bint references = False
        for argument in args:
            if type(argument) is Ref:
                engine.check_ours(<Ref>argument)
                references = True
        if kwargs:
            for argument in kwargs.values():
                if type(argument) is Ref:
                    engine.check_ours(<Ref>argument)
                    references = True
        task.args = args
        task.kwargs = kwargs if kwargs else None
        task.options = options
        task.place = self.place
        task.thread = thread_ident()
        trace.submitted(engine.ring, task)
        if engine.on_submitted is not None:
            engine.tell(engine.on_submitted, (task,))
        self.pending += 1
        if task.place == THREAD:
            engine.threads_left += 1
        elif task.place == PROCESS:
            engine.remote_left += 1
        if options is not None and options.deadline is not None:
            if task.scope is None or not task.scope.replayed:
                engine.set_deadline(task, monotonic_ns() + <int64_t>(options.deadline * 1e9))
            elif engine.missed_in_record(task):
                return task
        if references:
            for argument in args:
                if type(argument) is Ref:
                    engine.depend(task, <Ref>argument)
            if task.kwargs is not None:
                for argument in kwargs.values():
                    if type(argument) is Ref:
                        engine.depend(task, <Ref>argument)
        if task.state == WAITING:
            self.hand_in(task)
        return task

    cdef int hand_in(self, Ref task) except -1:
        """Take a call that was just made, or fail it where the actor has ended."""
        if self.failure is not None:
            task.state = ENDING
            return self.engine.complete(task, FAILED, self.failure)
        if self.closing:
            task.state = ENDING
            return self.engine.fail(task, died(self, "is being stopped", False))
        return self.start() if task is self.opening else self.admit(task)

    cdef int make_room(self) except -1:
        """Wait until fewer calls are pending, running what is inline meanwhile."""
        cdef Ref call
        cdef list waiting
        try:
            # Where nobody has imported it, no loop runs.
            sys.modules["asyncio"].get_running_loop()
        except (KeyError, RuntimeError):
            pass
        else:
            raise ActorBusy(f"{self.described} has {self.pending} calls that have not ended",
                            what=self.described, expected=f"fewer than {self.most_pending}",
                            remedy="await earlier calls before making more")
        if self.runs_here():
            raise ActorBusy(f"{self.described} calls itself and has {self.pending} calls that "
                            "have not ended", what=self.described,
                            expected=f"fewer than {self.most_pending}",
                            remedy="call the method of self directly")
        while self.pending >= self.most_pending and self.failure is None:
            waiting = [call for call in self.queue if call.state < ENDING]
            if waiting:
                # Not the first but one further back: who makes room sleeps once for many calls.
                call = <Ref>waiting[len(waiting) // 4]
            elif self.opening is not None:
                call = self.opening
            elif self.running:
                call = <Ref>self.running[0]
            else:
                call = <Ref>next(iter(self.held.values()))[0]
            self.engine.block(Pending([call]), 1, 0, False)
        return 0

    cdef bint runs_here(self) except -1:
        """Whether the calling thread is in the middle of a call of this actor."""
        cdef Ref call
        for call in self.running:
            if call.state == RUNNING and call.thread == thread_ident():
                return True
        return False

    # Order

    cdef int admit(self, Ref call) except -1:
        """Put a call that was just made where its turn will come."""
        if call.missing or self.held:
            caller = caller_of(call)
            line = self.held.get(caller)
            if line is not None:
                call.missing += 1       # its turn is one more thing that it waits for
                line.append(call)
                return 0
            if call.missing:
                self.held[caller] = deque((call,))
                return 0
        self.queue.append(call)
        return self.start()

    cdef int ready(self, Ref call) except -1:
        if call is self.opening:
            return self.start()
        return self.release(caller_of(call))

    cdef int release(self, tuple caller) except -1:
        """Queue the calls of a caller up to the next one that waits for an argument."""
        cdef Ref call
        line = self.held.get(caller)
        if line is None:
            return 0
        while line:
            call = <Ref>line[0]
            if call.state == WAITING and call.missing:
                break
            line.popleft()
            if call.state == WAITING:
                self.queue.append(call)
            if line:
                (<Ref>line[0]).missing -= 1
        if not line:
            del self.held[caller]
        return self.start()

    cdef int hold(self, Ref call, list references) except -1:
        """References inside its arguments: it waits for them as for those given as such, and the
        later calls of its caller wait behind it."""
        cdef Ref other
        caller = caller_of(call)
        line = deque((call,))
        passing = []
        for other in self.queue:
            if caller_of(other) == caller:
                other.missing += 1
                line.append(other)
            else:
                passing.append(other)
        for other in self.held.get(caller, ()):
            if other is (<object>self.held[caller])[0]:
                other.missing += 1
            line.append(other)
        self.held[caller] = line
        self.queue.clear()
        self.queue.extend(passing)
        call.missing += 1
        for reference in references:
            self.engine.depend(call, <Ref>reference)
        call.missing -= 1
        return self.release(caller) if call.missing == 0 else 0

    cdef Ref next(self):
        """The next call to run, taken from the queue; None when there is none at the moment."""
        cdef Ref call = self.opening
        if call is not None:
            return call if call.state == WAITING and call.missing == 0 else None
        while self.queue:
            call = <Ref>self.queue.popleft()
            if call.state == WAITING:
                return call
        return None

    cdef Ref before(self, Ref call):
        cdef Ref first = None
        if self.opening is not None and call is not self.opening:
            first = self.opening
        elif call.missing:
            line = self.held.get(caller_of(call))
            if line is not None and line[0] is not call:
                first = <Ref>line[0]
        return first if first is not None and first.state < ENDING else None

    cdef int awaited(self, Ref call) except -1:
        if self.one_by_one and self.runs_here():
            raise KernelError(f"{self.described} waits for its own {call.function.name}, which "
                              "cannot begin before", what=call.function.name,
                              expected="a wait for something else",
                              remedy="call the method of self directly")
        return 0

    cdef int ended(self, Ref call) except -1:
        self.pending -= 1
        if call is self.opening:
            self.opening = None
            if call.state == DONE:
                self.opened()
            else:
                # What the constructor raised is the answer to every call.
                self.failure = call.result
                self.fail_all(None)
        elif self.held:
            self.release(caller_of(call))
        if self.pending == 0 and (self.closing or self.failure is not None):
            self.finish()
        return 0

    cdef int opened(self) except -1:
        """The constructor has returned."""
        cdef Method method
        for name, method in self.methods.items():
            method.call = self.bound(method, name)
        return self.start()

    cdef int start(self) except -1:
        """Begin what may begin."""
        raise NotOverridden

    # Ends

    cdef int stop(self, bint now) except -1:
        """Take no more calls; ``now``: nor finish those that were made."""
        if now:
            self.die("was stopped")
        elif self.failure is None:
            self.closing = True
            if self.pending == 0:
                self.finish()
        return 0

    cdef int die(self, str reason) except -1:
        """Everything that was asked of it fails, now and from now on."""
        if self.failure is not None:
            return 0
        self.failure = (died(self, reason, False), None)
        self.fail_all(reason)
        if self.pending == 0:
            self.finish()
        return 0

    cdef list begun(self):
        """The calls that were taken from the queue and have not returned."""
        return list(self.running)

    cdef bint began(self, Ref call) except -1:
        return call.state == RUNNING

    cdef int fail_all(self, str reason) except -1:
        """End every call by ``reason``, or, where that is None, as the constructor ended."""
        cdef list calls = self.begun()
        cdef Ref call
        cdef bint begun
        if self.opening is not None:
            calls.append(self.opening)
        calls.extend(self.queue)
        self.queue.clear()
        for line in self.held.values():
            calls.extend(line)
        self.held.clear()
        for call in calls:
            if call.state >= ENDING:
                continue
            begun = self.began(call)
            if call.state == RUNNING:
                call.state = ENDING
                self.engine.interrupt(call)
            call.state = ENDING
            if reason is None:
                self.engine.complete(call, FAILED, self.failure)
            else:
                self.engine.fail(call, died(self, reason, begun))
        return 0

    cdef bytes sent_away(self):
        """Its id, which leaves this process, so that calls may come from others."""
        from microkernel.actors.switchboard import connect

        connect(self.engine, self.end.__self__)
        return id_to_bytes(self.id)

    cdef int crashed(self) except -1:
        """The actor's process has ended; the calls that it had come back by ``lost``."""
        return 0

    cdef int finish(self) except -1:
        """No call is pending and none will come: let go of everything. May be called again."""
        raise NotOverridden

    cdef int gone(self) except -1:
        """The last thing that happens to an actor."""
        cdef Method method
        if self.over:
            return 0
        self.over = True
        if self.failure is None:
            self.failure = (died(self, "was stopped", False), None)
        for method in self.methods.values():
            method.call = None
        self.instance = None
        if self.end is not None:
            self.end(self)
        return 0


cdef tuple caller_of(Ref call):
    """Whose calls keep their order: a task's, and outside of tasks a thread's.

    ``call.thread`` is the calling thread until the call begins.
    """
    return (call.parent.hi, call.parent.lo, call.thread)


cdef object died(Actor actor, str reason, bint begun):
    what = "after the call had begun" if begun else "before the call had begun"
    return ActorDied(f"{actor.described} {reason} {what}", begun=begun, what=actor.described,
                     expected="an actor that lives", remedy="spawn another one")
