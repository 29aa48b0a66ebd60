/* The ready tasks of one station: it pushes and pops at the bottom, others steal from the top.

   Chase and Lev's deque (SPAA 2005) with the orderings proved by Lê, Pop, Cohen and Zappa Nardelli,
   "Correct and efficient work-stealing for weak memory models" (PPoPP 2013), figure 1. Of fixed size
   (a full one says so, and its owner keeps the task): nothing is ever allocated, so that thieves may
   live in other processes. All zeros is an empty deque.

   A deque only says whose turn it is to look at a slot. An owner killed within pop, or a thief within
   steal, takes the number with it: what must survive a crash is found in the slab, not here. */
#ifndef SRDS_DEQUE_H
#define SRDS_DEQUE_H

#include <assert.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "ring.h"                   /* the fences */

#ifndef SRDS_DEQUE_BITS
#define SRDS_DEQUE_BITS 12
#endif

enum { SRDS_DEQUE_SLOTS = 1 << SRDS_DEQUE_BITS };

typedef struct {
    _Atomic int64_t top;            /* the next to be stolen; grows only */
    int64_t unused_top[15];
    _Atomic int64_t bottom;         /* where the next is pushed */
    int64_t unused_bottom[15];
    _Atomic uint32_t slots[SRDS_DEQUE_SLOTS];
} srds_deque;

static_assert(offsetof(srds_deque, bottom) == 128, "owner and thieves share no pair of lines");

/* The owner. 0: full. What was written before it is seen by whoever gets the slot. */
static inline int srds_deque_push(srds_deque *deque, uint32_t slot) {
    int64_t bottom = atomic_load_explicit(&deque->bottom, memory_order_relaxed);
    int64_t top = atomic_load_explicit(&deque->top, memory_order_acquire);
    if (bottom - top >= SRDS_DEQUE_SLOTS) return 0;
    atomic_store_explicit(&deque->slots[bottom & (SRDS_DEQUE_SLOTS - 1)], slot,
                          memory_order_relaxed);
    atomic_store_explicit(&deque->bottom, bottom + 1, memory_order_release);
    return 1;
}

/* The owner: the one pushed last. 0: none. */
static inline int srds_deque_pop(srds_deque *deque, uint32_t *slot) {
    int64_t bottom = atomic_load_explicit(&deque->bottom, memory_order_relaxed) - 1, top;
    int got = 1;

    /* `bottom` is always stored with release: a thief may see the pushes through any of the stores
       (the paper's fence in push orders them all; a store with release orders only itself). */
    atomic_store_explicit(&deque->bottom, bottom, SRDS_BEFORE_FENCE);
    srds_fence();
    top = atomic_load_explicit(&deque->top, SRDS_AFTER_FENCE);
    if (top > bottom) {
        atomic_store_explicit(&deque->bottom, bottom + 1, memory_order_release);
        return 0;
    }
    *slot = atomic_load_explicit(&deque->slots[bottom & (SRDS_DEQUE_SLOTS - 1)],
                                 memory_order_relaxed);
    if (top == bottom) {                        /* the last one: thieves may be at it */
        got = atomic_compare_exchange_strong_explicit(&deque->top, &top, top + 1,
                                                      memory_order_seq_cst, memory_order_relaxed);
        atomic_store_explicit(&deque->bottom, bottom + 1, memory_order_release);
    }
    return got;
}

/* Anybody else: the oldest. 1: got it; 0: none; -1: somebody else was quicker, there may be more. */
static inline int srds_deque_steal(srds_deque *deque, uint32_t *slot) {
    int64_t top = atomic_load_explicit(&deque->top, SRDS_AFTER_FENCE), bottom;
    uint32_t found;

    srds_fence();
    bottom = atomic_load_explicit(&deque->bottom, SRDS_AFTER_FENCE);
    if (top >= bottom) return 0;
    found = atomic_load_explicit(&deque->slots[top & (SRDS_DEQUE_SLOTS - 1)], memory_order_relaxed);
    if (!atomic_compare_exchange_strong_explicit(&deque->top, &top, top + 1, memory_order_seq_cst,
                                                 memory_order_relaxed))
        return -1;
    *slot = found;
    return 1;
}

/* How many there are, more or less, for whoever looks where to steal. */
static inline int64_t srds_deque_length(srds_deque *deque) {
    int64_t length = atomic_load_explicit(&deque->bottom, memory_order_relaxed)
                   - atomic_load_explicit(&deque->top, memory_order_relaxed);
    return length > 0 ? length : 0;
}

/* As new. Nobody may be at it. */
static inline void srds_deque_reset(srds_deque *deque) {
    memset((void *)deque, 0, sizeof *deque);
}

#endif
