"""What the kernel knows of a callable; see ``function.pyx``."""
from libc.stdint cimport uint64_t


cdef class Function:
    cdef readonly object call
    cdef readonly str name
    cdef readonly bytes code
    cdef bytes opening          # how a decision.opened of this function begins
    cdef readonly bint is_async
    cdef uint64_t hash
    cdef object described
    cdef object qualname


cdef class Functions:
    cdef Function last          # that was asked for, of those that are known
    cdef dict known
    cdef dict templates
    cdef Function of(self, object call)


# A callable with the name and code of another.
cdef Function like(Function template, object call)
