/* The control arena: what all processes of a kernel share, in one memfd.

   Sparse: room is laid out for every pair of stations, and memory is used where it is written. So a
   ring between two workers costs nothing until they talk, and making one needs no agreement. */
#ifndef SRDS_CONTROL_H
#define SRDS_CONTROL_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "microkernel/processes/bell.h"
#include "microkernel/processes/deque.h"
#include "microkernel/processes/record.h"
#include "microkernel/processes/ring.h"

#define SRDS_CONTROL_MAGIC 0x31304c4f52544e43ull    /* "CNTROL01" */

enum {
    SRDS_STATIONS = 64,             /* the driver, 0, and at most 63 others */
    SRDS_SLAB_SLOTS = 256,          /* nested tasks that a station offers at a time */
    SRDS_SLAB_BYTES = 1024,         /* record and arguments of one of them */
    SRDS_FUNCTION_BYTES = 4 << 20   /* pickled functions of a station */
};

enum {                              /* states of a station */
    SRDS_FREE = 0,
    SRDS_STARTING = 1,
    SRDS_UP = 2,
    SRDS_ENDING = 3                 /* is not given tasks any more */
};

typedef struct {                    /* written by its owner, read by whoever looks */
    uint64_t tasks;                 /* run for others */
    uint64_t nested;                /* of its own, run by itself */
    uint64_t stolen;                /* taken from others */
    uint64_t busy_ns;
    uint64_t sleeps;
    uint64_t spins;
    uint64_t spin_hits;
    uint64_t failed;
} srds_counters;

typedef struct {
    _Alignas(64) srds_bell bell;
    _Alignas(64) _Atomic uint32_t state;
    int32_t pid;
    uint32_t epoch;                 /* how many processes have had this place */
    uint32_t dedicated;             /* 1: an actor or a flow lives here; it takes no other tasks */
    _Atomic uint32_t running;       /* 1 + sender of the task that runs; 0: none */
    _Atomic uint32_t running_slot;
    _Atomic uint64_t cancelled;     /* (1 + sender) << 32 | slot of the task to be interrupted */
    _Atomic uint64_t taken;         /* slot << 32 | items taken of the stream that is made here */
    int64_t started_ns;
    _Alignas(64) srds_counters counters;
    _Alignas(64) srds_deque deque;  /* slots of its slab that others may take */
} srds_station;

typedef struct {
    uint64_t magic;
    uint64_t bytes;                 /* of the whole arena */
    int32_t driver;                 /* pid */
    _Atomic uint32_t closing;
    int64_t opened_ns;
    _Alignas(64) _Atomic uint64_t idle;         /* stations that sleep for want of work */
    _Alignas(64) _Atomic uint64_t backlog;      /* tasks that wait in the driver */
    _Atomic uint64_t outstanding;               /* tasks sent and not answered */
    _Alignas(4096) srds_station stations[SRDS_STATIONS];
} srds_control;

static inline size_t srds_page(size_t n) { return (n + 4095) & ~(size_t)4095; }

static inline size_t srds_slabs_at(void) { return srds_page(sizeof(srds_control)); }
static inline size_t srds_functions_at(void) {
    return srds_slabs_at() + (size_t)SRDS_STATIONS * SRDS_SLAB_SLOTS * SRDS_SLAB_BYTES;
}
static inline size_t srds_rings_at(void) {
    return srds_functions_at() + (size_t)SRDS_STATIONS * SRDS_FUNCTION_BYTES;
}
static inline size_t srds_ring_stride(void) { return srds_page(sizeof(srds_ring)); }
static inline size_t srds_control_bytes(void) {
    return srds_rings_at() + (size_t)SRDS_STATIONS * SRDS_STATIONS * srds_ring_stride();
}

static inline srds_ring *srds_ring_between(srds_control *c, unsigned from, unsigned to) {
    return (srds_ring *)((char *)c + srds_rings_at()
                         + ((size_t)from * SRDS_STATIONS + to) * srds_ring_stride());
}

