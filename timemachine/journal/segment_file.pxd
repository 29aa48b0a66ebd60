"""Reading one segment file; see ``segment_file.pyx``."""
from libc.stdint cimport uint8_t, uint64_t


cdef class SegmentFile:
    cdef readonly str path
    cdef readonly str log
    cdef readonly dict kinds
    cdef readonly uint64_t first_seq
    cdef readonly uint64_t start
    cdef readonly uint64_t last
    cdef int fd
    cdef uint8_t *window
    cdef size_t room
    cdef uint64_t window_at
    cdef size_t window_n
    cdef size_t readahead
    cdef const uint8_t *frame
    cdef uint64_t available
    cdef int look(self, uint64_t offset, uint64_t wanted) except -1 nogil
    cdef int check(self, uint64_t offset) except -1 nogil
    cdef int _require(self, uint64_t offset) except -1
