"""A part of a flow whose stages run; see ``running.pyx``."""
from microkernel.flows.part cimport Part


cdef class RunningPart(Part):
    pass
