/* Which parts of a range of bytes are in use: the allocator of the object arena.

   Two-level segregated fit (Masmano et al., ECRTS 2004): free chunks in bins of 32 steps per power of
   two, a bitmap over the bins, so that taking and giving are O(1); neighbours that are free are
   joined at once. Departures: the descriptors lie apart from the memory that they describe, so that
   nothing written there can damage them and giving memory back touches none of it; and small
   objects are cut from the upper end of the largest chunk, large ones from the lower end of the
   smallest that fits, so that the room of a large object stays whole, and warm, for the next one.

   Knows nothing of processes, locks or objects: see table.h. Indices, never pointers, since every
   process has the memory elsewhere; index 0 is none. All-zero memory is ready for srds_heap_reset. */
#ifndef SRDS_ARENA_H
#define SRDS_ARENA_H

#include <stdint.h>
#include <string.h>

enum {
    SRDS_UNIT = 64,                     /* sizes and places are multiples of it */
    SRDS_STEPS = 32,                    /* bins per power of two */
    SRDS_LEVELS = 42,
    SRDS_SMALL = 64 << 10,              /* objects up to here are small */
    SRDS_SMALL_HOLE = 512 << 10,        /* and are put into free chunks up to here, or on top */
    SRDS_LOOKS = 8                      /* chunks of its own bin that a request looks at first */
};

#define SRDS_HEAP_LIMIT ((uint64_t)1 << 46)

typedef struct {
    uint64_t offset, size;
    uint32_t below, above;              /* its neighbours in the memory */
    uint32_t next, previous;            /* in its bin; next: also in the list of spare descriptors */
    uint32_t free;
    uint32_t unused;
} srds_chunk;

typedef struct {
    uint64_t capacity, used;
    uint32_t descriptors;               /* how many there are: index 1 to this */
    uint32_t made;                      /* how many were ever used: the memory of the others is */
    uint32_t spare;                     /* untouched; those given back are a list */
    uint32_t top;                       /* the chunk with the highest offset */
    uint64_t small;                     /* sizes up to here are cut from above; 0: none */
    uint64_t levels;                    /* bit i: some bin of level i has a chunk */
    uint32_t steps[SRDS_LEVELS];
    uint32_t bins[SRDS_LEVELS][SRDS_STEPS];
} srds_heap;

static inline uint64_t srds_heap_rounded(uint64_t n) {
    return n < SRDS_UNIT ? SRDS_UNIT : (n + SRDS_UNIT - 1) & ~(uint64_t)(SRDS_UNIT - 1);
}

static inline unsigned srds_heap_bin(uint64_t size) {
    uint64_t units = size / SRDS_UNIT;
    unsigned log;
    if (units < SRDS_STEPS) return (unsigned)units;
    log = 63 - (unsigned)__builtin_clzll(units);
    return (log - 4) * SRDS_STEPS + (unsigned)((units >> (log - 5)) - SRDS_STEPS);
}

static inline void srds_heap_enlist(srds_heap *h, srds_chunk *c, uint32_t i) {
    unsigned bin = srds_heap_bin(c[i].size), level = bin / SRDS_STEPS, step = bin % SRDS_STEPS;
    uint32_t *head = &h->bins[level][step];
    c[i].free = 1;
    c[i].previous = 0;
    c[i].next = *head;
    if (*head) c[*head].previous = i;
    *head = i;
    h->steps[level] |= 1u << step;
    h->levels |= (uint64_t)1 << level;
}

static inline void srds_heap_delist(srds_heap *h, srds_chunk *c, uint32_t i) {
    unsigned bin = srds_heap_bin(c[i].size), level = bin / SRDS_STEPS, step = bin % SRDS_STEPS;
    c[i].free = 0;
    if (c[i].next) c[c[i].next].previous = c[i].previous;
    if (c[i].previous) {
        c[c[i].previous].next = c[i].next;
        return;
    }
    h->bins[level][step] = c[i].next;
    if (c[i].next == 0) {
        h->steps[level] &= ~(1u << step);
        if (h->steps[level] == 0) h->levels &= ~((uint64_t)1 << level);
    }
}

