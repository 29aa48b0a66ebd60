/* The ring: shared memory in which an event is acknowledged before it is written to a file.
 *
 * It is a file of its own (in /dev/shm where there is one), mapped shared, so what was copied into
 * it outlives a killed process; the next writer of the log, and any reader, finds it there. `head`
 * is published with a release store after the record is complete: a record below `head` is whole,
 * whatever instruction the process died at. The data area is mapped twice in a row, so that no
 * record is ever split.
 *
 * Header (64-bit little-endian fields, positions are byte counts that only grow):
 *   0 magic "SRDSRNG1"   8 u32 version   12 u32 offset of the data   16 u64 capacity
 *  24 u8[16] log id     40 u8[16] run id   56 u8[16] token   72 u8[16] boot id   88 u64 pid
 * 128 u64 head         192 u64 tail            256 u64 durable events
 * Record (8-byte aligned):
 *   0 u32 payload bytes   4 u32 state (1 whole, 2 direct)   8 .. 64 as in the frame
 *  64 n x parent, then the payload. A direct record has no payload here: its event was too large.
 */
#ifndef SRDS_RING_H
#define SRDS_RING_H

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "frame.h"

enum {
    SRDS_RING_VERSION = 1,
    SRDS_RING_HEAD_AT = 128,
    SRDS_RING_TAIL_AT = 192,
    SRDS_RING_DURABLE_AT = 256,
    SRDS_RING_WHOLE = 1,
    SRDS_RING_DIRECT = 2
};

typedef struct {
    uint8_t *base; /* the header; the data area follows, twice */
    uint8_t *data;
    uint64_t capacity;
    size_t mapped;
    uint64_t *head;
    uint64_t *tail;
    uint64_t *durable;
} srds_ring;

static inline uint64_t srds_ring_record_span(uint32_t parents, uint64_t payload_n) {
    return srds_align8(SRDS_FIXED_END + (uint64_t)parents * SRDS_PARENT + payload_n);
}

static inline uint8_t *srds_ring_at(const srds_ring *ring, uint64_t position) {
    return ring->data + (position & (ring->capacity - 1));
}

/* Map an empty file as a ring of `capacity` bytes (a power of two, at least a page); 0 or errno. */
static inline int srds_ring_create(srds_ring *ring, int fd, uint64_t capacity, const uint8_t log_id[16],
                            const uint8_t run_id[16], const uint8_t token[16],
                            const uint8_t boot_id[16]) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const size_t mapped = page + 2 * (size_t)capacity;
    /* Without its blocks reserved, a store into a full tmpfs would be a SIGBUS. */
    int error = posix_fallocate(fd, 0, (off_t)(page + capacity));
    if (error) return error;
    uint8_t *base = mmap(NULL, mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) return errno;
    const int flags = MAP_SHARED | MAP_FIXED;
    if (mmap(base, page + capacity, PROT_READ | PROT_WRITE, flags, fd, 0) == MAP_FAILED ||
        mmap(base + page + capacity, capacity, PROT_READ | PROT_WRITE, flags, fd, (off_t)page) ==
            MAP_FAILED) {
        error = errno;
        munmap(base, mapped);
        return error;
    }
    ring->base = base;
    ring->data = base + page;
    ring->capacity = capacity;
    ring->mapped = mapped;
    ring->head = (uint64_t *)(base + SRDS_RING_HEAD_AT);
    ring->tail = (uint64_t *)(base + SRDS_RING_TAIL_AT);
    ring->durable = (uint64_t *)(base + SRDS_RING_DURABLE_AT);
    srds_put32(base + 8, SRDS_RING_VERSION);
    srds_put32(base + 12, (uint32_t)page);
    srds_put64(base + 16, capacity);
    memcpy(base + 24, log_id, 16);
    memcpy(base + 40, run_id, 16);
    memcpy(base + 56, token, 16);
    memcpy(base + 72, boot_id, 16);
    srds_put64(base + 88, (uint64_t)getpid());
    memcpy(base, "SRDSRNG1", 8);
    /* Touch every page now, through both mappings: the first lap would pay for it otherwise. */
    for (size_t i = 0; i < mapped; i += page) ((volatile uint8_t *)base)[i] = base[i];
    return 0;
}

static inline void srds_ring_unmap(srds_ring *ring) {
    if (ring->base) munmap(ring->base, ring->mapped);
    ring->base = NULL;
}

#endif
