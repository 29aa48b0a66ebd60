/* A ring of messages from one process to another: one producer, one consumer, in shared memory.

   After Lamport's queue as FastForward and MCRingBuffer refined it: head and tail stand on lines of
   their own, each side keeps a copy of the other's index and looks again only when the copy says
   full or empty, and any number of messages becomes visible with one store.

   Here a message is consumed after its answer is published, not when it is read: what a killed
   consumer had read and not answered is still in the ring and `srds_ring_unconsumed` gives it back.

   All zeros is an empty ring. The other side may be broken or hostile: whatever it writes, nobody
   reads or writes outside the ring; what makes no sense sets `damaged`, and the ring gives nothing
   any more. (Arguments and results are the business of those who decode them.) */
#ifndef SRDS_RING_H
#define SRDS_RING_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "record.h"

#ifndef SRDS_RING_BITS
#define SRDS_RING_BITS 18
#endif

enum {
    SRDS_RING_BYTES = 1 << SRDS_RING_BITS,
    SRDS_RING_LARGEST = SRDS_RING_BYTES / 2     /* message: then a filler and it always fit */
};

/* A store that is followed by a fence, and a load that follows one. ThreadSanitizer takes no notice
   of fences (gcc: -Wtsan), therefore these operations are sequentially consistent when it watches,
   which orders a store before a later load as the fence does. */
#ifdef __SANITIZE_THREAD__
#define SRDS_BEFORE_FENCE memory_order_seq_cst
#define SRDS_AFTER_FENCE memory_order_seq_cst
#define srds_fence() ((void)0)
#define srds_fence_after_rmw() ((void)0)
#else
#define SRDS_BEFORE_FENCE memory_order_release
#define SRDS_AFTER_FENCE memory_order_acquire
#define srds_fence() atomic_thread_fence(memory_order_seq_cst)
/* On x86 an atomic read-modify-write is a full fence already (as smp_mb__after_atomic in Linux). */
#if defined(__x86_64__) && !defined(SRDS_MODEL)
#define srds_fence_after_rmw() atomic_signal_fence(memory_order_seq_cst)
#else
#define srds_fence_after_rmw() srds_fence()
#endif
#endif

#define srds_likely(x) __builtin_expect(!!(x), 1)
#define srds_unlikely(x) __builtin_expect(!!(x), 0)

typedef struct {
    /* The producer's. Pairs of lines, because processors fetch the neighbour too. */
    _Atomic uint64_t tail;          /* bytes published since the beginning */
    _Atomic uint64_t published;     /* messages published, or just being; `tail` follows */
    uint64_t reserved;              /* bytes reserved; private, as the next two */
    uint64_t reserved_messages;
    uint64_t seen_head;
    uint64_t unused_producer[11];

    /* The consumer's. */
    _Atomic uint64_t head;          /* bytes consumed */
    uint64_t read;                  /* bytes read, consumed or not; private, as the next */
    uint64_t seen_tail;
    _Atomic uint64_t taken;         /* messages read */
    _Atomic uint64_t wake_at;       /* wake me when published >= this; 0: at each message */
    _Atomic uint32_t damaged;
    uint32_t unused_consumer[21];

    unsigned char data[SRDS_RING_BYTES];
} srds_ring;

static_assert(offsetof(srds_ring, head) == 128, "the sides share no pair of lines");
static_assert(offsetof(srds_ring, data) == 256, "messages begin on a line of their own");
static_assert(SRDS_RING_BYTES >= 256, "room for the largest message and a filler");

/* The bits of an index that say where in `data`: never outside it, always the start of a line. */
static inline uint64_t srds_ring_place(uint64_t index) {
    return index & (SRDS_RING_BYTES - 64);
}

static inline void srds_ring_damage(srds_ring *ring) {
    atomic_store_explicit(&ring->damaged, 1, memory_order_relaxed);
}

