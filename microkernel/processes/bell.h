/* How a process waits for others: one doorbell each, however many rings lead to it.

   A waiter first spins, if that is likely to pay, then sleeps in a futex. Spinning saves two orders
   of magnitude while the other side runs on another processor and costs as much while both share
   one, therefore it adapts: never when the peer last ran where I am; otherwise no longer than a
   wake-up takes; after f failures in a row the next 2^f chances are passed up. (Halving and doubling
   the time instead has two stable states, and is found in the wrong one.)

   Going to sleep is Dekker's handshake: the waiter says that it sleeps, then looks again; the
   producer publishes, then looks whether somebody sleeps; a full fence between the two steps on both
   sides. An event count per waiter, as in Caladan's and Folly's, whose waiter may ask to be woken
   only at the k-th message of a ring (`wake_at`). All zeros is a bell nobody waits at.

   Rule for the dead: who dies between "nobody sleeps any more" and the futex call wakes nobody.
   Whoever learns of a death calls `srds_bell_ring` for every bell the dead one could have notified;
   besides, nobody sleeps longer than SRDS_BELL_CHECK_NS without looking. */
#ifndef SRDS_BELL_H
#define SRDS_BELL_H

#include <errno.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#include "ring.h"

#ifdef __linux__
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
extern int sched_getcpu(void);      /* <sched.h> declares it for _GNU_SOURCE only */
#endif

#ifndef SRDS_BELL_CHECK_NS
#define SRDS_BELL_CHECK_NS 1000000000
#endif

enum {
    SRDS_SPIN_NS = 50000,           /* about what it takes to wake a sleeping process in a VM */
    SRDS_SPIN_CLOCK = 64,           /* looks between two looks at the clock */
    SRDS_SPIN_DOUBLINGS = 6         /* at most 2^6 chances are passed up */
};

typedef struct {                    /* one line of shared memory; the owner is the one who waits */
    _Atomic uint32_t asleep;        /* the futex word: 1 while the owner sleeps or is about to */
    _Atomic uint32_t rung;          /* srds_bell_ring was called */
    _Atomic uint64_t inbox;         /* bit i: the ring from station i has news */
    _Atomic uint32_t cpu;           /* 1 + the processor the owner last ran on; 0: not known */
    uint32_t unused[11];
} srds_bell;

static_assert(sizeof(srds_bell) == 64, "a bell fills one cache line");

typedef struct {                    /* private to the one who waits; all zeros to begin with */
    uint32_t failures, skip;
    int64_t budget_ns;              /* longest spin; 0: SRDS_SPIN_NS; negative: never spin */
    uint64_t spins, hits, sleeps;
} srds_spin;

static inline void srds_relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb" ::: "memory");       /* `yield` is no pause on most of them */
#endif
}

static inline int64_t srds_monotonic_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Sleep while *word == value, until the time or a wake: 0 or -1 with errno. Not private to this
   process: the word is in memory that others map elsewhere. */
#ifndef SRDS_MODEL
static inline int srds_futex_wait(_Atomic uint32_t *word, uint32_t value, int64_t until_ns) {
#ifdef __linux__
    struct timespec until = { until_ns / 1000000000, until_ns % 1000000000 };
    return (int)syscall(SYS_futex, word, FUTEX_WAIT_BITSET, value, &until, NULL,
                        FUTEX_BITSET_MATCH_ANY);
#else
    const struct timespec moment = { 0, 100000 };
    while (atomic_load_explicit(word, memory_order_acquire) == value) {
        if (srds_monotonic_ns() >= until_ns) { errno = ETIMEDOUT; return -1; }
        if (nanosleep(&moment, NULL) < 0) return -1;
    }
    return 0;
#endif
}

static inline void srds_futex_wake(_Atomic uint32_t *word) {
#ifdef __linux__
    syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
#else
    (void)word;
#endif
}
#endif

/* ---- For those who notify ---- */

/* Wake the owner, whatever it waits for; if it does not sleep, its next wait returns at once. The
   futex call is made in any case: whoever was to make it may have died. */
static inline void srds_bell_ring(srds_bell *bell) {
    atomic_store_explicit(&bell->rung, 1, SRDS_BEFORE_FENCE);
    srds_fence();
    atomic_store_explicit(&bell->asleep, 0, memory_order_release);
    srds_futex_wake(&bell->asleep);
}

/* After srds_ring_publish: station `from` has put something into `ring`, which leads to the owner. */
static inline void srds_bell_notify(srds_bell *bell, srds_ring *ring, unsigned from) {
    uint64_t bit = (uint64_t)1 << (from & 63);
    int known = 0;

    /* One full fence, between publishing and looking who sleeps; if the bit has to be set, setting
       it is that fence. While it stands, the line need not be written. */
    if (atomic_load_explicit(&bell->inbox, memory_order_relaxed) & bit) {
        srds_fence();
        known = (atomic_load_explicit(&bell->inbox, SRDS_AFTER_FENCE) & bit) != 0;
    }
    if (!known) {
        atomic_fetch_or_explicit(&bell->inbox, bit, memory_order_seq_cst);
        srds_fence_after_rmw();
    }
    if (atomic_load_explicit(&bell->asleep, SRDS_AFTER_FENCE)
        && atomic_load_explicit(&ring->published, memory_order_relaxed)
            >= atomic_load_explicit(&ring->wake_at, memory_order_relaxed)
        /* Only one of many makes the system call. */
        && atomic_exchange_explicit(&bell->asleep, 0, memory_order_acq_rel))
        srds_futex_wake(&bell->asleep);
}

/* ---- For the owner ---- */

