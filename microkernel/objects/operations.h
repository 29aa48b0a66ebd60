/* What stations do with objects: take, seal, hold, pin and release them. See table.h.

   Each is short and under the lock; none of them waits. Who is told ENOMEM or EAGAIN waits for
   `changed` (srds_store_await) and tries again. */
#ifndef SRDS_OPERATIONS_H
#define SRDS_OPERATIONS_H

#include "memory.h"

static inline void srds_store_tell_changed(srds_store *s) {
    if (atomic_load(&s->head->waiting)) srds_store_wake(&s->head->changed);
}

/* Wait, at most `ns`, for a change after `seen` was read from `changed`. */
static inline void srds_store_await(srds_store *s, uint32_t seen, int64_t ns) {
    atomic_fetch_add(&s->head->waiting, 1);
    if (atomic_load(&s->head->changed) == seen) srds_store_sleep(&s->head->changed, seen, ns);
    atomic_fetch_sub(&s->head->waiting, 1);
}

/* The memory that the next object of this kind is likely to get is wanted warm; so is the upper half
   of a large one, while its maker touches the lower. Under the lock. */
static inline int srds_store_look_ahead(srds_store *s, uint64_t offset, uint64_t size) {
    srds_head *h = s->head;
    uint64_t ahead = size < SRDS_AHEAD_LEAST ? SRDS_AHEAD_LEAST
        : size > SRDS_AHEAD_MOST ? SRDS_AHEAD_MOST : size;
    uint64_t from, to, furthest;
    if (size <= SRDS_SMALL) {               /* these come from above */
        to = offset + size;
        from = to > ahead ? to - ahead : 0;
        furthest = from;
    } else {
        from = offset + size;
        to = h->capacity - from > ahead ? from + ahead : h->capacity;
        furthest = to - 1;
        if (size >= SRDS_TOGETHER && !srds_unit_is(s->warm, (from - 1) / SRDS_PAGE)) {
            from -= size / 2;               /* it is cold itself: the keeper makes its upper half */
            furthest = offset + size - 1;
        }
        if (from >= to) return 0;
    }
    if (srds_unit_is(s->warm, furthest / SRDS_PAGE)) return 0;
    h->ahead_from = from;
    h->ahead_to = to;
    return 1;
}

/* A new object of `length` bytes, held by this station. 0, ENOMEM (no room now), E2BIG (never),
   ENFILE (too many objects), or an errno of the lock. */
static inline int srds_store_take(srds_store *s, uint64_t length, uint64_t *handle, uint64_t *offset) {
    srds_head *h = s->head;
    uint64_t size;
    uint32_t chunk, i;
    srds_object *o;
    int error, errand;
    if (length > h->capacity) return E2BIG;
    size = srds_heap_rounded(length);
    if ((error = srds_store_lock(s)) != 0) return error;
    chunk = srds_heap_take(&h->heap, s->chunks, size);
    SRDS_CRASH_POINT();
    if (chunk == 0) {
        if (size > h->wanted) h->wanted = size;
        srds_store_unlock(s);
        srds_store_wake(&h->errands);
        return ENOMEM;
    }
    i = h->spare;
    if (i) h->spare = s->objects[i].next;
    else if (h->made < h->limit) i = ++h->made;
    else {
        srds_heap_give(&h->heap, s->chunks, chunk);
        srds_store_unlock(s);
        return ENFILE;
    }
    SRDS_CRASH_POINT();
    o = &s->objects[i];
    o->holders = (uint64_t)1 << s->station;
    o->pinned = 0;
    o->offset = s->chunks[chunk].offset;
    o->length = length;
    o->chunk = chunk;
    o->error = 0;
    SRDS_CRASH_POINT();
    srds_object_become(o, SRDS_WRITING);
    SRDS_CRASH_POINT();
    h->objects++;
    srds_count(s, o->holders, length, 1);
    *handle = atomic_load_explicit(&o->word, memory_order_relaxed) >> 8 << 32 | i;
    *offset = o->offset;
    errand = srds_store_look_ahead(s, o->offset, size);
    srds_store_unlock(s);
    if (errand) srds_store_wake(&h->errands);
    return 0;
}

/* From now on the object does not change. `pinned`: this station still looks at it. */
static inline int srds_store_seal(srds_store *s, uint64_t handle, int pinned) {
    int error = srds_store_lock(s);
    uint32_t i;
    if (error) return error;
    if ((i = srds_store_entry(s, handle)) != 0 && srds_object_state(&s->objects[i]) == SRDS_WRITING) {
        s->objects[i].pinned = pinned ? (uint64_t)1 << s->station : 0;
        SRDS_CRASH_POINT();
        srds_object_become(&s->objects[i], SRDS_SEALED);
        SRDS_CRASH_POINT();
        if (!pinned) srds_list_append(s, &s->head->idle, i);
    } else error = ESTALE;
    srds_store_unlock(s);
    return error;
}