static inline uint32_t srds_message_fixed(unsigned kind) {
    switch (kind) {
    case SRDS_TASK: case SRDS_ACTOR: case SRDS_CALL: case SRDS_ACTOR_END:
        return sizeof(srds_task);
    case SRDS_DONE: case SRDS_ITEM:
        return sizeof(srds_completion);
    default:
        return sizeof(srds_message);
    }
}

/* ---- The producer ---- */

/* Room for a message of `size` bytes, a multiple of 64: in one piece, its size filled in and the
   rest of the head zero, which makes it a filler: giving a message up needs nothing but to leave it
   so. NULL: no room now, or never (`damaged`, or more than SRDS_RING_LARGEST). */
static inline void *srds_ring_reserve(srds_ring *ring, uint32_t size) {
    uint64_t at = ring->reserved, place = srds_ring_place(at), filler = 0;
    srds_message *message;

    if (srds_unlikely(size == 0 || size % 64 || size > SRDS_RING_LARGEST)) return NULL;
    if (srds_unlikely(place + size > SRDS_RING_BYTES)) filler = SRDS_RING_BYTES - place;
    if (srds_unlikely(at + filler + size - ring->seen_head > SRDS_RING_BYTES)) {
        uint64_t head = atomic_load_explicit(&ring->head, memory_order_acquire);
        if (at - head > SRDS_RING_BYTES) srds_ring_damage(ring);
        if (atomic_load_explicit(&ring->damaged, memory_order_relaxed)) return NULL;
        ring->seen_head = head;
        if (at + filler + size - head > SRDS_RING_BYTES) return NULL;
    }
    if (srds_unlikely(filler)) {
        message = (srds_message *)(ring->data + place);
        memset(message, 0, sizeof *message);
        message->size = (uint32_t)filler;
        message->flags = 1;                     /* not a message that was given up: counts for none */
        place = 0;
    }
    message = (srds_message *)(ring->data + place);
    memset(message, 0, sizeof *message);
    message->size = size;
    ring->reserved = at + filler + size;
    ring->reserved_messages++;
    return message;
}

/* All that was reserved becomes visible. The producer owes a `srds_bell_notify` after it. */
static inline void srds_ring_publish(srds_ring *ring) {
    /* In this order: a producer killed in between leaves a number that is too high, and who is woken
       too early looks again; one that is too low for ever would let its reader sleep. */
    atomic_store_explicit(&ring->published, ring->reserved_messages, memory_order_release);
    atomic_store_explicit(&ring->tail, ring->reserved, SRDS_BEFORE_FENCE);
}

/* ---- The consumer ---- */

/* The message at `index`, none of whose fields is believed; NULL, and the ring is damaged, if it
   cannot be one. `size` is read once: it could change between two looks. */
static inline srds_message *srds_ring_at(srds_ring *ring, uint64_t index, uint64_t end,
                                         uint32_t *size) {
    uint64_t place = srds_ring_place(index);
    srds_message *message = (srds_message *)(ring->data + place);
    uint32_t bytes = *(volatile uint32_t *)&message->size;

    if (srds_unlikely(bytes < 64 || bytes % 64 || bytes > SRDS_RING_BYTES - place
                      || end - index > SRDS_RING_BYTES || bytes > end - index
                      || message->kind >= SRDS_KINDS
                      || message->payload > bytes - srds_message_fixed(message->kind))) {
        srds_ring_damage(ring);
        return NULL;
    }
    *size = bytes;
    return message;
}

/* The end of what was published, as far as it can be true. */
static inline uint64_t srds_ring_end(srds_ring *ring, uint64_t from) {
    uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_acquire);
    if (srds_unlikely(tail - from > SRDS_RING_BYTES || tail % 64)) {
        srds_ring_damage(ring);
        return from;
    }
    return tail;
}

