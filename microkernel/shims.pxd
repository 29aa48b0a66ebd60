"""The shims at C level; see ``shims.pyx``."""

cdef int begin_watching() except -1
cdef int end_watching() except -1
