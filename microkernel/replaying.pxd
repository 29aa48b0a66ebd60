"""The boundary that hands out what a journal kept; see ``replaying.pyx``."""
from microkernel.task cimport Boundary, Ref


cdef class Replaying(Boundary):
    cdef dict inputs
    cdef dict overrides
    cdef object policy
    cdef object default
    cdef readonly list reads
    cdef readonly list extra
    cdef readonly list differences
    cdef object answer(self, bytes rest)
    cdef object beyond_the_record(self, Ref task, str kind, str source, object key, object ordinal,
                                  object fetch)
