"""One task record for many short calls; see ``record.pyx``."""
cimport cython
from cpython.ref cimport PyObject

from microkernel.function cimport Function
from microkernel.ids cimport TaskId
from microkernel.scheduler cimport Scheduler
from microkernel.task cimport DecisionScope, Ref


cdef extern from "Python.h":
    Py_ssize_t Py_REFCNT(PyObject *)


@cython.final
cdef class Record:
    cdef Scheduler kernel
    cdef DecisionScope scope
    cdef TaskId parent
    cdef Ref task               # stands for the call at hand
    cdef Ref outer              # what this thread ran before
    cdef bint entered

    cdef int take_thread(self) except -1
    cdef int give_thread(self) except -1
    cdef int renew(self) except -1
    cdef int begin(self) except -1
    cdef int end(self, int state, object result) except -1

    cdef inline int stand_for(self, TaskId id, Function function) except -1:
        """From here on the record is that of the task ``id``."""
        if (Py_REFCNT(<PyObject *>self.task) > 1 or self.task.ledger != NULL
                or self.task.attachments is not None):
            self.renew()
        if self.task.function is not function:
            self.task.function = function
        self.task.id = id
        self.task.children = 0
        return 0


cdef Record new_record(Scheduler kernel, TaskId parent, DecisionScope scope)
