"""What travels with the messages between processes, at C level; see ``payload.pyx``."""
from microkernel.function cimport Function
from microkernel.processes.payload_writer cimport Coding, PayloadWriter
from microkernel.task cimport Ref
from microkernel.values cimport Writer


cdef class Payloads(PayloadWriter):
    # References among the arguments must be done: their results are written. Blocks of the object
    # arena that the payload names are appended to ``held``. On an error the payload is as before.
    # Raises UnfinishedReferences, NotSendable.
    cdef int write_arguments(self, Writer *w, tuple args, dict kwargs, list held) except -1
    cdef int write_result(self, Writer *w, object value, list held) except -1
    cdef int write_error(self, Writer *w, object error) except -1
    # A function without a number, in front of its arguments.
    cdef int write_function(self, Writer *w, Function function, list held) except -1

    # Make ``value`` the result of ``task``, an object of ``put``.
    cdef int keep(self, Ref task, object value) except -1

    cdef list write_all(self, Writer *w, tuple args, dict kwargs, Coding *coding, list held)
    cdef list write_argument(self, Writer *w, object value, Coding *coding, list left, list held)
