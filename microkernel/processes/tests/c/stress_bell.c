/* The doorbell: millions of hand-overs between sleepers, one waiter and many producers, thresholds,
   time limits, signals, and how often it spins.

   stress_bell ROUNDS. A lost wake is a hang here, which the alarm ends: nobody looks by the clock. */
#define SRDS_BELL_CHECK_NS INT64_C(3600000000000)
#include "stress.h"
#include "bell.h"

#include <signal.h>

enum { STATIONS = 4 };

static struct memory {
    srds_bell bells[STATIONS];
    _Alignas(64) srds_ring rings[STATIONS][STATIONS];       /* from, to */
} *memory;
static uint64_t rounds;
static int64_t budget;

static void fresh(void) {
    memory = shared_memory(sizeof *memory);
}

static void send(unsigned from, unsigned to, int64_t value) {
    srds_ring *ring = &memory->rings[from][to];
    srds_message *m;
    while ((m = srds_ring_reserve(ring, 64)) == NULL) sched_yield();
    m->kind = SRDS_FLOW;
    m->value = value;
    srds_ring_publish(ring);
    srds_bell_notify(&memory->bells[to], ring, from);
}

/* Reads all that is there for `me`; returns how many, the last value of each sender in `last`. */
static uint64_t receive(unsigned me, int64_t *last) {
    uint64_t news = srds_bell_news(&memory->bells[me]), got = 0;
    for (unsigned from = 0; from < STATIONS; from++) {
        srds_ring *ring = &memory->rings[from][me];
        srds_message *m;
        if (!(news >> from & 1)) continue;
        while ((m = srds_ring_next(ring)) != NULL) {
            must(m->value == last[from] + 1);
            last[from] = m->value;
            got++;
        }
        srds_ring_consume(ring);
        must(!ring->damaged);
    }
    return got;
}

static void wait_for_news(unsigned me, srds_spin *spin, unsigned peer) {
    srds_ring *inbound[STATIONS];
    for (unsigned from = 0; from < STATIONS; from++) inbound[from] = &memory->rings[from][me];
    must(srds_bell_wait(&memory->bells[me], spin, inbound, STATIONS,
                        peer < STATIONS ? memory->bells[peer].cpu : 0, 0, NULL) == 1);
}

/* ---- Ping-pong ---- */

static void *player(void *with) {
    unsigned me = (unsigned)(uintptr_t)with, other = 1 - me;
    srds_spin spin = { .budget_ns = budget };
    int64_t last[STATIONS] = { 0 };
    if (me == 0) send(0, 1, 1);
    while (last[other] < (int64_t)rounds) {
        if (receive(me, last)) send(me, other, last[other] + (me == 0));
        else wait_for_news(me, &spin, other);
    }
    must(spin.hits <= spin.spins);
    if (budget < 0) must(spin.spins == 0);
    return NULL;
}

static void ping_pong(int64_t with_budget) {
    pthread_t players[2];
    budget = with_budget;
    fresh();
    for (uintptr_t i = 0; i < 2; i++) start(&players[i], player, (void *)i);
    for (int i = 0; i < 2; i++) end(players[i]);
}

/* ---- Many producers, one waiter, who asks for the k-th ---- */

static void *crowd(void *with) {
    unsigned me = (unsigned)(uintptr_t)with;
    uint64_t seed = me;
    for (int64_t i = 1; i <= (int64_t)rounds; i++) {
        send(me, 0, i);
        if (below(&seed, 64) == 0) sched_yield();
    }
    return NULL;
}

static void many(int threshold) {
    pthread_t producers[STATIONS];
    srds_spin spin = { .budget_ns = -1 };
    int64_t last[STATIONS] = { 0 };
    uint64_t got = 0, seed = 9;

    fresh();
    for (uintptr_t i = 1; i < STATIONS; i++) start(&producers[i], crowd, (void *)i);
    while (got < rounds * (STATIONS - 1)) {
        uint64_t now = receive(0, last);
        got += now;
        if (now) continue;
        for (unsigned i = 1; i < STATIONS; i++) {
            uint64_t left = rounds - (uint64_t)last[i];
            uint64_t want = threshold ? 1 + below(&seed, 100) : 1;
            if (want > left) want = left ? left : 1;
            srds_ring_wake_when(&memory->rings[i][0], (uint64_t)last[i] + want);
        }
        if (got < rounds * (STATIONS - 1)) wait_for_news(0, &spin, STATIONS);
    }
    for (unsigned i = 1; i < STATIONS; i++) {
        end(producers[i]);
        must(last[i] == (int64_t)rounds);
    }
}

/* ---- One at a time, where the outcome is certain ---- */

static void *sleeper(void *with) {
    srds_spin spin = { .budget_ns = -1 };
    wait_for_news(0, &spin, STATIONS);
    *(uint64_t *)with = spin.sleeps;
    return NULL;
}

static void await_sleep(void) {
    while (!memory->bells[0].asleep) sched_yield();
}