static inline srds_task *srds_offered(srds_control *c, unsigned station, unsigned slot) {
    return (srds_task *)((char *)c + srds_slabs_at()
                         + ((size_t)station * SRDS_SLAB_SLOTS + slot) * SRDS_SLAB_BYTES);
}

static inline unsigned char *srds_functions_of(srds_control *c, unsigned station) {
    return (unsigned char *)c + srds_functions_at() + (size_t)station * SRDS_FUNCTION_BYTES;
}

/* NULL with errno set when there is no room for the mapping. */
static inline srds_control *srds_control_map(int fd) {
    void *at = mmap(NULL, srds_control_bytes(), PROT_READ | PROT_WRITE,
                    MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (at == MAP_FAILED) return NULL;
    madvise(at, srds_control_bytes(), MADV_DONTDUMP);
    return (srds_control *)at;
}

/* A new process takes the place of a dead one. The other sides live and may be in the middle of
   something, so only what belongs to this side of each ring is set. */
static inline void srds_take_over_sending(srds_ring *ring) {
    ring->reserved = atomic_load(&ring->tail);
    ring->reserved_messages = atomic_load(&ring->published);
    ring->seen_head = atomic_load(&ring->head);
}
static inline void srds_take_over_reading(srds_ring *ring) {
    uint64_t tail = atomic_load(&ring->tail);
    ring->read = ring->seen_tail = tail;
    atomic_store(&ring->taken, atomic_load(&ring->published));
    atomic_store(&ring->wake_at, 0);
    atomic_store(&ring->head, tail);
}

/* Cython knows no atomic types: these give it what it needs of shared words. */
#define SRDS_ATOMIC32(at) ((_Atomic uint32_t *)(at))
#define SRDS_ATOMIC64(at) ((_Atomic uint64_t *)(at))
static inline uint32_t srds_load32(void *at) {
    return atomic_load_explicit(SRDS_ATOMIC32(at), memory_order_acquire);
}
static inline uint64_t srds_load64(void *at) {
    return atomic_load_explicit(SRDS_ATOMIC64(at), memory_order_acquire);
}
static inline void srds_store32(void *at, uint32_t value) {
    atomic_store_explicit(SRDS_ATOMIC32(at), value, memory_order_release);
}
static inline void srds_store64(void *at, uint64_t value) {
    atomic_store_explicit(SRDS_ATOMIC64(at), value, memory_order_release);
}
static inline uint32_t srds_exchange32(void *at, uint32_t value) {
    return atomic_exchange(SRDS_ATOMIC32(at), value);
}
static inline uint64_t srds_or64(void *at, uint64_t bits) {
    return atomic_fetch_or(SRDS_ATOMIC64(at), bits);
}
static inline uint64_t srds_and64(void *at, uint64_t bits) {
    return atomic_fetch_and(SRDS_ATOMIC64(at), bits);
}
static inline int srds_cas32(void *at, uint32_t expected, uint32_t desired) {
    return atomic_compare_exchange_strong(SRDS_ATOMIC32(at), &expected, desired);
}
static inline int srds_cas64(void *at, uint64_t expected, uint64_t desired) {
    return atomic_compare_exchange_strong(SRDS_ATOMIC64(at), &expected, desired);
}
static inline int srds_lowest_bit(uint64_t bits) { return __builtin_ctzll(bits); }

static inline void srds_control_unmap(srds_control *control) {
    munmap(control, srds_control_bytes());
}

/* In a child that a task has forked: whatever it does from here on, it does for itself. */
static inline void srds_control_leave(srds_control *control) {
    void *at = mmap(control, srds_control_bytes(), PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    if (at == MAP_FAILED) _exit(1);
    atomic_store(&control->closing, 1);
}

static inline int srds_claim(srds_task *task, uint32_t who) {
    uint32_t nobody = SRDS_UNCLAIMED;
    return atomic_compare_exchange_strong_explicit(&task->claim, &nobody, who,
                                                   memory_order_acq_rel, memory_order_acquire);
}

#endif
