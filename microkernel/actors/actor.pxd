"""An actor as the process sees it that spawned it; see ``actor.pyx``."""
from microkernel.engine cimport Engine
from microkernel.ids cimport TaskId
from microkernel.mailbox cimport Mailbox, Method
from microkernel.task cimport DecisionScope, Ref


cdef class Actor(Mailbox):
    cdef Engine engine
    cdef object cls
    cdef readonly object options
    cdef readonly str described     # for people: class and name
    cdef str class_name             # module:qualified name
    cdef str source                 # for records: class and name
    cdef TaskId id                  # that of the task that constructs it
    cdef TaskId owner               # the task that spawned it
    cdef DecisionScope scope        # the decision that it belongs to
    cdef object end                 # the registry's: called with the actor when it has ended
    cdef dict methods
    cdef object queue               # calls that have their arguments, in order
    cdef dict held                  # by caller: calls behind one that waits for an argument
    cdef Ref opening                # the task that constructs it, until that has ended
    cdef object instance
    cdef list running
    cdef tuple failure              # (error, traceback) of all calls from now on
    cdef size_t pending             # calls, and the construction, that have not ended
    cdef size_t most_pending
    cdef size_t references          # ActorRefs of this process
    cdef bint kept                  # it does not end with the last of them
    cdef bint closing               # it ends when no call is pending
    cdef bint over
    cdef bint one_by_one            # its calls never overlap
    cdef unsigned char place

    cdef int open(self, Ref opening, tuple args, dict kwargs) except -1
    cdef Method method(self, str name)
    cdef object bound(self, Method method, str name)
    cdef Ref submit(self, Ref task, tuple args, dict kwargs, object options)
    cdef int hand_in(self, Ref task) except -1
    cdef int make_room(self) except -1
    cdef bint runs_here(self) except -1
    cdef int admit(self, Ref call) except -1
    cdef int release(self, tuple caller) except -1
    cdef int hold(self, Ref call, list references) except -1
    cdef Ref next(self)
    cdef int opened(self) except -1
    cdef int start(self) except -1
    cdef int stop(self, bint now) except -1
    cdef int die(self, str reason) except -1
    cdef list begun(self)
    cdef bint began(self, Ref call) except -1
    cdef int fail_all(self, str reason) except -1
    cdef bytes sent_away(self)
    cdef int crashed(self) except -1
    cdef int finish(self) except -1
    cdef int gone(self) except -1


cdef tuple caller_of(Ref call)
cdef object died(Actor actor, str reason, bint begun)
