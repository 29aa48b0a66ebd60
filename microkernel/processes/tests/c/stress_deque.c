/* The deque: one owner, three thieves, every item taken once, and what was written before the push
   seen by whoever takes it. With few slots as with many: full, around the end, and the last item.

   stress_deque ITEMS; SRDS_DEQUE_BITS says how many slots. */
#include "stress.h"
#include "deque.h"

enum { THIEVES = 3 };

static srds_deque *deque;
static uint32_t items, *payload;
static _Atomic uint8_t *taken;
static _Atomic int done;
static _Atomic uint64_t stolen, lost_races;

static void take(uint32_t item) {
    must(item >= 1 && item <= items);
    must(payload[item] == item * 2654435761u);  /* plain memory: written before the push */
    must(atomic_fetch_add_explicit(&taken[item], 1, memory_order_relaxed) == 0);
}

static void *thief(void *with) {
    uint64_t mine = 0, lost = 0;
    uint32_t item, last = 0;
    (void)with;
    while (!atomic_load_explicit(&done, memory_order_acquire)) {
        switch (srds_deque_steal(deque, &item)) {
        case 1:
            must(item > last);                  /* the oldest first */
            last = item;
            take(item);
            mine++;
            break;
        case 0:
            sched_yield();
            break;
        default:
            lost++;
        }
    }
    atomic_fetch_add(&stolen, mine);
    atomic_fetch_add(&lost_races, lost);
    return NULL;
}

int main(int argc, char **argv) {
    pthread_t thieves[THIEVES];
    uint64_t seed = 5, popped = 0, full = 0;
    uint32_t next = 1, item;

    must(argc == 2);
    alarm(120);
    items = (uint32_t)strtoul(argv[1], NULL, 10);
    deque = shared_memory(sizeof *deque);
    payload = shared_memory((items + 1) * sizeof *payload);
    taken = shared_memory(items + 1);
    for (int i = 0; i < THIEVES; i++) start(&thieves[i], thief, NULL);
    while (next <= items) {
        uint32_t burst = 1 + below(&seed, 8), least = next;
        for (; burst && next <= items; burst--) {
            payload[next] = next * 2654435761u;
            if (!srds_deque_push(deque, next)) {
                full++;
                break;
            }
            next++;
        }
        if (below(&seed, 4) == 0) sched_yield();
        for (burst = below(&seed, 10); burst && srds_deque_pop(deque, &item); burst--) {
            take(item);
            must(item < next);
            if (item < least) least = item;
            popped++;
        }
        must(srds_deque_length(deque) <= SRDS_DEQUE_SLOTS);
    }
    while (srds_deque_pop(deque, &item)) {
        take(item);
        popped++;
    }
    must(srds_deque_length(deque) == 0);
    atomic_store_explicit(&done, 1, memory_order_release);
    for (int i = 0; i < THIEVES; i++) end(thieves[i]);
    for (uint32_t i = 1; i <= items; i++) must(taken[i] == 1);
    must(popped + stolen == items && popped > 0 && stolen > 0);
    if (SRDS_DEQUE_SLOTS <= 4) must(full > 0);
    printf("deque ok: %llu popped, %llu stolen, %llu races lost, %llu times full\n",
           (unsigned long long)popped, (unsigned long long)stolen, (unsigned long long)lost_races,
           (unsigned long long)full);
    return 0;
}