/* The next message that was not yet read, or NULL. It stays valid until it is consumed. */
static inline srds_message *srds_ring_next(srds_ring *ring) {
    /* Fillers are skipped, but nobody keeps the reader here by sending nothing else. */
    for (int fillers = 0; fillers < SRDS_RING_BYTES / 64; fillers++) {
        uint64_t at = ring->read;
        srds_message *message;
        uint32_t size;

        if (srds_unlikely(atomic_load_explicit(&ring->damaged, memory_order_relaxed))) return NULL;
        if (at == ring->seen_tail) {
            ring->seen_tail = srds_ring_end(ring, at);
            if (at == ring->seen_tail) return NULL;
        }
        message = srds_ring_at(ring, at, ring->seen_tail, &size);
        if (srds_unlikely(message == NULL)) return NULL;
        ring->read = at + size;
        if (srds_likely(message->kind != SRDS_FILLER || message->flags == 0))
            atomic_store_explicit(&ring->taken,
                atomic_load_explicit(&ring->taken, memory_order_relaxed) + 1, memory_order_relaxed);
        if (srds_likely(message->kind != SRDS_FILLER)) return message;
    }
    return NULL;
}

/* Everything read so far may be overwritten. */
static inline void srds_ring_consume(srds_ring *ring) {
    if (atomic_load_explicit(&ring->head, memory_order_relaxed) != ring->read)
        atomic_store_explicit(&ring->head, ring->read, memory_order_release);
}

/* Everything up to and including this message, which was read, may be overwritten. */
static inline void srds_ring_consume_to(srds_ring *ring, const srds_message *message) {
    uint64_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
    uint64_t place = (uint64_t)((const unsigned char *)message - ring->data);
    uint64_t at = head + ((place - head) & (SRDS_RING_BYTES - 1));
    uint32_t size;

    if (srds_unlikely(srds_ring_at(ring, at, ring->read, &size) == NULL)) return;
    atomic_store_explicit(&ring->head, at + size, memory_order_release);
}

/* Messages that were published, or are just being, and not read. */
static inline uint64_t srds_ring_unread(srds_ring *ring) {
    uint64_t taken = atomic_load_explicit(&ring->taken, memory_order_acquire);
    return atomic_load_explicit(&ring->published, memory_order_relaxed) - taken;
}

/* The consumer's wish for when it sleeps: see `wake_at`. UINT64_MAX: not for this ring. */
static inline void srds_ring_wake_when(srds_ring *ring, uint64_t published) {
    atomic_store_explicit(&ring->wake_at, published, memory_order_relaxed);
}

/* Is there what a consumer that is about to sleep would be woken for? It asks after a fence. */
static inline int srds_ring_ready(srds_ring *ring) {
    uint64_t wake_at = atomic_load_explicit(&ring->wake_at, memory_order_relaxed);
    return atomic_load_explicit(&ring->tail, SRDS_AFTER_FENCE) != ring->read
        && atomic_load_explicit(&ring->published, SRDS_AFTER_FENCE) >= wake_at;
}

/* ---- When one side is dead ---- */

/* What was published and not consumed, read or not, one by one. `cursor` begins as 0. For the owner
   of a dead consumer, and for anyone who looks while nobody consumes. */
static inline srds_message *srds_ring_unconsumed(srds_ring *ring, uint64_t *cursor) {
    uint64_t at = *cursor ? *cursor - 1 : atomic_load_explicit(&ring->head, memory_order_acquire);
    uint64_t end = srds_ring_end(ring, at);

    while (at != end) {
        uint32_t size;
        srds_message *message = srds_ring_at(ring, at, end, &size);
        if (message == NULL) return NULL;
        at += size;
        *cursor = at + 1;                       /* indices are multiples of 64: never 0 again */
        if (message->kind != SRDS_FILLER) return message;
    }
    return NULL;
}

/* As new. Neither side may be at work. */
static inline void srds_ring_reset(srds_ring *ring) {
    memset(ring, 0, offsetof(srds_ring, data));
}

#endif
