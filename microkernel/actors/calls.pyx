"""Making a call of an actor, and what becomes of it in a recorded decision.

An actor has a past that a decision does not know. Where the actor was spawned outside the decision,
what it answers is therefore an input, of kind "actor": the decision's own task is the promise of
that answer, kept in the journal when it comes; behind it an unrecorded call does the work. In a
replay the answer is taken from the record and nobody is called.

An actor that the recorded decision spawned itself belongs to it. Its calls are tasks of the
decision, whose inputs are recorded, and a replay runs them again.
"""
from libc.stdint cimport int64_t

from microkernel.actors.actor cimport Actor
from microkernel.engine cimport Engine
from microkernel.ids cimport mix, name_hash
from microkernel.mailbox cimport Mailbox, Method
from microkernel.pending cimport monotonic_ns
from microkernel.scheduler cimport cancelled_error, unwrap
from microkernel.task cimport DONE, ENDING, INLINE, PROCESS, READY, WAITING, Boundary, Ref, current

from microkernel.actors.options import ActorOptions
from microkernel.errors import KernelError


cdef Ref make_call(Actor actor, Method method, tuple args, dict kwargs, object options):
    """``method(*args, **kwargs)`` of the actor, when its turn comes."""
    cdef Engine engine = actor.engine
    cdef Ref task
    engine.check_open()
    if actor.most_pending and actor.pending >= actor.most_pending:
        actor.make_room()
    task = engine.new_task(method)
    if task.scope is not None:
        if task.scope is actor.scope:
            check_caller(actor, task)
        elif task.scope.replayed:
            return answered_by_record(actor, method, task, args, kwargs, options)
        elif task.scope.recorded:
            return answered_for_record(actor, method, task, args, kwargs, options)
        task.scope.children.append(task)
        if task.scope is not actor.scope:
            task.scope = None       # what the actor reads is not read by the decision
    return actor.submit(task, args, kwargs, options)


cdef int check_caller(Actor actor, Ref task) except -1:
    """The order of the calls of a decision's own actor must follow from the decision alone."""
    if not (task.scope.recorded or task.scope.replayed):
        return 0
    if task.parent.hi == actor.owner.hi and task.parent.lo == actor.owner.lo:
        return 0
    raise KernelError(
        f"{actor.described} is called by another task of the decision than the one that spawned it",
        what=task.function.name, expected="calls of the task that spawned it, whose order a replay "
        "can repeat", remedy="call it from there, or spawn it outside the decision, whose record "
        "then keeps what it answers")


cdef Ref answered_for_record(Actor actor, Method method, Ref task, tuple args, dict kwargs,
                             object options):
    """Make ``task`` the promise of what an unrecorded call answers."""
    cdef Engine engine = actor.engine
    cdef Ref call = Ref.__new__(Ref)
    cdef RecordedCall mailbox = RecordedCall.__new__(RecordedCall)
    cdef Answer answer = Answer.__new__(Answer)
    call.kernel = engine
    call.function = method
    call.parent = task.id
    call.id = mix(task.id, 0, method.hash)
    mailbox.engine = engine
    mailbox.call = call
    task.function = renamed(method, mailbox)
    task.place = INLINE
    task.args = (call,)
    task.missing = 1
    task.scope.children.append(task)
    answer.engine = engine
    answer.task = task
    answer.call = call
    answer.source = actor.source
    answer.key = method.key
    if engine.on_submitted is not None:
        engine.tell(engine.on_submitted, (task,))
    call.waiters = [answer]
    if actor.place == PROCESS:
        engine.remote.attend(1)
    actor.submit(call, args, kwargs, None)
    if options is not None and options.deadline is not None and task.state == WAITING:
        engine.set_deadline(task, monotonic_ns() + <int64_t>(options.deadline * 1e9))
    return task


