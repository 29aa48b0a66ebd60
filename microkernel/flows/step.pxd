"""An operator within a stage, at C level; see ``step.pyx``."""
from libc.stdint cimport int64_t, uint64_t

from microkernel.flows.record cimport Record
from microkernel.function cimport Function
from microkernel.ids cimport TaskId
from microkernel.scheduler cimport Scheduler
from microkernel.task cimport Ref


cdef class Step:
    cdef readonly str name
    cdef readonly str kind
    cdef readonly int node
    cdef readonly int instance
    cdef readonly int instances
    cdef object call
    cdef Function function
    cdef Ref flow               # the flow's own task
    cdef TaskId id
    cdef Record record          # stands for the call at hand
    cdef readonly uint64_t items_in
    cdef readonly uint64_t items_out
    cdef readonly uint64_t batches
    cdef readonly int64_t busy_ns
    cdef uint64_t first         # the position of the first item of the batch at hand
    cdef Py_ssize_t at          # the item at hand
    cdef bint recorded          # every call is a task of a decision's record
    cdef bint more              # there is more to come of the last batch
    cdef bint several           # ``run`` returns a list for each output
    cdef int open_inputs
    cdef list targets           # for each output: (step or outlet, port) of those that follow
    cdef Step follow            # the only one that follows, if it is a step
    cdef int follow_port

    cdef int begin(self, list batch) except -1
    cdef int call_for(self, Py_ssize_t i) except -1
    cdef list run(self, list batch, int port)
    cdef list finish(self)
    cdef int open(self, object context) except -1
    cdef int release(self) except -1


cdef Step make_step(Scheduler kernel, Ref flow, object node, int instance)
cdef Function named(str name)
