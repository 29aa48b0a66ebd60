"""The handle of an actor that the program holds, and its methods.

``reference.method(*args)`` makes a call and returns its ``Ref``. A reference has no public names of
its own, so that none of the actor's can be hidden by one; what concerns the actor as a whole is
asked of the kernel. An actor without a name ends with the last reference to it.
"""
from microkernel.actors.actor cimport Actor
from microkernel.actors.calls cimport make_call
from microkernel.mailbox cimport Method

from microkernel.errors import KernelError
from microkernel.settings import TaskOptions


cdef class ActorRef:
    """An actor. ``reference.method(*args)`` calls a method and returns the ``Ref`` of its result.

    Made by ``Kernel.spawn`` and ``Kernel.actor``.
    """

    def __init__(self):
        raise KernelError("an ActorRef is made by the kernel", what="ActorRef",
                          expected="kernel.spawn(cls, *args) or kernel.actor(name)",
                          remedy="call one of them")

    def __getattribute__(self, str name not None):
        cdef ActorMethod made
        cdef object method = self.actor.methods.get(name)
        if method is None:
            if name[:1] == "_":
                return object.__getattribute__(self, name)
            method = self.actor.method(name)
        made = ActorMethod.__new__(ActorMethod)
        made.reference = self
        made.method = <Method>method
        return made

    def __dir__(self):
        return [name for name in dir(self.actor.cls) if name[0] != "_"]

    def __eq__(self, other):
        return type(other) is ActorRef and (<ActorRef>other).actor is self.actor

    def __hash__(self):
        return hash(self.actor)

    def __repr__(self):
        return f"<ActorRef {self.actor.described}>"

    def __reduce__(self):
        # Who has it elsewhere is not counted: from here on the actor lives until it is stopped.
        cdef Actor actor = self.actor
        actor.kept = True
        return _referred, (actor.sent_away(), actor.cls, actor.described, actor.source)

    def __del__(self):
        cdef Actor actor = self.actor
        if actor is None:
            return
        actor.references -= 1
        if actor.references == 0 and not actor.kept and not actor.engine.forked():
            actor.stop(False)


def _referred(bytes key not None, cls, str described not None, str source not None):
    """The reference that was pickled, in the process that reads it."""
    from microkernel.kernel import current_kernel

    kernel = current_kernel()
    if kernel is None:
        raise KernelError(f"the reference to {described} was read where no kernel is open",
                          what=described, expected="a task of the kernel that the actor belongs to",
                          remedy="pass it as an argument")
    return kernel.refer_to_actor(key, cls, described, source)


cdef ActorRef reference_to(Actor actor):
    cdef ActorRef reference = ActorRef.__new__(ActorRef)
    reference.actor = actor
    actor.references += 1
    return reference


cdef class ActorMethod:
    """A method of an actor, to be called."""

    def __call__(self, /, *args, **kwargs):
        return make_call(self.reference.actor, self.method, args, kwargs, self.call_options)

    def options(self, *, deadline=None):
        """The method with a ``deadline``, in seconds from the call.

        >>> from microkernel import Kernel
        >>> with Kernel() as kernel:
        ...     numbers = kernel.spawn(list)
        ...     kernel.get(numbers.append.options(deadline=5.0)(1))
        """
        cdef ActorMethod other = ActorMethod.__new__(ActorMethod)
        other.reference = self.reference
        other.method = self.method
        other.call_options = TaskOptions(deadline=deadline)
        return other

    @property
    def __name__(self):
        return self.method.name.rpartition(".")[2]

    def __repr__(self):
        return f"<method {self.__name__} of {self.reference!r}>"
