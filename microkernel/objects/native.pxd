"""The arena's C, as ``store.pyx`` calls it: ``native.h`` and ``copy.h``."""
from libc.stdint cimport int64_t, uint32_t, uint64_t

from microkernel.objects.store cimport srds_store


cdef extern from "native.h" nogil:
    ctypedef struct srds_numbers:
        uint64_t capacity, used, objects, spilled, spilled_bytes, largest_free, rebuilt
        uint64_t[64] held
        uint64_t[64] held_bytes
        int spill_error
    int srds_store_create(uint64_t capacity, uint32_t limit, int64_t patience_ns,
                          const char *folder, int *fd, srds_store **result)
    int srds_store_attach(int fd, unsigned station, srds_store **result)
    void srds_store_detach(srds_store *)
    int srds_store_take(srds_store *, uint64_t length, uint64_t *handle, uint64_t *offset)
    int srds_store_seal(srds_store *, uint64_t handle, int pinned)
    int srds_store_hold(srds_store *, uint64_t handle, uint64_t *length)
    int srds_store_pin(srds_store *, uint64_t handle, uint64_t *offset)
    void srds_store_unpin(srds_store *, uint64_t handle)
    void srds_store_release(srds_store *, uint64_t handle)
    int srds_store_forget(srds_store *, unsigned station)
    int srds_store_numbers(srds_store *, srds_numbers *)
    void srds_store_touch(srds_store *, uint64_t offset, uint64_t length)
    void srds_store_await(srds_store *, uint32_t seen, int64_t ns)
    uint32_t srds_store_seen(srds_store *)
    unsigned char *srds_store_data(srds_store *)
    unsigned char *srds_store_view(srds_store *)
    uint64_t srds_store_capacity(srds_store *)
    uint32_t srds_store_limit(srds_store *)
    int64_t srds_store_patience(srds_store *)
    int srds_store_mine(srds_store *)
    int64_t srds_store_now()
    int srds_keeper_start(srds_store *)
    void srds_keeper_stop(srds_store *)


cdef extern from "copy.h" nogil:
    void srds_copy(void *to, const void *source, size_t n)
