"""The boundary that journals what it lets in; see ``recording.pyx``."""
from microkernel.event_sink cimport EventSink
from microkernel.task cimport Boundary, DecisionScope, Ref
from microkernel.values cimport Writer


cdef class Recording(Boundary):
    cdef EventSink sink
    cdef int append_input(self, Ref task, str kind, str source, object key, bint ok,
                          object value) except -1
    cdef object encode(self, Writer *w, Ref task, str kind, str source, object key, bint ok,
                       object value)
    cdef int finish(self, DecisionScope scope) except -1
    cdef int flush(self, DecisionScope scope) except -1


cdef int write_region(Writer *w, str kind, str source, object key) except -1
cpdef object describe_error(object error)
