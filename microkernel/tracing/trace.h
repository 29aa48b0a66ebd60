/* The trace of a kernel: one 64-byte entry for each task that ended, and counters beside them.

   Entries are written into blocks of 256 KiB. A full block goes to a thread that writes it to an
   unlinked temporary file (spill.h), so memory stays bounded and nothing is left out. The task path
   takes no lock, makes no call and sees no error: what the disk refuses is counted. All appends of
   one process happen under the GIL.

   Blocks and counters lie in one memfd. So the other processes of the kernel write theirs beside
   the driver's (each has its own area, all take their block numbers from one counter), what a
   killed one had written is still there, and `srds top` reads the counters of a running kernel
   without its doing anything. Everything is gone with the last process that has it mapped. */
#ifndef SRDS_TRACE_H
#define SRDS_TRACE_H

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "microkernel/tracing/ticks.h"

enum {
    SRDS_TRACE_STATIONS = 64,
    SRDS_TRACE_BLOCK = 1 << 18,                 /* bytes */
    SRDS_TRACE_BLOCKS = 16,                     /* in memory, of each process */
    SRDS_TRACE_ROWS = 256,                      /* threads of the driver, then stations */
    SRDS_TRACE_LANES = SRDS_TRACE_ROWS - SRDS_TRACE_STATIONS,
    SRDS_TRACE_KNOWN = 256,
    SRDS_TRACE_THREADS = 32,
    SRDS_STATS_BYTES = 1 << 20,
    SRDS_NAMES_AT = 65536                       /* {uint64 hash, uint32 length, text} each */
};

enum { SRDS_ENDED_OK, SRDS_ENDED_ERROR, SRDS_ENDED_CANCELLED, SRDS_ENDED_MISSED, SRDS_ENDINGS };

enum { SRDS_KIND_TASK, SRDS_KIND_DECISION, SRDS_KIND_COROUTINE, SRDS_IN_NS = 0x80 };

enum { SRDS_SENT = 3 };             /* where a task is that another process has sent here */

typedef struct {
    uint64_t id_hi, id_lo;
    uint64_t parent_hi, parent_lo;
    uint64_t started, ended;        /* ticks, or ns with SRDS_IN_NS; started is 0: it never ran */
    uint64_t function;              /* the hash of its name: the same in all processes */
    uint16_t station, lane;
    uint8_t status, attempt, kind, place;
} srds_trace_entry;

typedef struct {                    /* takes the place of the first entry of a block */
    _Atomic uint64_t number;        /* 1 and up, over all processes; 0: the block is empty */
    _Atomic uint32_t count;
    uint32_t station;
    srds_moment opened;
    uint8_t spare[32];
} srds_trace_head;

enum { SRDS_TRACE_ENTRIES = SRDS_TRACE_BLOCK / sizeof(srds_trace_entry) - 1 };

typedef struct {
    srds_trace_head head;
    srds_trace_entry entries[SRDS_TRACE_ENTRIES];
} srds_trace_block;

typedef struct {                    /* a thread of the driver, or another process */
    uint64_t running, since;        /* hash of the outermost task's function, its start in ticks */
    uint64_t tasks, busy;           /* busy in ticks, or ns of another process */
    uint32_t depth;
    int32_t process;                /* 0: the row is not in use */
    char name[48];
} srds_trace_row;

typedef struct {                    /* of the tasks that were to run in one kind of place */
    uint64_t submitted, begun, left;            /* left: those begun that have returned */
    uint64_t ended[SRDS_ENDINGS];
    uint64_t retried;
} srds_place_counts;

typedef struct {
    char magic[8];
    uint32_t version, closed;                   /* version: the size of this, which tells */
    int32_t process;
    uint32_t counter;                           /* whether ticks are the processor's */
    int64_t opened_unix_ns;
    srds_moment opened;
    uint8_t run_id[16];
    char program[96];
    char placement[16];
    _Atomic uint64_t blocks, lost, overwritten;
    _Atomic uint64_t capacity;                  /* blocks of the file, once it may not grow */
    _Atomic uint32_t spill_error;               /* errno of the last block that was not written */
    _Atomic uint32_t names_used;
    srds_place_counts places[SRDS_TRACE_STATIONS][4];   /* by placement; the last: SRDS_SENT */
    srds_trace_row rows[SRDS_TRACE_ROWS];
} srds_stats;

static_assert(sizeof(srds_trace_entry) == 64, "an entry fills one cache line");
static_assert(sizeof(srds_trace_head) == 64, "the head takes the place of an entry");
static_assert(sizeof(srds_trace_block) == SRDS_TRACE_BLOCK, "a block is what it says");
static_assert(sizeof(srds_stats) <= SRDS_NAMES_AT, "the names follow the counters");

