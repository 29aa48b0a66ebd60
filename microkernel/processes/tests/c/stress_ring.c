/* The ring: messages of all sizes in batches of all lengths, around its end, full, half consumed,
   left behind by a killed process, and written by somebody who means harm.

   stress_ring MESSAGES */
#include "stress.h"
#include "ring.h"

#include <signal.h>
#include <sys/wait.h>

static uint64_t messages;

static uint32_t size_of(uint64_t number) {
    uint64_t seed = number * 7919;
    uint32_t kind = below(&seed, 100);
    uint32_t most = kind < 90 ? 16 : kind < 99 ? 256 : SRDS_RING_LARGEST / 64;
    return 64 * (1 + below(&seed, most));
}

static void fill(srds_message *m, uint64_t number) {
    uint32_t payload = m->size - (uint32_t)sizeof *m;
    m->kind = SRDS_FLOW;
    m->slot = (uint32_t)number;
    m->payload = payload;
    m->value = (int64_t)number;
    memset(m + 1, (int)(number % 251), payload);
}

static void verify(const srds_message *m, uint64_t number) {
    const unsigned char *byte = (const unsigned char *)(m + 1);
    must(m->kind == SRDS_FLOW && m->size == size_of(number));
    must(m->value == (int64_t)number && m->slot == (uint32_t)number);
    must(m->payload == m->size - sizeof *m);
    must(byte[0] == number % 251);
    must(memcmp(byte, byte + 1, m->payload - 1) == 0);
}

/* ---- Two sides at full speed ---- */

static void *produce(void *with) {
    srds_ring *ring = with;
    uint64_t seed = 1, number = 0, given_up = 0;
    while (number < messages) {
        uint32_t batch = 1 + below(&seed, 32);
        for (; batch && number < messages; batch--) {
            srds_message *m = srds_ring_reserve(ring, size_of(number));
            if (m == NULL) break;               /* full: publish what there is, let the other side go */
            if (below(&seed, 16) == 0) {
                given_up++;                     /* left as it is, it is a filler */
                continue;
            }
            fill(m, number++);
        }
        srds_ring_publish(ring);
        if (batch) sched_yield();
    }
    must(given_up > 0);
    return NULL;
}

static void *take(void *with) {
    srds_ring *ring = with;
    uint64_t seed = 2, number = 0;
    srds_message *kept = NULL;
    while (number < messages) {
        srds_message *m = srds_ring_next(ring);
        if (m == NULL) {
            srds_ring_consume(ring);
            kept = NULL;
            sched_yield();
            continue;
        }
        verify(m, number);
        /* What was read and not consumed stays as it was. */
        if (kept != NULL) verify(kept, (uint64_t)kept->value);
        number++;
        switch (below(&seed, 8)) {
        case 0: srds_ring_consume(ring); kept = NULL; break;
        case 1: srds_ring_consume_to(ring, m); kept = NULL; break;
        case 2: kept = m; break;
        case 3: if (kept) { srds_ring_consume_to(ring, kept); kept = NULL; } break;
        }
    }
    must(srds_ring_next(ring) == NULL);         /* nothing but what was given up */
    must(srds_ring_unread(ring) == 0);
    srds_ring_consume(ring);
    return NULL;
}

static void two_sides(void) {
    srds_ring *ring = shared_memory(sizeof *ring);
    uint64_t cursor = 0;
    pthread_t producer, consumer;
    start(&consumer, take, ring);
    start(&producer, produce, ring);
    end(producer);
    end(consumer);
    must(!ring->damaged);
    must(ring->head == ring->tail && ring->taken == ring->published);
    must(ring->published > messages);           /* with those given up */
    must(srds_ring_unconsumed(ring, &cursor) == NULL);
}

/* ---- Full, and what is left ---- */