static void threshold_is_exact(void) {
    pthread_t thread;
    uint64_t sleeps = 0;
    for (uint64_t k = 1; k < 200; k++) {
        fresh();
        srds_ring_wake_when(&memory->rings[1][0], k);
        srds_ring_wake_when(&memory->rings[2][0], UINT64_MAX);
        start(&thread, sleeper, &sleeps);
        await_sleep();
        send(2, 0, 1);                          /* not what it waits for */
        for (uint64_t i = 1; i < k; i++) send(1, 0, (int64_t)i);
        must(memory->bells[0].asleep == 1);
        send(1, 0, (int64_t)k);
        must(memory->bells[0].asleep == 0);
        end(thread);
        must(sleeps <= 1);
        must(srds_bell_news(&memory->bells[0]) == (1 << 1 | 1 << 2));
        must(srds_ring_unread(&memory->rings[1][0]) == k);
        must(munmap(memory, sizeof *memory) == 0);
    }
}

static void ring_wakes_whoever_sleeps(void) {
    pthread_t thread;
    uint64_t sleeps;
    fresh();
    srds_ring_wake_when(&memory->rings[1][0], 1000);
    for (int i = 0; i < 500; i++) {
        start(&thread, sleeper, &sleeps);
        if (i % 3) await_sleep();               /* or before it sleeps */
        /* Somebody was to wake it, said so, and died: the word is 0 and it sleeps all the same. */
        if (i % 3 == 2) atomic_store(&memory->bells[0].asleep, 0);
        srds_bell_ring(&memory->bells[0]);
        end(thread);
        must(memory->bells[0].rung == 0);
    }
}

static void an_unread_message_is_news(void) {
    srds_spin spin = { 0 };
    int64_t last[STATIONS] = { 0 };
    srds_ring *ring;
    fresh();
    ring = &memory->rings[3][0];
    srds_message *m = srds_ring_reserve(ring, 64);
    m->kind = SRDS_FLOW;
    m->value = 1;
    srds_ring_publish(ring);                    /* and its producer died before it could notify */
    must(srds_bell_news(&memory->bells[0]) == 0);
    wait_for_news(0, &spin, STATIONS);
    must(receive(0, last) == 1);
}

static void on_signal(int number) { (void)number; }

static void *interrupted(void *with) {
    srds_spin spin = { .budget_ns = -1 };
    *(int *)with = srds_bell_wait(&memory->bells[0], &spin, NULL, 0, 0, 0, NULL);
    return NULL;
}

static void time_and_signals(void) {
    struct sigaction action = { .sa_handler = on_signal };
    _Atomic uint32_t stop = 0;
    srds_spin spin = { 0 };
    pthread_t thread;
    int answer = 7;
    int64_t now;

    fresh();
    now = srds_monotonic_ns();
    must(srds_bell_wait(&memory->bells[0], &spin, NULL, 0, 0, now - 1, NULL) == 0);
    must(spin.spins == 0 && spin.sleeps == 0);  /* only looked */
    must(srds_bell_wait(&memory->bells[0], &spin, NULL, 0, 0, now + 2000000, NULL) == 0);
    must(srds_monotonic_ns() >= now + 2000000);
    must(memory->bells[0].asleep == 0);
    stop = 1;
    must(srds_bell_wait(&memory->bells[0], &spin, NULL, 0, 0, 0, &stop) == 1);
    must(memory->bells[0].cpu >= 1);

    must(sigaction(SIGUSR1, &action, NULL) == 0);
    start(&thread, interrupted, &answer);
    await_sleep();
    /* Until it is in the system call a signal does not interrupt it: again, until it did. */
    while (memory->bells[0].asleep) {
        pthread_kill(thread, SIGUSR1);
        sched_yield();
    }
    end(thread);
    must(answer == -1);
}

static void spins_less_after_failures(void) {
    srds_spin spin = { .budget_ns = 1 };
    uint64_t wanted = 0, skip = 0, failures = 0;
    unsigned here;

    fresh();
    for (int i = 0; i < 150; i++) {
        if (skip) skip--;
        else {
            wanted++;
            if (failures < 6) failures++;
            skip = 1u << failures;
        }
        must(srds_bell_wait(&memory->bells[0], &spin, NULL, 0, 0, srds_monotonic_ns() + 200000, NULL)
             == 0);
    }
    must(spin.hits == 0);
    /* On a busy machine a time limit may pass before the spin begins: then it is none. */
    must(spin.spins <= wanted && spin.spins >= 1);

    /* Never while the other one was last seen where I am. */
    memset(&spin, 0, sizeof spin);
    do {
        here = srds_bell_here(&memory->bells[0]);
        memset(&spin, 0, sizeof spin);
        srds_bell_wait(&memory->bells[0], &spin, NULL, 0, here, srds_monotonic_ns() + 100000, NULL);
    } while (srds_bell_here(&memory->bells[0]) != here);    /* moved meanwhile: nothing is shown */
    must(spin.spins == 0);
}

int main(int argc, char **argv) {
    must(argc == 2);
    rounds = strtoull(argv[1], NULL, 10);
    alarm(120);
    threshold_is_exact();
    ring_wakes_whoever_sleeps();
    an_unread_message_is_news();
    time_and_signals();
    spins_less_after_failures();
    ping_pong(0);
    ping_pong(-1);
    ping_pong(2000);
    many(0);
    many(1);
    puts("bell ok");
    return 0;
}
