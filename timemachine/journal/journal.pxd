"""The journal's writer; see ``journal.pyx``."""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint64_t

from microkernel.event_sink cimport EventSink
from microkernel.ids cimport TaskId
from timemachine.journal.segment_writer cimport srds_segment

cdef extern from "flusher.h" nogil:
    enum:
        SRDS_FORKED
        SRDS_CLOSED
        SRDS_FAILED
        SRDS_TOO_LARGE
        SRDS_WOULD_WAIT
    ctypedef struct srds_ring:
        uint8_t *base
    ctypedef struct srds_head:
        uint64_t size
        uint64_t segments
        uint8_t root[32]
        uint8_t headers[32]
    ctypedef struct srds_log:
        srds_ring ring
        srds_segment segment
        uint64_t segment_bytes
        uint64_t flush_bytes
        uint64_t flush_ns
        int ack
        uint64_t generation
        int closed
        int failed
        int running
        uint64_t durable
    uint64_t srds_forks
    int srds_ring_create(srds_ring *ring, int fd, uint64_t capacity, const uint8_t *log_id,
                         const uint8_t *run_id, const uint8_t *token, const uint8_t *boot_id)
    void srds_ring_unmap(srds_ring *ring)
    int srds_log_start(srds_log *log)
    int srds_log_stop(srds_log *log)
    int64_t srds_append(srds_log *log, uint16_t kind, uint64_t flags, const uint8_t *decision,
                        const uint8_t *parents, uint16_t n_parents, const uint8_t *data,
                        uint64_t n, int may_wait)
    int srds_wait_durable(srds_log *log, uint64_t size, uint64_t ns)
    void srds_wait_checkpoint(srds_log *log, uint64_t since, uint64_t events, uint64_t ns)
    void srds_observe(srds_log *log, uint64_t lamport)
    uint64_t srds_size(srds_log *log)
    void srds_get_head(srds_log *log, srds_head *head)
    void srds_set_header_prefix(srds_log *log, char *prefix, size_t n)


cdef class Journal(EventSink):
    cdef srds_log log
    cdef uint8_t known[8192]
    cdef readonly str log_id
    cdef readonly bytes run_id
    cdef readonly object directory
    cdef readonly object settings
    cdef readonly object recovery
    cdef object key
    cdef object fingerprint
    cdef object lock
    cdef object declaring
    cdef object checkpointer
    cdef uint64_t signed_size
    cdef uint64_t signed_own
    cdef object __weakref__

    cdef int append(self, uint16_t kind, uint64_t flags, const TaskId *decision,
                    const void *data, size_t n) except -1 nogil
    cdef int64_t refuse(self, int64_t code) except -1
    cdef int declare(self, uint16_t kind) except -1