cdef Ref answered_by_record(Actor actor, Method method, Ref task, tuple args, dict kwargs,
                            object options):
    """Make ``task`` an inline task that takes its answer from the record; what the record does not
    hold goes by the replay's policy, and is asked for only if the result is."""
    cdef Engine engine = actor.engine
    cdef RecordedCall mailbox = RecordedCall.__new__(RecordedCall)
    cdef Reading reading = Reading.__new__(Reading)
    cdef Method function = renamed(method, mailbox)
    mailbox.engine = engine
    reading.actor = actor
    reading.method = method
    reading.args = args
    reading.kwargs = kwargs
    reading.options = options
    function.call = reading
    task.function = function
    task.place = INLINE
    task.args = ()
    task.scope.children.append(task)
    if engine.on_submitted is not None:
        engine.tell(engine.on_submitted, (task,))
    if options is None or options.deadline is None or not engine.missed_in_record(task):
        mailbox.ready(task)
    return task


cdef Method renamed(Method method, Mailbox mailbox):
    """The same method to whoever looks at the task, in the hands of another mailbox."""
    cdef Method other = Method.__new__(Method)
    other.name = method.name
    other.key = method.key
    other.hash = method.hash
    other.code = method.code
    other.opening = method.opening
    other.mailbox = mailbox
    return other


cdef class RecordedCall(Mailbox):
    """Of a recorded decision's task: ``call`` is the unrecorded one that answers it."""

    cdef int ready(self, Ref task) except -1:
        task.state = READY
        self.engine.inline_queue.push(task)
        if self.engine.callers:
            self.engine.wake_caller()
        return 0

    cdef int ended(self, Ref task) except -1:
        # Cancelled, or too late: then nobody waits for the answer.
        if self.call is not None and self.call.state < ENDING:
            self.engine.give_up(self.call, cancelled_error(self.call))
        return 0


cdef class Reading:
    """In a replay, the function of the task that stands for a call."""

    def __call__(self):
        cdef Ref task = current()
        return task.scope.boundary.exchange(
            task, "actor", self.actor.source, self.method.key, self.ask)

    def ask(self):
        """The answer of the actor of now."""
        cdef Ref call = make_call(self.actor, self.method, self.args, self.kwargs, self.options)
        self.actor.engine.finish(call, 0)
        return unwrap(call)


cdef class Answer:
    """Called when the unrecorded call has ended: keeps what it answered and ends the task."""

    def __call__(self):
        cdef Ref task = self.task
        cdef Ref call = self.call
        cdef Boundary boundary
        if task.state != WAITING:
            return
        task.state = ENDING
        boundary = task.scope.boundary
        try:
            if call.state == DONE:
                boundary.keep(task, "actor", self.source, self.key, unwrap(call))
            else:
                self.keep_error(boundary, task, call.result[0])
        except Exception as unrecordable:
            self.engine.fail(task, unrecordable)
            return
        self.engine.complete(task, call.state, call.result)

    def keep_error(self, Boundary boundary, Ref task, error):
        def answer():
            raise error
        try:
            boundary.exchange(task, "actor", self.source, self.key, answer)
        except BaseException as raised:
            if raised is not error:
                raise


cdef class AbsentActor(Actor):
    """In a replay, a named actor that lived when the decision was recorded and does not now: its
    answers are in the record, and that is all there is of it."""

    def __init__(self, Engine engine not None, str class_name not None, str name not None):
        super().__init__(engine, AbsentActor, ActorOptions(), None, None)
        self.class_name = class_name
        self.source = f"{class_name} {name}"
        self.described = f"{class_name.rpartition(':')[2]} {name!r}"
        self.place = INLINE
        self.kept = self.over = True
        self.failure = (KernelError(
            f"no actor is named {name!r} now, and the record has no such call", what=name,
            expected="a call that was recorded", remedy="spawn the actor before replaying"), None)

    cdef Method method(self, str name):
        cdef Method method = self.methods.get(name)
        if method is None:
            method = Method(len)
            method.call = None
            method.name = f"{self.class_name}.{name}"
            method.key = name
            method.hash = name_hash(method.name)
            method.mailbox = self
            self.methods[name] = method
        return method

    cdef int finish(self) except -1:
        return 0