typedef struct srds_trace {
    /* what each task touches */
    srds_trace_block *block;
    uint32_t used;
    int counter;
    srds_place_counts *places;
    srds_trace_row *rows;
    uint32_t last_row;
    uint16_t station;
    uint16_t staged_station, staged_lane;
    uint8_t staged_in_ns;
    const void *staged;             /* the task whose times are known already, or were last */
    uint64_t staged_started, staged_ended;
    struct { unsigned long thread; uint64_t lane; } threads[SRDS_TRACE_THREADS];
    uint64_t known[SRDS_TRACE_KNOWN];   /* functions whose names were noted, by their hash */
    /* what each block touches */
    int (*turn)(struct srds_trace *);
    srds_stats *stats;
    srds_trace_block *area;
    int memory, file;               /* descriptors */
    char *folder;
    pthread_mutex_t lock;
    pthread_cond_t filled, emptied;
    pthread_t writer;
    int writing, stopping, inherited;
    uint8_t empty[SRDS_TRACE_BLOCKS], full[SRDS_TRACE_BLOCKS];
    unsigned empties, fulls;
    uint64_t lost_told;
    struct srds_trace *next;        /* of all in this process */
} srds_trace;

static inline unsigned srds_trace_slot(unsigned long thread) {
    return (unsigned)((uint64_t)thread * 0x9e3779b97f4a7c15ULL >> 59);
}

/* The lane of a thread, or -1: it has none yet. */
static inline int srds_trace_lane(const srds_trace *t, unsigned long thread) {
    unsigned i = srds_trace_slot(thread);
    return t->threads[i].thread == thread ? (int)t->threads[i].lane : -1;
}

static inline void srds_trace_know(srds_trace *t, uint64_t function) {
    t->known[function % SRDS_TRACE_KNOWN] = function;
}

static inline void srds_trace_give_lane(srds_trace *t, unsigned long thread, unsigned lane) {
    unsigned i = srds_trace_slot(thread);
    t->threads[i].thread = thread;
    t->threads[i].lane = lane;
}

/* A task begins in this thread; returns when. */
static inline uint64_t srds_trace_begin(srds_trace *t, unsigned lane, unsigned place,
                                        uint64_t function) {
    srds_trace_row *row = &t->rows[lane < t->last_row ? lane : t->last_row];
    uint64_t now = srds_ticks(t->counter);
    t->places[place].begun++;
    if (row->depth++ == 0) {
        row->running = function;
        row->since = now;
    }
    return now;
}

/* What began in this thread has returned; `append` for this task takes the time from here. */
static inline void srds_trace_end(srds_trace *t, const void *task, unsigned lane, unsigned place,
                                  uint64_t started) {
    srds_trace_row *row = &t->rows[lane < t->last_row ? lane : t->last_row];
    uint64_t now = srds_ticks(t->counter);
    if (now < started) now = started;   /* of two processors, a few ns apart */
    t->places[place].left++;
    row->tasks++;
    if (--row->depth == 0) {
        row->running = 0;
        row->busy += now - started;
    }
    t->staged = task;
    t->staged_started = started;
    t->staged_ended = now;
    t->staged_station = t->station;
    t->staged_lane = (uint16_t)lane;
    t->staged_in_ns = 0;
}

static inline int srds_trace_knows(const srds_trace *t, uint64_t function) {
    return t->known[function % SRDS_TRACE_KNOWN] == function;
}

/* A task's entry. Where its times are not staged, it ends now, in `lane`, or never ran. Returns
   whether entries were lost since that was last told. */
static inline int srds_trace_append(srds_trace *t, const void *task, uint64_t id_hi, uint64_t id_lo,
                                    uint64_t parent_hi, uint64_t parent_lo, uint64_t function,
                                    uint64_t started, unsigned lane, unsigned place,
                                    unsigned status, unsigned attempt, unsigned kind) {
    srds_place_counts *counts = &t->places[place];
    srds_trace_entry *e;
    int news = 0;
    if (__builtin_expect(t->used == SRDS_TRACE_ENTRIES, 0)) news = t->turn(t);
    e = &t->block->entries[t->used];
    e->id_hi = id_hi;
    e->id_lo = id_lo;
    e->parent_hi = parent_hi;
    e->parent_lo = parent_lo;
    e->function = function;
    if (t->staged == task) {
        t->staged = NULL;
        e->started = t->staged_started;
        e->ended = t->staged_ended;
        e->station = t->staged_station;
        e->lane = t->staged_lane;
        kind |= t->staged_in_ns;
    } else {
        e->started = t->staged_started = started;
        e->ended = t->staged_ended = srds_ticks(t->counter);
        t->staged_in_ns = 0;
        e->station = t->station;
        e->lane = (uint16_t)lane;
    }
    e->status = (uint8_t)status;
    e->attempt = (uint8_t)attempt;
    e->kind = (uint8_t)kind;
    e->place = (uint8_t)place;
    counts->ended[status]++;
    counts->retried += attempt;
    t->used++;
    atomic_store_explicit(&t->block->head.count, t->used, memory_order_release);
    return news;
}

#endif
