/* The objects of an arena: who holds each, whether it may be spilled, what its handle is.

   Any station may die at any instruction, also with the lock. The lock is a robust mutex, and only
   one thing is the truth: an object's entry, whose `word` is written last when the object begins and
   first when it ends. All else (the allocator, lists, sums) is derived from the entries, and whoever
   finds the lock of a dead owner derives it anew before going on. So none of it needs an order.

   An object has one bit for each station that holds it and lives until the last is gone; how many
   references a station has is the station's own affair. Bits of a dead station are cleared by
   srds_store_forget. */
#ifndef SRDS_TABLE_H
#define SRDS_TABLE_H

#include "arena.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>

#ifndef SRDS_CRASH_POINT            /* where the tests let a process die */
#define SRDS_CRASH_POINT()
#endif

enum { SRDS_STATIONS = 64 };

enum {                              /* states of an object */
    SRDS_UNUSED = 0,
    SRDS_WRITING = 1,               /* its maker fills it */
    SRDS_SEALED = 2,
    SRDS_SPILLING = 3,              /* in memory, and being copied to the file */
    SRDS_SPILLED = 4,               /* in the file only */
    SRDS_RESTORING = 5,             /* has memory again, which is being filled from the file */
    SRDS_DROPPED = 6                /* is no more, but its room in the file is not given back yet */
};

typedef struct {
    _Atomic uint64_t word;          /* generation << 8 | state */
    uint64_t holders;               /* bit i: station i holds it */
    uint64_t pinned;                /* bit i: station i looks at it */
    uint64_t offset, length;        /* in the arena, or in the file while it is spilled */
    uint32_t chunk;                 /* of the arena's heap, or of the file's */
    uint32_t next, previous;        /* in the one list that its state puts it in */
    int32_t error;                  /* errno of the last attempt to restore it */
    uint64_t unused;
} srds_object;

static_assert(sizeof(srds_object) == 64, "an object's entry fills one cache line");

typedef struct {                    /* a list of objects, linked by next and previous */
    uint32_t first, last;
} srds_list;

typedef struct {
    uint64_t magic;
    uint64_t capacity, table_at, chunks_at, order_at, warm_at, data_at, total;
    int64_t patience_ns;            /* how long to wait for room */
    uint32_t limit;                 /* entries of the table: index 1 to this */
    _Alignas(64) pthread_mutex_t lock;
    _Alignas(64) _Atomic uint32_t changed;  /* futex: there is more room, or something is restored */
    _Atomic uint32_t waiting;               /* who sleeps on it, at least */
    _Alignas(64) _Atomic uint32_t errands;  /* futex: the keeper has something to do */
    _Alignas(64) uint64_t wanted;   /* from here on under the lock; wanted: the room of who waits */
    uint64_t ahead_from, ahead_to;  /* memory that is likely to be used next */
    int32_t spill_error;            /* errno of the last attempt to write to the file */
    uint32_t made, spare;
    srds_list idle;                 /* sealed, in memory, looked at by nobody; the oldest first */
    srds_list wishes;               /* spilled and looked at */
    srds_list dropped;
    uint64_t objects, spilled, spilled_bytes, rebuilt;
    uint64_t held[SRDS_STATIONS], held_bytes[SRDS_STATIONS];
    srds_heap heap;
} srds_head;

typedef struct srds_store {         /* what one process knows of the arena */
    srds_head *head;
    srds_object *objects;
    srds_chunk *chunks;
    uint32_t *order;                /* room for sorting the objects */
    _Atomic uint64_t *warm;         /* bit i: the memory of unit i exists */
    _Atomic uint64_t *mapped;       /* bit i: and this process's page table has it */
    unsigned char *data;            /* the memory, to be written */
    const unsigned char *view;      /* the same, to be read only */
    size_t control_bytes;
    uint8_t *mine;                  /* its page is zeroed in a forked child */
    unsigned station;
    pthread_t keeper;
    int keeping;
    _Atomic int stop;
    int file;                       /* what objects are spilled to; -1 until it is needed */
    char *folder;                   /* NULL: nothing is spilled */
    srds_heap *file_heap;
    srds_chunk *file_chunks;
} srds_store;

