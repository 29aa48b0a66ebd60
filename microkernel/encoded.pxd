"""A result that stays as it was sent until it is used; see ``encoded.pyx``."""

# Rebuilds a value from its bytes; ``reader`` is whoever knows how.
ctypedef object (*Decode)(object reader, const unsigned char *data, size_t n)


cdef class Encoded:
    cdef object reader
    cdef Decode rebuild
    cdef bytes data
    cdef list held              # the blocks of the object arena that the data names
    cdef object value           # or a weak reference to it, where blocks are held
    cdef bint decoded

    # The value; raises what rebuilding it raises.
    cdef object decode(self)


cdef Encoded encoded(object reader, Decode rebuild, bytes data, list held)
