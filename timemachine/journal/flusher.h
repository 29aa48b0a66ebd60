/* One log as its writer sees it: the append path, and the thread that drains the ring to disk.
 *
 * Nothing here takes the GIL, so a thread that appends while it holds the GIL may wait for the
 * flusher without a deadlock. Three locks, taken in this order:
 *   append  a spin lock: sequence numbers, Lamport clock, the ring's head
 *   io      held by the flusher for one attempt to write a batch, and by whoever changes its input
 *   state   guards the two conditions: `work` wakes the flusher, `progress` whoever waits for it
 *
 * An append copies the event into the ring and publishes the ring's head: the event is acknowledged.
 * The flusher turns records into frames, writes and syncs them, and then moves the ring's tail: they
 * are durable. When writing fails it keeps the records and tries again; meanwhile appends fail.
 */
#ifndef SRDS_FLUSHER_H
#define SRDS_FLUSHER_H

#include <pthread.h>
#include <sched.h>
#include <signal.h>

#include "ring.h"
#include "segment.h"

/* What an append returns when it returns no sequence number. */
enum {
    SRDS_FORKED = -1,
    SRDS_CLOSED = -2,
    SRDS_FAILED = -3,
    SRDS_TOO_LARGE = -4,
    SRDS_WOULD_WAIT = -5
};

enum { SRDS_BATCH_BYTES = 4 << 20, SRDS_RETRY_MS = 100 };

typedef struct {
    uint64_t size, segments;
    uint8_t root[32], headers[32];
} srds_head;

typedef struct {
    srds_ring ring;
    srds_segment segment;
    uint64_t segment_bytes, flush_bytes;
    uint64_t flush_ns;
    int ack;

    int append_lock;
    uint64_t head; /* the ring's, private to the appender: one load less from shared memory */
    uint64_t next_seq, lamport;
    uint64_t woken_at; /* ring position at which the flusher was last called for */
    const uint8_t *direct;
    uint64_t direct_n;
    const uint8_t *direct_parents;

    uint64_t generation; /* of forks: differs in a child */
    int closed, failed;  /* failed: an errno */
    int broken;          /* a withdrawn event may be on disk: only a new opening can tell */
    int idle, asked, stop, running;
    uint64_t durable;
    srds_head head_of_tree; /* of the durable events; guarded by `state` */
    pthread_mutex_t io, state;
    pthread_cond_t work, progress;
    pthread_t thread;
} srds_log;

static uint64_t srds_forks;
static inline void srds_count_fork(void) { srds_forks++; }
static inline void srds_watch_forks(void) { pthread_atfork(NULL, NULL, srds_count_fork); }

static inline uint64_t srds_monotonic_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline void srds_nap(uint64_t ns) {
    struct timespec t = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
    nanosleep(&t, NULL);
}

/* Wait on a condition with `state` held, at most `ns`. */
static inline void srds_wait(srds_log *log, pthread_cond_t *condition, uint64_t ns) {
    uint64_t until = srds_monotonic_ns() + ns;
    struct timespec t = {(time_t)(until / 1000000000u), (long)(until % 1000000000u)};
    pthread_cond_timedwait(condition, &log->state, &t);
}

static inline void srds_call_flusher(srds_log *log) {
    pthread_mutex_lock(&log->state);
    log->asked = 1;
    pthread_cond_signal(&log->work);
    pthread_mutex_unlock(&log->state);
}

static inline void srds_relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static inline int srds_try_append_lock(srds_log *log) {
    return !__atomic_load_n(&log->append_lock, __ATOMIC_RELAXED) &&
           !__atomic_exchange_n(&log->append_lock, 1, __ATOMIC_ACQUIRE);
}

static inline int srds_append_lock(srds_log *log, int may_wait) {
    for (int spins = 0; !srds_try_append_lock(log); spins++) {
        if (spins < 100) {
            srds_relax();
        } else if (spins < 120) {
            sched_yield();
        } else {
            if (!may_wait) return 0;
            srds_nap(20000);
        }
    }
    return 1;
}

static inline void srds_append_unlock(srds_log *log) {
    __atomic_store_n(&log->append_lock, 0, __ATOMIC_RELEASE);
}

