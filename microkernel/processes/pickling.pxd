"""Pickling what the codec of payloads has no tag for, at C level; see ``pickling.pyx``."""


cdef class Numbering:
    # The number under which other processes find a class or function by value; 0: has none.
    cdef unsigned int number_of(self, object value) except? 0xffffffff
    cdef object value_of(self, unsigned int number)


cdef class Pickling:
    cdef Numbering numbering
    cdef list pieces            # of the stream: bytes and what has a buffer
    cdef list buffers           # out of band, as PickleBuffers
    cdef list unfinished        # references that were met and are not done
    cdef object root            # what must not be replaced by its number
    cdef object plain           # the pickler, used again
    cdef bint in_band           # buffers go into the stream
    cdef size_t limit           # of such a buffer; 0: none
    cdef bint probing           # a failure is not explained
    cdef bint by_value          # cloudpickle is at work
    cdef list registered        # modules that it pickles by value meanwhile

    cdef size_t dump(self, object value) except? 0xffffffffffffffff
    cdef object reduce_global(self, object value)
    cdef int register_module(self, object value) except -1
    cdef bint dump_plainly(self, object value) except -1
    cdef int clear(self) except -1


cdef bytes dump_in_band(Numbering numbering, object value, object root, size_t limit)
cdef object dismantled(Numbering numbering, object error)
cdef object assembled(Numbering numbering, object parts)
cdef object load(Numbering numbering, object stream, list buffers)
cdef bint importable(object value) except -1
