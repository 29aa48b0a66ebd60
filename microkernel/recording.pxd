"""The boundary that journals what it lets in; see ``recording.pyx``."""
from microkernel.event_sink cimport EventSink
from microkernel.task cimport Boundary, Ref
from microkernel.values cimport Writer


cdef class Recording(Boundary):
    cdef EventSink sink
    cdef int encode_and_append(self, Ref task, Writer *w, str kind, str source, object key,
                               bint ok, object value) except -1
    cdef int append_input(self, Ref task, str kind, str source, object key, bint ok,
                          object value) except -1


cdef int write_region(Writer *w, str kind, str source, object key) except -1
cdef object describe_error(object error)
