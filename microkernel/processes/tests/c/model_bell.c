/* Every interleaving of publish and notify with going to sleep: nobody sleeps through a message.

   model_bell MODEL SCENARIO */
#include "model.h"

#define SRDS_RING_BITS 9
#include "bell.h"

static struct {
    srds_bell bell;
    srds_ring rings[2];
    _Atomic uint32_t stop;
    uint32_t received[2], answered[4];
} shared;

static int messages[2];                 /* each producer sends that many, one by one */
static int batch = 1;
static int wake_at;                     /* what the consumer asks for while it sleeps */
static int rung = -1;                   /* 1: somebody rings for the dead; -1: nobody dies */
static int producers = 1;

static void producer(int me) {
    srds_ring *ring = &shared.rings[me];
    for (int i = 0; i < messages[me];) {
        for (int k = 0; k < batch && i < messages[me]; k++, i++) {
            srds_message *m = srds_ring_reserve(ring, 64);
            model_assert(m != NULL);
            m->kind = SRDS_CONTROL;
            m->value = i;
        }
        srds_ring_publish(ring);
        srds_bell_notify(&shared.bell, ring, (unsigned)me);
        model_forget((uint64_t)i);
    }
}

static void consumer(int me) {
    srds_ring *inbound[2] = { &shared.rings[0], &shared.rings[1] };
    srds_spin spin = { .budget_ns = -1 };
    (void)me;
    for (;;) {
        uint64_t news = srds_bell_news(&shared.bell);
        for (int i = 0; i < producers; i++) {
            srds_message *m;
            if (!(news >> i & 1)) continue;
            while ((m = srds_ring_next(&shared.rings[i])) != NULL) {
                model_assert(m->value == shared.received[i]);
                shared.received[i]++;
            }
            srds_ring_consume(&shared.rings[i]);
            model_assert(!shared.rings[i].damaged);
        }
        if (shared.received[0] == (uint32_t)messages[0]
            && shared.received[1] == (uint32_t)messages[1]) return;
        if (rung >= 0 && atomic_load_explicit(&shared.stop, memory_order_acquire)) return;
        for (int i = 0; wake_at && i < producers; i++)
            srds_ring_wake_when(&shared.rings[i], (uint64_t)wake_at);
        model_assert(srds_bell_wait(&shared.bell, &spin, inbound, producers, 0, 0,
                                    rung >= 0 ? &shared.stop : NULL) == 1);
        model_forget(0);
    }
}

/* Learns that a producer has died, or was done, and says so. */
static void monitor(int me) {
    (void)me;
    model_await_death(0);
    atomic_store_explicit(&shared.stop, 1, memory_order_release);
    if (rung) srds_bell_ring(&shared.bell);
}

static void all_received(void) {
    model_assert(shared.received[0] == (uint32_t)messages[0]);
    model_assert(shared.received[1] == (uint32_t)messages[1]);
}

static void nothing(void) {}

/* ---- Consume after publish: a worker that dies anywhere ---- */

static void worker(int me) {            /* tasks in rings[0], answers into rings[1] */
    srds_message *task;
    (void)me;
    while ((task = srds_ring_next(&shared.rings[0])) != NULL) {
        srds_message *answer = srds_ring_reserve(&shared.rings[1], 64);
        model_assert(answer != NULL);
        answer->kind = SRDS_CONTROL;
        answer->value = task->value;
        srds_ring_publish(&shared.rings[1]);
        srds_ring_consume(&shared.rings[0]);
    }
}

static void driver(int me) {
    uint64_t cursor = 0;
    srds_message *m;
    (void)me;
    for (int i = 0; i < 2; i++) {
        m = srds_ring_reserve(&shared.rings[0], 64);
        m->kind = SRDS_CONTROL;
        m->value = i;
        srds_ring_publish(&shared.rings[0]);
    }
    model_await_death(0);
    while ((m = srds_ring_unconsumed(&shared.rings[0], &cursor)) != NULL) shared.answered[m->value]++;
    while ((m = srds_ring_next(&shared.rings[1])) != NULL) shared.answered[m->value]++;
    model_assert(shared.answered[0] >= 1 && shared.answered[1] >= 1);   /* none is lost */
}

int main(int argc, char **argv) {
    const char *scenario = argv[2];
    int threads = 3, consumes = 1;
    void (*check)(void) = all_received;

    assert(argc == 3);
    messages[0] = 2;
    model_thread_is(0, producer, 0);
    if (!strcmp(scenario, "one")) {
        threads = 2;
    } else if (!strcmp(scenario, "two")) {
        messages[0] = messages[1] = 1;
        producers = 2;
        model_thread_is(1, producer, 0);
        consumes = 2;
    } else if (!strcmp(scenario, "threshold")) {
        threads = 2;
        messages[0] = 3;
        wake_at = 3;
    } else if (!strcmp(scenario, "batch")) {
        threads = 2;
        messages[0] = 3;
        batch = 2;
        wake_at = 2;
    } else if (!strcmp(scenario, "death") || !strcmp(scenario, "death-unrung")) {
        rung = !strcmp(scenario, "death");
        model_thread_is(0, producer, 1);
        model_thread_is(2, monitor, 0);
        check = nothing;
    } else if (!strcmp(scenario, "recovery")) {
        threads = 2;
        check = nothing;
        model_thread_is(0, worker, 1);
        model_thread_is(1, driver, 0);
        consumes = 0;
    } else {
        return 2;
    }
    if (consumes) {
        model_alone(&shared.bell.cpu);
        for (int i = 0; i < 2; i++) {
            model_alone(&shared.rings[i].head);     /* never full */
            model_alone(&shared.rings[i].taken);
            model_alone(&shared.rings[i].damaged);
        }
    }
    if (consumes) model_thread_is(consumes, consumer, 0);
    model_run(scenario, model_memory_named(argv[1]), threads, &shared, sizeof shared, check);
    return 0;
}