/* Wait until `size` events are durable: 0, or SRDS_FAILED, SRDS_CLOSED, or SRDS_WOULD_WAIT when the
   time is over. */
static inline int srds_wait_durable(srds_log *log, uint64_t size, uint64_t ns) {
    int result = 0;
    uint64_t now = srds_monotonic_ns(), until = now + ns < now ? UINT64_MAX : now + ns;
    pthread_mutex_lock(&log->state);
    while (log->durable < size) {
        if (log->failed) { result = SRDS_FAILED; break; }
        if (!log->running) { result = SRDS_CLOSED; break; }
        if ((now = srds_monotonic_ns()) >= until) { result = SRDS_WOULD_WAIT; break; }
        log->asked = 1;
        pthread_cond_signal(&log->work);
        uint64_t left = until - now;
        srds_wait(log, &log->progress, left < 50000000u ? left : 50000000u);
    }
    pthread_mutex_unlock(&log->state);
    return result;
}

/* An event too large for the ring: the record only announces it, the flusher reads it where it is,
   and no other append may begin before it is on disk. If it cannot be written it is withdrawn; if
   it cannot be removed from the file either, its number must not be given to another event. */
static inline int64_t srds_finish_direct(srds_log *log, uint64_t seq, uint64_t old_head) {
    int result = srds_wait_durable(log, seq + 1, UINT64_MAX);
    if (result) {
        pthread_mutex_lock(&log->io);
        if (log->durable > seq) {
            result = 0;
        } else {
            log->broken = log->segment.torn;
            log->head = old_head;
            __atomic_store_n(log->ring.head, old_head, __ATOMIC_RELEASE);
            log->next_seq = seq;
        }
        pthread_mutex_unlock(&log->io);
    }
    log->direct = log->direct_parents = NULL;
    srds_append_unlock(log);
    return result ? result : (int64_t)seq;
}

/* Append one event; its sequence number, or one of the negative codes above. `decision` is 16 bytes
   or NULL, `parents` n_parents x 16 bytes. */
