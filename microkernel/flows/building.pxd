"""Makes the stages of a flow; see ``building.pyx``."""
from microkernel.flows.part cimport Part


cdef object build(Part part, object plan, int here, dict places)
