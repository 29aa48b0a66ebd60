"""128-bit task identifiers as a C struct; see ``ids.pyx``."""
from libc.stdint cimport uint64_t


cdef extern from *:
    """
    #include <stdint.h>
    typedef struct { uint64_t hi, lo; } srds_task_id;

    static inline uint64_t srds_avalanche(uint64_t x) {
        x ^= x >> 32; x *= 0xd6e8feb86659fd93ULL;
        x ^= x >> 32; x *= 0xd6e8feb86659fd93ULL;
        x ^= x >> 32;
        return x;
    }

    /* Both lanes see both halves of the parent, the index and the function:
       changing any one bit changes each output bit with probability one half. */
    static inline srds_task_id srds_mix(srds_task_id parent, uint64_t index, uint64_t function) {
        uint64_t a = parent.hi ^ srds_avalanche(index + 0x9e3779b97f4a7c15ULL);
        uint64_t b = parent.lo ^ srds_avalanche(function ^ 0xc2b2ae3d27d4eb4fULL);
        srds_task_id id;
        id.hi = srds_avalanche(a + srds_avalanche(b));
        id.lo = srds_avalanche(b + srds_avalanche(a ^ 0x165667b19e3779f9ULL));
        return id;
    }
    """
    ctypedef struct TaskId "srds_task_id":
        uint64_t hi
        uint64_t lo
    TaskId mix "srds_mix"(TaskId parent, uint64_t index, uint64_t function) noexcept nogil


cdef uint64_t name_hash(str qualified_name) except? 0
cdef bytes id_to_bytes(TaskId id)
cdef TaskId id_from_bytes(bytes raw) except *