static inline int64_t srds_append(srds_log *log, uint16_t kind, uint64_t flags, const uint8_t *decision,
                           const uint8_t *parents, uint16_t n_parents, const uint8_t *data,
                           uint64_t n, int may_wait) {
    struct timespec now;
    if (log->generation != srds_forks) return SRDS_FORKED;
    if (log->closed) return SRDS_CLOSED;
    if (__atomic_load_n(&log->failed, __ATOMIC_RELAXED)) return SRDS_FAILED;
    if (n > SRDS_MAX_PAYLOAD) return SRDS_TOO_LARGE;
    const uint64_t whole = srds_ring_record_span(n_parents, n);
    const int direct = whole > log->ring.capacity / 4;
    const uint64_t span = direct ? SRDS_FIXED_END : whole;
    if ((direct || log->ack) && !may_wait) return SRDS_WOULD_WAIT;
    clock_gettime(CLOCK_REALTIME, &now);
    if (!srds_append_lock(log, may_wait)) return SRDS_WOULD_WAIT;
    while (log->head + span - __atomic_load_n(log->ring.tail, __ATOMIC_ACQUIRE) >
           log->ring.capacity) {
        int failed = __atomic_load_n(&log->failed, __ATOMIC_RELAXED);
        srds_append_unlock(log);
        if (failed) return SRDS_FAILED;
        if (!may_wait) return SRDS_WOULD_WAIT;
        srds_call_flusher(log);
        srds_nap(50000);
        srds_append_lock(log, 1);
    }
    if (log->closed) {
        srds_append_unlock(log);
        return SRDS_CLOSED;
    }
    const uint64_t seq = log->next_seq++;
    const uint64_t old_head = log->head;
    uint8_t *record = srds_ring_at(&log->ring, old_head);
    srds_put32(record, (uint32_t)n);
    srds_put32(record + 4, direct ? SRDS_RING_DIRECT : SRDS_RING_WHOLE);
    srds_put64(record + 8, seq);
    srds_put64(record + 16, ++log->lamport);
    srds_put64(record + 24, (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec);
    if (decision)
        memcpy(record + 32, decision, 16);
    else
        memset(record + 32, 0, 16);
    srds_put16(record + 48, kind);
    srds_put16(record + 50, n_parents);
    srds_put32(record + 52, 0);
    srds_put64(record + 56, flags);
    if (!direct) {
        if (n_parents) memcpy(record + SRDS_FIXED_END, parents, (size_t)n_parents * SRDS_PARENT);
        if (n) memcpy(record + SRDS_FIXED_END + (size_t)n_parents * SRDS_PARENT, data, n);
    } else {
        log->direct = data;
        log->direct_n = n;
        log->direct_parents = parents;
    }
    log->head = old_head + span;
    __atomic_store_n(log->ring.head, log->head, __ATOMIC_RELEASE);
    if (direct) return srds_finish_direct(log, seq, old_head);
    int call = 0;
    if (log->head - log->woken_at >= log->flush_bytes ||
        __atomic_load_n(&log->idle, __ATOMIC_RELAXED)) {
        log->woken_at = log->head;
        call = 1;
    }
    srds_append_unlock(log);
    /* Without the lock a signal can be missed; the flusher looks by itself after its interval. */
    if (call) pthread_cond_signal(&log->work);
    if (log->ack) {
        int result = srds_wait_durable(log, seq + 1, UINT64_MAX);
        if (result) return result;
    }
    return (int64_t)seq;
}

static inline void srds_observe(srds_log *log, uint64_t lamport) {
    srds_append_lock(log, 1);
    if (lamport > log->lamport) log->lamport = lamport;
    srds_append_unlock(log);
}

static inline uint64_t srds_size(srds_log *log) {
    srds_append_lock(log, 1);
    uint64_t size = log->next_seq;
    srds_append_unlock(log);
    return size;
}

/* Called by the flusher, with `io` held: write what lies between the ring's tail and `head`. */
static inline int srds_drain(srds_log *log, uint64_t head, uint64_t *reached) {
    srds_segment *s = &log->segment;
    uint64_t position = *log->ring.tail;
    int error;
    if (s->offset >= log->segment_bytes && s->tree.size > s->first_seq &&
        (error = srds_segment_begin(s)))
        return error;
    srds_batch_begin(s);
    while (position < head && s->batch_n < SRDS_BATCH_BYTES) {
        const uint8_t *record = srds_ring_at(&log->ring, position);
        const int direct = srds_get32(record + 4) == SRDS_RING_DIRECT;
        const uint32_t parents = srds_get16(record + 50);
        const uint8_t *parents_at = direct ? log->direct_parents : record + SRDS_FIXED_END;
        const uint8_t *data = direct ? log->direct : parents_at + (size_t)parents * SRDS_PARENT;
        const uint64_t n = direct ? log->direct_n : srds_get32(record);
        if ((error = srds_batch_add(s, record + SRDS_PROLOGUE, parents_at, data, n))) return error;
        position += direct ? SRDS_FIXED_END : srds_ring_record_span(parents, n);
    }
    *reached = position;
    return srds_batch_commit(s);
}

static inline void srds_note_head(srds_log *log) {
    srds_head *head = &log->head_of_tree;
    head->size = log->segment.tree.size;
    head->segments = log->segment.segments;
    srds_frontier_root(&log->segment.tree, head->root);
    memcpy(head->headers, log->segment.headers, 32);
}

/* One attempt at what is in the ring, with no lock held; the errno is left in `failed`. */
static inline void srds_flush(srds_log *log) {
    pthread_mutex_lock(&log->io);
    const uint64_t tail = *log->ring.tail;
    const uint64_t head = __atomic_load_n(log->ring.head, __ATOMIC_ACQUIRE);
    uint64_t reached = tail;
    int error = log->failed;
    if (!log->broken) error = head > tail ? srds_drain(log, head, &reached) : 0;
    pthread_mutex_lock(&log->state);
    __atomic_store_n(&log->failed, error, __ATOMIC_RELAXED);
    if (!error) {
        log->durable = log->segment.tree.size;
        srds_note_head(log);
        __atomic_store_n(log->ring.durable, log->durable, __ATOMIC_RELEASE);
        __atomic_store_n(log->ring.tail, reached, __ATOMIC_RELEASE);
    }
    pthread_cond_broadcast(&log->progress);
    pthread_mutex_unlock(&log->state);
    pthread_mutex_unlock(&log->io);
}

static inline void *srds_flusher(void *argument) {
    srds_log *log = argument;
    unsigned quiet = 0;
    int gave_up = 0;
    pthread_mutex_lock(&log->state);
    for (;;) {
        /* `stop` is read first: an append that came before it is seen in the head. */
        const int stop = log->stop;
        const uint64_t pending =
            __atomic_load_n(log->ring.head, __ATOMIC_ACQUIRE) - *log->ring.tail;
        if (stop && (!pending || gave_up)) break;
        if (log->failed && !stop) {
            srds_wait(log, &log->work, (uint64_t)SRDS_RETRY_MS * 1000000u);
        } else if (!pending) {
            log->asked = 0;
            const int idle = ++quiet > 10;
            __atomic_store_n(&log->idle, idle, __ATOMIC_RELAXED);
            srds_wait(log, &log->work, idle ? 10 * log->flush_ns : log->flush_ns);
            __atomic_store_n(&log->idle, 0, __ATOMIC_RELAXED);
            continue;
        } else if (!stop && !log->asked && pending < log->flush_bytes) {
            srds_wait(log, &log->work, log->flush_ns);
        }
        quiet = 0;
        log->asked = 0;
        pthread_mutex_unlock(&log->state);
        srds_flush(log);
        pthread_mutex_lock(&log->state);
        gave_up = stop && log->failed;
    }
    log->running = 0;
    pthread_cond_broadcast(&log->progress);
    pthread_mutex_unlock(&log->state);
    return NULL;
}

static inline int srds_log_start(srds_log *log) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_condattr_t monotonic;
    sigset_t all, before;
    pthread_once(&once, srds_watch_forks);
    log->generation = srds_forks;
    pthread_mutex_init(&log->io, NULL);
    pthread_mutex_init(&log->state, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&log->work, &monotonic);
    pthread_cond_init(&log->progress, &monotonic);
    pthread_condattr_destroy(&monotonic);
    log->next_seq = log->durable = log->segment.tree.size;
    log->lamport = log->segment.lamport;
    *log->ring.durable = log->durable;
    srds_note_head(log);
    log->running = 1;
    /* Signals belong to the interpreter's threads. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&log->thread, NULL, srds_flusher, log);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error) log->running = 0;
    return error;
}

/* Refuse further appends, drain what is there and end the thread: 0 or the errno that keeps events
   in the ring. */
static inline int srds_log_stop(srds_log *log) {
    srds_append_lock(log, 1);
    log->closed = 1;
    srds_append_unlock(log);
    pthread_mutex_lock(&log->state);
    log->stop = 1;
    pthread_cond_signal(&log->work);
    pthread_mutex_unlock(&log->state);
    pthread_join(log->thread, NULL);
    if (log->failed) return log->failed;
    return srds_sync_data(log->segment.leaves);
}

/* Wait until `events` more than `since` are durable, the time is over, or the flusher stops. */
static inline void srds_wait_checkpoint(srds_log *log, uint64_t since, uint64_t events, uint64_t ns) {
    uint64_t until = srds_monotonic_ns() + ns, now;
    pthread_mutex_lock(&log->state);
    while (!log->stop && log->durable < since + events && (now = srds_monotonic_ns()) < until)
        srds_wait(log, &log->progress, until - now);
    pthread_mutex_unlock(&log->state);
}

static inline void srds_get_head(srds_log *log, srds_head *head) {
    pthread_mutex_lock(&log->state);
    *head = log->head_of_tree;
    pthread_mutex_unlock(&log->state);
}

/* Give the segments to come another header; takes over `prefix`, which malloc made. */
static inline void srds_set_header_prefix(srds_log *log, char *prefix, size_t n) {
    pthread_mutex_lock(&log->io);
    free(log->segment.prefix);
    log->segment.prefix = prefix;
    log->segment.prefix_n = n;
    pthread_mutex_unlock(&log->io);
}

#endif