static inline uint64_t srds_object_state(const srds_object *o) {
    return atomic_load_explicit(&o->word, memory_order_acquire) & 0xff;
}

static inline void srds_object_become(srds_object *o, uint64_t state) {
    uint64_t word = atomic_load_explicit(&o->word, memory_order_relaxed);
    atomic_store_explicit(&o->word, (word & ~(uint64_t)0xff) | state, memory_order_release);
}

/* The end of an object: handles of it are void from here on. */
static inline void srds_object_end(srds_object *o, uint64_t state) {
    uint64_t generation = (atomic_load_explicit(&o->word, memory_order_relaxed) >> 8) + 1;
    if (generation >> 32) generation = 0;
    atomic_store_explicit(&o->word, generation << 8 | state, memory_order_release);
}

static inline int srds_object_in_memory(uint64_t state) {
    return state == SRDS_WRITING || state == SRDS_SEALED || state == SRDS_SPILLING
        || state == SRDS_RESTORING;
}

static inline void srds_list_append(srds_store *s, srds_list *list, uint32_t i) {
    srds_object *o = s->objects;
    o[i].next = 0;
    o[i].previous = list->last;
    if (list->last) o[list->last].next = i;
    else list->first = i;
    list->last = i;
}

static inline void srds_list_remove(srds_store *s, srds_list *list, uint32_t i) {
    srds_object *o = s->objects;
    if (o[i].previous) o[o[i].previous].next = o[i].next;
    else list->first = o[i].next;
    if (o[i].next) o[o[i].next].previous = o[i].previous;
    else list->last = o[i].previous;
}

static inline void srds_object_spare(srds_store *s, uint32_t i) {
    s->objects[i].next = s->head->spare;
    s->head->spare = i;
}

static inline void srds_count(srds_store *s, uint64_t stations, uint64_t length, int more) {
    for (; stations; stations &= stations - 1) {
        unsigned station = (unsigned)__builtin_ctzll(stations);
        s->head->held[station] += more ? 1 : (uint64_t)-1;
        s->head->held_bytes[station] += more ? length : 0 - length;
    }
}

static inline void srds_order_sift(const srds_object *o, uint32_t *order, uint32_t at, uint32_t n) {
    for (uint32_t child; (child = 2 * at + 1) < n; at = child) {
        uint32_t index = order[at];
        if (child + 1 < n && o[order[child + 1]].offset > o[order[child]].offset) child++;
        if (o[order[child]].offset <= o[index].offset) return;
        order[at] = order[child];
        order[child] = index;
    }
}

static inline void srds_order_sort(const srds_object *o, uint32_t *order, uint32_t n) {
    for (uint32_t i = n / 2; i--;) srds_order_sift(o, order, i, n);
    for (uint32_t i = n; i-- > 1;) {
        uint32_t largest = order[0];
        order[0] = order[i];
        order[i] = largest;
        srds_order_sift(o, order, 0, i);
    }
}