/* Says where the owner runs, for those who think about spinning: the same number, 1 + processor. */
static inline unsigned srds_bell_here(srds_bell *bell) {
#ifdef __linux__
    unsigned cpu = (unsigned)sched_getcpu() + 1;
#else
    unsigned cpu = 0;
#endif
    if (atomic_load_explicit(&bell->cpu, memory_order_relaxed) != cpu)
        atomic_store_explicit(&bell->cpu, cpu, memory_order_relaxed);
    return cpu;
}

/* The rings with news since the last call. They must be read after it, to the end. */
static inline uint64_t srds_bell_news(srds_bell *bell) {
    uint64_t news;
    if (atomic_load_explicit(&bell->inbox, memory_order_relaxed) == 0) return 0;
    news = atomic_exchange_explicit(&bell->inbox, 0, memory_order_seq_cst);
    srds_fence_after_rmw();         /* a bit found set by a later producer is for what we now read */
    return news;
}

static inline int srds_bell_called(srds_bell *bell, _Atomic uint32_t *stop) {
    if (stop != NULL && atomic_load_explicit(stop, SRDS_AFTER_FENCE)) return 1;
    return atomic_load_explicit(&bell->rung, SRDS_AFTER_FENCE)
        && atomic_exchange_explicit(&bell->rung, 0, memory_order_acq_rel);
}

/* Is there a reason not to go to sleep? After the fence behind `asleep = 1`. */
static inline int srds_bell_ready(srds_bell *bell, srds_ring **inbound, int n,
                                  _Atomic uint32_t *stop) {
    uint64_t strangers = atomic_load_explicit(&bell->inbox, SRDS_AFTER_FENCE);
    for (int i = 0; i < n; i++)
        if (inbound[i] != NULL) {
            if (srds_ring_ready(inbound[i])) {
                /* Its producer may not have come to set the bit, and may never. */
                atomic_fetch_or_explicit(&bell->inbox, (uint64_t)1 << i, memory_order_relaxed);
                return 1;
            }
            strangers &= ~((uint64_t)1 << i);   /* news, but less than was asked for */
        }
    return strangers != 0 || srds_bell_called(bell, stop);
}

/* 1: news before the budget was spent. */
static inline int srds_bell_spin(srds_bell *bell, srds_spin *spin, int64_t until_ns,
                                 _Atomic uint32_t *stop) {
    int64_t now = srds_monotonic_ns(), end = now + (spin->budget_ns ? spin->budget_ns : SRDS_SPIN_NS);
    int cut = until_ns && until_ns < end;

    if (cut) end = until_ns;
    if (now >= end) return 0;
    spin->spins++;
    do {
        for (int i = 0; i < SRDS_SPIN_CLOCK; i++) {
            if (atomic_load_explicit(&bell->inbox, memory_order_acquire)
                || srds_bell_called(bell, stop)) {
                spin->hits++;
                spin->failures = 0;
                return 1;
            }
            srds_relax();
        }
    } while (srds_monotonic_ns() < end);
    if (cut) return 0;                          /* it was not given its chance */
    if (spin->failures < SRDS_SPIN_DOUBLINGS) spin->failures++;
    spin->skip = 1u << spin->failures;
    return 0;
}

/* Wait for news. inbound[i], for i < n ≤ 64, is the ring from station i to the owner or NULL;
   `peer_cpu` what srds_bell_here said where the answer is to come from, 0 if not known.

   1: news, a ring at the bell, or *stop; 0: until_ns (CLOCK_MONOTONIC; 0: never) has passed; -1: a
   signal. While spinning any message is news; while asleep those that reach the ring's wake_at.
   Messages that were left unread count as news if they do. srds_bell_news says where the news is. One thread at a time; no GIL needed. */
static inline int srds_bell_wait(srds_bell *bell, srds_spin *spin, srds_ring **inbound, int n,
                                 unsigned peer_cpu, int64_t until_ns, _Atomic uint32_t *stop) {
    unsigned cpu = srds_bell_here(bell);

    if (atomic_load_explicit(&bell->inbox, memory_order_acquire) || srds_bell_called(bell, stop))
        return 1;
    if (spin->budget_ns >= 0 && (peer_cpu == 0 || peer_cpu != cpu)) {
        if (spin->skip) spin->skip--;
        else if (srds_bell_spin(bell, spin, until_ns, stop)) return 1;
    }
    for (;;) {
        int64_t now = srds_monotonic_ns(), until = now + SRDS_BELL_CHECK_NS;
        int woken, reason;

        if (until_ns && until_ns < until) until = until_ns;
        atomic_store_explicit(&bell->asleep, 1, SRDS_BEFORE_FENCE);
        srds_fence();
        if (srds_bell_ready(bell, inbound, n, stop)) {
            atomic_store_explicit(&bell->asleep, 0, memory_order_relaxed);
            return 1;
        }
        if (until_ns && now >= until_ns) {
            atomic_store_explicit(&bell->asleep, 0, memory_order_relaxed);
            return 0;
        }
        spin->sleeps++;
        reason = srds_futex_wait(&bell->asleep, 1, until) < 0 ? errno : 0;
        /* Whoever wakes me on purpose has set it to 0; a belated wake of an earlier sleep has not. */
        woken = atomic_exchange_explicit(&bell->asleep, 0, memory_order_acq_rel) == 0;
        if (woken) {
            srds_bell_called(bell, stop);
            srds_bell_here(bell);
            return 1;
        }
        if (reason == EINTR) return -1;
    }
}

/* As new: for a station whose process died. Nobody may be waiting at it. */
static inline void srds_bell_reset(srds_bell *bell) {
    memset((void *)bell, 0, sizeof *bell);
}

#endif
