"""The boundary of a kernel without a journal; see ``boundary.pyx``."""
from microkernel.task cimport Boundary


cdef class Live(Boundary):
    pass