/* This station holds the object from now on. ESTALE: it is gone; EBUSY: it is not sealed. */
static inline int srds_store_hold(srds_store *s, uint64_t handle, uint64_t *length) {
    uint64_t bit = (uint64_t)1 << s->station, state;
    int error = srds_store_lock(s);
    uint32_t i;
    srds_object *o;
    if (error) return error;
    i = srds_store_entry(s, handle);
    o = &s->objects[i];
    state = i ? srds_object_state(o) : SRDS_UNUSED;
    if (state == SRDS_UNUSED || state == SRDS_DROPPED || o->holders == 0) error = ESTALE;
    else if (state == SRDS_WRITING) error = EBUSY;
    else {
        if (!(o->holders & bit)) srds_count(s, bit, o->length, 1);
        SRDS_CRASH_POINT();
        o->holders |= bit;
        *length = o->length;
        if (state == SRDS_SEALED && !o->pinned) {   /* it is the newest now */
            srds_list_remove(s, &s->head->idle, i);
            srds_list_append(s, &s->head->idle, i);
        }
    }
    srds_store_unlock(s);
    return error;
}

/* This station looks at a sealed object that it holds, which stays in memory. EAGAIN: it was
   spilled and is being restored; otherwise why it cannot be. */
static inline int srds_store_pin(srds_store *s, uint64_t handle, uint64_t *offset) {
    uint64_t bit = (uint64_t)1 << s->station, state;
    int error = srds_store_lock(s), errand = 0;
    uint32_t i;
    srds_object *o;
    if (error) return error;
    i = srds_store_entry(s, handle);
    o = &s->objects[i];
    state = i ? srds_object_state(o) : SRDS_UNUSED;
    if (state == SRDS_SEALED || state == SRDS_SPILLING) {
        if (state == SRDS_SEALED && !o->pinned) srds_list_remove(s, &s->head->idle, i);
        SRDS_CRASH_POINT();
        o->pinned |= bit;
        *offset = o->offset;
    } else if (state == SRDS_SPILLED && (o->pinned & bit) && o->error) {
        error = o->error;
    } else if (state == SRDS_SPILLED || state == SRDS_RESTORING) {
        if (state == SRDS_SPILLED && !o->pinned) {
            o->error = 0;
            srds_list_append(s, &s->head->wishes, i);
        }
        errand = state == SRDS_SPILLED;
        o->pinned |= bit;
        error = EAGAIN;
    } else error = ESTALE;
    srds_store_unlock(s);
    if (errand) srds_store_wake(&s->head->errands);
    return error;
}

static inline void srds_store_unpin(srds_store *s, uint64_t handle) {
    uint64_t bit = (uint64_t)1 << s->station, state;
    uint32_t i;
    if (srds_store_lock(s)) return;
    i = srds_store_entry(s, handle);
    if (i && (s->objects[i].pinned & bit)) {
        state = srds_object_state(&s->objects[i]);
        s->objects[i].pinned &= ~bit;
        SRDS_CRASH_POINT();
        if (!s->objects[i].pinned && state == SRDS_SEALED) {
            srds_list_append(s, &s->head->idle, i);
        } else if (!s->objects[i].pinned && state == SRDS_SPILLED) {
            srds_list_remove(s, &s->head->wishes, i);
        }
    }
    srds_store_unlock(s);
    srds_store_tell_changed(s);             /* it may be spilled for who waits for room */
}

/* This station holds the object no more. */
static inline void srds_store_release(srds_store *s, uint64_t handle) {
    uint32_t i;
    int dropped;
    if (srds_store_lock(s)) return;
    if ((i = srds_store_entry(s, handle)) != 0) srds_store_leave(s, i, (uint64_t)1 << s->station);
    dropped = s->head->dropped.first != 0;
    srds_store_unlock(s);
    if (dropped) srds_store_wake(&s->head->errands);
    srds_store_tell_changed(s);
}

/* A station is dead: it holds nothing any more. */
static inline int srds_store_forget(srds_store *s, unsigned station) {
    uint64_t bit = (uint64_t)1 << station;
    int error = srds_store_lock(s);
    if (error) return error;
    for (uint32_t i = 1; i <= s->head->made; i++) {
        uint64_t state = srds_object_state(&s->objects[i]);
        if (state == SRDS_UNUSED || state == SRDS_DROPPED) continue;
        if ((s->objects[i].holders | s->objects[i].pinned) & bit) srds_store_leave(s, i, bit);
    }
    srds_store_unlock(s);
    srds_store_wake(&s->head->errands);
    srds_store_wake(&s->head->changed);
    return 0;
}

typedef struct {
    uint64_t capacity, used, objects, spilled, spilled_bytes, largest_free, rebuilt;
    uint64_t held[SRDS_STATIONS], held_bytes[SRDS_STATIONS];
    int spill_error;
} srds_numbers;

static inline int srds_store_numbers(srds_store *s, srds_numbers *n) {
    srds_head *h = s->head;
    uint32_t i;
    int error = srds_store_lock(s);
    if (error) return error;
    *n = (srds_numbers){.capacity = h->capacity, .used = h->heap.used, .objects = h->objects,
                        .spilled = h->spilled, .spilled_bytes = h->spilled_bytes,
                        .rebuilt = h->rebuilt, .spill_error = h->spill_error};
    memcpy(n->held, h->held, sizeof n->held);
    memcpy(n->held_bytes, h->held_bytes, sizeof n->held_bytes);
    for (i = srds_heap_largest(&h->heap); i; i = s->chunks[i].next)
        if (s->chunks[i].size > n->largest_free) n->largest_free = s->chunks[i].size;
    srds_store_unlock(s);
    return 0;
}

#endif
