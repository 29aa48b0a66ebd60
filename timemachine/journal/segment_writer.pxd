"""A log's segment files in C, as their writer sees them; see ``segment.h``."""
from libc.stdint cimport uint8_t, uint64_t

from timemachine.journal.frontier cimport srds_frontier

cdef extern from "segment.h" nogil:
    ctypedef struct srds_segment:
        int directory
        int frames
        int leaves
        uint64_t first_seq
        uint64_t offset
        uint64_t lamport
        srds_frontier tree
        uint64_t segments
        uint8_t headers[32]
        uint8_t next_headers[32]
        char *prefix
        size_t prefix_n
    void srds_segment_init(srds_segment *s)
    void srds_segment_free(srds_segment *s)
    int srds_segment_begin(srds_segment *s)
    void srds_batch_begin(srds_segment *s)
    int srds_batch_add(srds_segment *s, const uint8_t *fixed, const uint8_t *parents,
                       const uint8_t *payload, uint64_t payload_n)
    int srds_batch_commit(srds_segment *s)