static inline uint32_t srds_heap_descriptor(srds_heap *h, srds_chunk *c) {
    uint32_t i = h->spare;
    if (i) h->spare = c[i].next;
    else if (h->made < h->descriptors) i = ++h->made;
    return i;
}

static inline void srds_heap_discard(srds_heap *h, srds_chunk *c, uint32_t i) {
    c[i].size = 0;
    c[i].free = 0;
    c[i].next = h->spare;
    h->spare = i;
}

/* One free chunk, whatever there was before. */
static inline void srds_heap_reset(srds_heap *h, srds_chunk *c, uint64_t capacity,
                                   uint32_t descriptors, uint64_t small) {
    memset(h, 0, sizeof *h);
    h->capacity = capacity;
    h->descriptors = descriptors;
    h->small = small;
    h->made = h->top = 1;
    c[1] = (srds_chunk){.offset = 0, .size = capacity};
    srds_heap_enlist(h, c, 1);
}

/* The first bin from `bin` on that has a chunk; -1: none. */
static inline int srds_heap_bin_from(const srds_heap *h, unsigned bin) {
    unsigned level = bin / SRDS_STEPS;
    uint32_t steps;
    uint64_t levels;
    if (level >= SRDS_LEVELS) return -1;
    steps = h->steps[level] & (~0u << (bin % SRDS_STEPS));
    if (steps) return (int)(level * SRDS_STEPS) + __builtin_ctz(steps);
    levels = h->levels & (~(uint64_t)0 << level << 1);
    if (levels == 0) return -1;
    level = (unsigned)__builtin_ctzll(levels);
    return (int)(level * SRDS_STEPS) + __builtin_ctz(h->steps[level]);
}

static inline uint32_t srds_heap_in_bin(const srds_heap *h, const srds_chunk *c, unsigned bin,
                                        uint64_t size, uint32_t looks) {
    uint32_t i = h->bins[bin / SRDS_STEPS][bin % SRDS_STEPS];
    for (; i && looks; i = c[i].next, looks--)
        if (c[i].size >= size) return i;
    return 0;
}

/* A free chunk of the highest bin; 0: nothing is free. */
static inline uint32_t srds_heap_largest(const srds_heap *h) {
    unsigned level;
    if (h->levels == 0) return 0;
    level = 63 - (unsigned)__builtin_clzll(h->levels);
    return h->bins[level][31 - __builtin_clz(h->steps[level])];
}

/* The free chunk that `size` bytes, a multiple of the unit, would be cut from; 0: none is enough. */
static inline uint32_t srds_heap_find(const srds_heap *h, const srds_chunk *c, uint64_t size) {
    unsigned bin = srds_heap_bin(size);
    int higher;
    uint32_t i = srds_heap_in_bin(h, c, bin, size, SRDS_LOOKS);
    if (i) return i;
    higher = srds_heap_bin_from(h, bin + 1);
    if (higher < 0) return srds_heap_in_bin(h, c, bin, size, ~0u);
    if (size <= h->small && (unsigned)higher > srds_heap_bin(SRDS_SMALL_HOLE))
        return srds_heap_largest(h);
    return h->bins[higher / SRDS_STEPS][higher % SRDS_STEPS];
}