static void full_and_left(void) {
    srds_ring *ring = shared_memory(sizeof *ring);
    uint64_t first = 0, next = 0, cursor;
    srds_message *m;

    must(srds_ring_reserve(ring, 0) == NULL && srds_ring_reserve(ring, 63) == NULL);
    must(srds_ring_reserve(ring, 100) == NULL);
    must(srds_ring_reserve(ring, SRDS_RING_LARGEST + 64) == NULL);
    must(srds_ring_next(ring) == NULL);

    for (int round = 0; round < 200; round++) {
        while ((m = srds_ring_reserve(ring, size_of(next))) != NULL) fill(m, next++);
        must(next > first);
        if (round == 0) must(srds_ring_next(ring) == NULL);     /* reserved is not published */
        srds_ring_publish(ring);
        must(srds_ring_unread(ring) == next - first);
        /* The dead one had read some of it, and consumed less. */
        for (uint64_t read = first; read < first + (next - first) / 2; read++) {
            m = srds_ring_next(ring);
            verify(m, read);
        }
        for (int again = 0; again < 2; again++) {
            uint64_t number = first;
            for (cursor = 0; (m = srds_ring_unconsumed(ring, &cursor)) != NULL; number++)
                verify(m, number);
            must(number == next);
        }
        while ((m = srds_ring_next(ring)) != NULL) {
            first = (uint64_t)m->value + 1;
            if (first + 2 >= next) break;       /* a little is left for the next round */
        }
        if (m != NULL) srds_ring_consume_to(ring, m);
        else srds_ring_consume(ring);
        cursor = 0;
        m = srds_ring_unconsumed(ring, &cursor);
        must(m == NULL ? first == next : (uint64_t)m->value == first);
        /* The rest is read but not consumed: as far as the next round goes, unread. */
        ring->read = ring->head;
        ring->taken = first;
    }
    srds_ring_reset(ring);
    cursor = 0;
    must(srds_ring_next(ring) == NULL && srds_ring_unconsumed(ring, &cursor) == NULL);
    must(srds_ring_unread(ring) == 0 && !ring->damaged);
    must(srds_ring_reserve(ring, SRDS_RING_LARGEST) != NULL);
    must(srds_ring_reserve(ring, SRDS_RING_LARGEST) != NULL);
    must(srds_ring_reserve(ring, 64) == NULL);
}

#ifndef __SANITIZE_THREAD__     /* what follows has one thread, or processes, which it does not watch */
/* ---- Somebody means harm: never a look outside, never without end ---- */

static void harm(int rounds) {
    srds_ring *ring = shared_memory(sizeof *ring);
    uint64_t seed = 3;
    int damaged = 0, found = 0;

    for (int round = 0; round < rounds; round++) {
        uint64_t cursor = 0, *header = (uint64_t *)(void *)ring;
        srds_message *m;

        srds_ring_reset(ring);
        for (int i = 0; i < 20; i++) {
            uint32_t size = 64 * (1 + below(&seed, 40));
            m = srds_ring_reserve(ring, size);
            if (m == NULL) break;
            m->kind = (uint8_t)below(&seed, SRDS_KINDS);
        }
        srds_ring_publish(ring);
        for (int blow = 1 + (int)below(&seed, 3); blow; blow--) {
            uint64_t value = next_random(&seed) >> below(&seed, 64);
            if (below(&seed, 2)) value &= ~(uint64_t)63;
            if (below(&seed, 2)) header[below(&seed, 32)] = value;
            else memcpy(ring->data + 64 * below(&seed, SRDS_RING_BYTES / 256) + 4 * below(&seed, 4), &value, 8);
        }
        for (int i = 0; i < 40; i++) {
            m = below(&seed, 2) ? srds_ring_next(ring) : srds_ring_unconsumed(ring, &cursor);
            if (m != NULL) {
                found++;
                must((unsigned char *)m >= ring->data && (unsigned char *)m - ring->data
                     + (ptrdiff_t)m->size <= SRDS_RING_BYTES);
                must(m->payload <= m->size && m->size % 64 == 0);
                if (below(&seed, 4) == 0) srds_ring_consume_to(ring, m);
            }
            if (below(&seed, 4) == 0) srds_ring_consume(ring);
            if (below(&seed, 4) == 0) {
                uint32_t size = 64 * (1 + below(&seed, SRDS_RING_LARGEST / 64));
                unsigned char *room = srds_ring_reserve(ring, size);
                if (room != NULL) {
                    must(room >= ring->data && room + size <= ring->data + SRDS_RING_BYTES);
                    if (below(&seed, 2)) memset(room + 64, 0xff, size - 64);
                }
            }
            srds_ring_unread(ring);
        }
        damaged += ring->damaged != 0;
    }
    must(found > rounds && damaged > rounds / 10 && damaged < rounds);
}