/* Derive everything from the entries: after the death of who had the lock. */
static inline void srds_store_rebuild(srds_store *s) {
    srds_head *h = s->head;
    srds_object *o = s->objects;
    uint32_t n = 0, made = h->made;
    h->spare = 0;
    h->idle = h->wishes = h->dropped = (srds_list){0, 0};
    h->objects = h->spilled = h->spilled_bytes = 0;
    memset(h->held, 0, sizeof h->held);
    memset(h->held_bytes, 0, sizeof h->held_bytes);
    for (uint32_t i = 1; i <= made; i++) {
        uint64_t state = srds_object_state(&o[i]);
        if (o[i].holders == 0 && state != SRDS_RESTORING && state != SRDS_UNUSED
            && state != SRDS_DROPPED) {
            state = state == SRDS_SPILLED ? SRDS_DROPPED : SRDS_UNUSED;
            srds_object_end(&o[i], state);
        }
        if (state == SRDS_UNUSED) {
            srds_object_spare(s, i);
            continue;
        }
        if (state == SRDS_DROPPED) {
            srds_list_append(s, &h->dropped, i);
            continue;
        }
        h->objects++;
        srds_count(s, o[i].holders, o[i].length, 1);
        if (state == SRDS_SPILLED || state == SRDS_RESTORING) {
            h->spilled++;
            h->spilled_bytes += o[i].length;
        }
        if (state == SRDS_SEALED && !o[i].pinned) srds_list_append(s, &h->idle, i);
        if (state == SRDS_SPILLED && o[i].pinned) srds_list_append(s, &h->wishes, i);
        if (srds_object_in_memory(state)) s->order[n++] = i;
    }
    srds_order_sort(o, s->order, n);
    srds_heap_reset(&h->heap, s->chunks, h->capacity, 2 * h->limit + 2, SRDS_SMALL);
    for (uint32_t i = 0; i < n; i++) {
        srds_object *one = &o[s->order[i]];
        one->chunk = srds_heap_place(&h->heap, s->chunks, one->offset, srds_heap_rounded(one->length));
    }
    h->rebuilt++;
}

/* 0, or an errno that means that the arena cannot be used any more. */
static inline int srds_store_lock(srds_store *s) {
    int error = pthread_mutex_lock(&s->head->lock);
    if (error == EOWNERDEAD) {
        srds_store_rebuild(s);
        error = pthread_mutex_consistent(&s->head->lock);
    }
    return error;
}

static inline void srds_store_unlock(srds_store *s) {
    pthread_mutex_unlock(&s->head->lock);
}

/* The entry that a handle names, or 0: under the lock. */
static inline uint32_t srds_store_entry(srds_store *s, uint64_t handle) {
    uint32_t i = (uint32_t)handle;
    if (i == 0 || i > s->head->made) return 0;
    return atomic_load_explicit(&s->objects[i].word, memory_order_relaxed) >> 8 == handle >> 32 ? i : 0;
}

/* Take an object out of the arena that nobody holds. */
static inline void srds_store_drop(srds_store *s, uint32_t i) {
    srds_head *h = s->head;
    srds_object *o = &s->objects[i];
    uint64_t state = srds_object_state(o);
    if (state == SRDS_RESTORING) return;    /* the keeper writes to its memory, and drops it then */
    h->objects--;
    if (state == SRDS_SPILLED) {
        h->spilled--;
        h->spilled_bytes -= o->length;
        if (o->pinned) srds_list_remove(s, &h->wishes, i);
        srds_object_end(o, SRDS_DROPPED);
        SRDS_CRASH_POINT();
        srds_list_append(s, &h->dropped, i);
        return;
    }
    if (state == SRDS_SEALED && !o->pinned) srds_list_remove(s, &h->idle, i);
    SRDS_CRASH_POINT();
    srds_object_end(o, SRDS_UNUSED);
    SRDS_CRASH_POINT();
    if (o->chunk) srds_heap_give(&h->heap, s->chunks, o->chunk);
    SRDS_CRASH_POINT();
    srds_object_spare(s, i);
}

/* Clear the bits of `stations`; the object ends with the last one. */
static inline void srds_store_leave(srds_store *s, uint32_t i, uint64_t stations) {
    srds_object *o = &s->objects[i];
    uint64_t state = srds_object_state(o), was_pinned = o->pinned;
    srds_count(s, o->holders & stations, o->length, 0);
    SRDS_CRASH_POINT();
    o->holders &= ~stations;
    SRDS_CRASH_POINT();
    if (o->holders == 0) {
        srds_store_drop(s, i);
        return;
    }
    o->pinned &= ~stations;
    if (was_pinned && !o->pinned) {
        if (state == SRDS_SEALED) srds_list_append(s, &s->head->idle, i);
        if (state == SRDS_SPILLED) srds_list_remove(s, &s->head->wishes, i);
    }
}

#endif