/* Take [offset, offset + size) out of the free chunk i. 0: no descriptors are left. */
static inline uint32_t srds_heap_carve(srds_heap *h, srds_chunk *c, uint32_t i, uint64_t offset,
                                       uint64_t size) {
    uint64_t before = offset - c[i].offset, after = c[i].offset + c[i].size - offset - size;
    uint32_t low = 0, high = 0;
    if (before && (low = srds_heap_descriptor(h, c)) == 0) return 0;
    if (after && (high = srds_heap_descriptor(h, c)) == 0) {
        if (low) srds_heap_discard(h, c, low);
        return 0;
    }
    srds_heap_delist(h, c, i);
    if (low) {
        c[low] = (srds_chunk){.offset = c[i].offset, .size = before, .below = c[i].below, .above = i};
        if (c[low].below) c[c[low].below].above = low;
        c[i].below = low;
        srds_heap_enlist(h, c, low);
    }
    if (high) {
        c[high] = (srds_chunk){.offset = offset + size, .size = after, .below = i, .above = c[i].above};
        if (c[high].above) c[c[high].above].below = high;
        else h->top = high;
        c[i].above = high;
        srds_heap_enlist(h, c, high);
    }
    c[i].offset = offset;
    c[i].size = size;
    h->used += size;
    return i;
}

/* `size` bytes, a multiple of the unit; 0: there is no such room. */
static inline uint32_t srds_heap_take(srds_heap *h, srds_chunk *c, uint64_t size) {
    uint32_t i = srds_heap_find(h, c, size);
    uint64_t offset;
    if (i == 0) return 0;
    offset = c[i].offset;
    if (size <= h->small && c[i].size > SRDS_SMALL_HOLE) offset += c[i].size - size;
    return srds_heap_carve(h, c, i, offset, size);
}

static inline void srds_heap_give(srds_heap *h, srds_chunk *c, uint32_t i) {
    uint32_t below = c[i].below, above = c[i].above;
    h->used -= c[i].size;
    if (above && c[above].free) {
        srds_heap_delist(h, c, above);
        c[i].size += c[above].size;
        c[i].above = c[above].above;
        if (c[i].above) c[c[i].above].below = i;
        else h->top = i;
        srds_heap_discard(h, c, above);
    }
    if (below && c[below].free) {
        srds_heap_delist(h, c, below);
        c[below].size += c[i].size;
        c[below].above = c[i].above;
        if (c[below].above) c[c[below].above].below = below;
        else h->top = below;
        srds_heap_discard(h, c, i);
        i = below;
    }
    srds_heap_enlist(h, c, i);
}

/* After srds_heap_reset, for ranges in rising order: this one is in use. 0: it cannot be. */
static inline uint32_t srds_heap_place(srds_heap *h, srds_chunk *c, uint64_t offset, uint64_t size) {
    uint32_t i = h->top;
    if (!c[i].free || offset < c[i].offset || size > h->capacity || offset > h->capacity - size) return 0;
    return srds_heap_carve(h, c, i, offset, size);
}

/* 0 when all is as it should be, else the number of the rule that is broken: for tests. */
static inline int srds_heap_check(const srds_heap *h, const srds_chunk *c) {
    uint64_t end = h->capacity, used = 0;
    uint32_t i, last = 0, free_chunks = 0, listed = 0;
    for (i = h->top; i; last = i, i = c[i].below) {
        if (c[i].size == 0 || c[i].size % SRDS_UNIT || c[i].offset + c[i].size != end) return 1;
        if (c[i].above != last) return 2;
        if (last && c[i].free && c[last].free) return 3;
        end = c[i].offset;
        if (c[i].free) free_chunks++;
        else used += c[i].size;
    }
    if (end != 0 || used != h->used) return 4;
    for (unsigned level = 0; level < SRDS_LEVELS; level++) {
        if (!(h->levels >> level & 1) != !h->steps[level]) return 5;
        for (unsigned step = 0; step < SRDS_STEPS; step++) {
            if (!(h->steps[level] >> step & 1) != !h->bins[level][step]) return 6;
            for (last = 0, i = h->bins[level][step]; i; last = i, i = c[i].next, listed++)
                if (!c[i].free || c[i].previous != last
                    || srds_heap_bin(c[i].size) != level * SRDS_STEPS + step) return 7;
        }
    }
    return listed == free_chunks ? 0 : 8;
}

#endif