/* ---- A consumer is killed anywhere: what it has not answered is still there ---- */

static void worker(srds_ring *tasks, srds_ring *answers) {
    for (;;) {
        srds_message *task = srds_ring_next(tasks), *answer;
        if (task == NULL) continue;
        for (volatile int work = 0; work < 300; work++) continue;
        while (task->status) pause();           /* a task that never returns */
        while ((answer = srds_ring_reserve(answers, 64)) == NULL) continue;
        answer->kind = SRDS_FLOW;
        answer->value = task->value;
        srds_ring_publish(answers);
        srds_ring_consume(tasks);
    }
}

static void killed(int rounds) {
    srds_ring *tasks = shared_memory(sizeof *tasks), *answers = shared_memory(sizeof *answers);
    enum { TASKS = 3000 };
    static uint8_t answered[TASKS], left[TASKS];
    uint64_t seed = 4;
    int interrupted = 0;

    for (int round = 0; round < rounds; round++) {
        uint64_t cursor = 0, sent = 0, got = 0, until = below(&seed, TASKS - 500);
        uint64_t endless = round % 2 ? until + below(&seed, 400) : TASKS;
        srds_message *m;
        int unanswered = 0, twice = 0;
        pid_t child = fork();

        must(child >= 0);
        if (child == 0) worker(tasks, answers);
        memset(answered, 0, sizeof answered);
        memset(left, 0, sizeof left);
        while (got < until) {
            while (sent < TASKS && (m = srds_ring_reserve(tasks, 64)) != NULL) {
                m->kind = SRDS_FLOW;
                m->status = sent == endless;
                m->value = (int64_t)sent++;
            }
            srds_ring_publish(tasks);
            while ((m = srds_ring_next(answers)) != NULL) {
                must(m->value == (int64_t)got);
                answered[got++] = 1;
            }
            srds_ring_consume(answers);
            sched_yield();
        }
        must(kill(child, SIGKILL) == 0);
        must(waitpid(child, NULL, 0) == child);
        while ((m = srds_ring_next(answers)) != NULL) answered[m->value]++;
        while ((m = srds_ring_unconsumed(tasks, &cursor)) != NULL) left[m->value]++;
        for (uint64_t i = 0; i < sent; i++) {
            must(answered[i] <= 1 && left[i] <= 1 && answered[i] + left[i] >= 1);
            unanswered += !answered[i];
            twice += answered[i] && left[i];
        }
        must(twice <= 1);                       /* killed between publish and consume */
        must(!tasks->damaged && !answers->damaged);
        interrupted += unanswered > 0;
        srds_ring_reset(tasks);
        srds_ring_reset(answers);
    }
    must(interrupted >= rounds / 2);
}

#endif

int main(int argc, char **argv) {
    must(argc == 2);
    messages = strtoull(argv[1], NULL, 10);
    alarm(120);
    full_and_left();
    two_sides();
#ifndef __SANITIZE_THREAD__
    harm(20000);
    killed(100);
#endif
    puts("ring ok");
    return 0;
}
