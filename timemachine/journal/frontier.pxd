"""The tree's frontier in C, wrapped; see ``frontier.pyx``."""
from libc.stdint cimport uint8_t, uint64_t

cdef extern from "frontier.h" nogil:
    ctypedef struct srds_frontier:
        uint64_t size
        uint8_t node[64][32]
    void srds_frontier_push(srds_frontier *f, const uint8_t *leaf)
    void srds_frontier_root(const srds_frontier *f, uint8_t *root)


cdef class LeafFrontier:
    cdef srds_frontier tree
