"""Subgraphs of tasks that are recorded once and submitted as one; see ``template.pyx``."""
from cpython.ref cimport PyObject

from microkernel.scheduler cimport Scheduler
from microkernel.task cimport Ref


cdef class Program:
    cdef readonly str name
    cdef readonly tuple calls       # of (function, values of its arguments, names of the last)
    cdef readonly tuple constants
    cdef readonly int parameters
    cdef readonly object result     # the value that is the result, or a tuple of such
    cdef readonly bint parallel
    cdef list functions             # a Function for each call, by the kernel that runs it
    cdef Scheduler known_by
    cdef int *layout                # for each call: how many arguments, which; how many to drop
    cdef int values
    cdef int widest
    cdef int lay_out(self) except -1
    cdef int know(self, Scheduler kernel) except -1
    cdef object carry_out(self, tuple arguments)
    cdef int call_all(self, Ref here, PyObject **values) except -1
    cdef object one_by_one(self, Ref here, tuple arguments)
    cdef object result_of(self, PyObject **values)
