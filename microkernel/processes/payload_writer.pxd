"""Writing values into a message, at C level; see ``payload_writer.pyx``."""
from microkernel.processes.payload_reader cimport PayloadReader
from microkernel.processes.pickling cimport Pickling
from microkernel.values cimport Writer


cdef struct Coding:
    # What is known of the payload that is being written.
    int containers              # lists and dicts that were written, which must not be met again
    bint scalars_only           # lists and dicts are left to pickle, with what may refer to them
    void *seen[16]


cdef class PayloadWriter(PayloadReader):
    cdef Pickling spare

    cdef int write_value(self, Writer *w, object value, Coding *coding, list held,
                         int depth) except -1
    cdef int write_array(self, Writer *w, object value, Coding *coding, list held) except -1
    cdef int write_text(self, Writer *w, str value, list held) except -1
    cdef int write_object(self, Writer *w, int tag, const void *data, size_t n,
                          list held) except -1
    cdef int write_pickled(self, Writer *w, object value, list held) except -1
    cdef int write_stream(self, Writer *w, list pieces, size_t n, list held) except -1
    cdef int write_buffer(self, Writer *w, object exporter, list held) except -1
    cdef int write_view(self, Writer *w, Py_buffer *view, list held) except -1
