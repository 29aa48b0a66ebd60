/* Every interleaving of one owner and two thieves: each item is taken once or still there.

   model_deque MODEL OWNER STEALS STEALS: OWNER is a word of `+` (push) and `-` (pop); each thief
   tries the given number of times. */
#include "model.h"

#ifndef SRDS_DEQUE_BITS
#define SRDS_DEQUE_BITS 1               /* two slots: full and around the end within a few pushes */
#endif
#define SRDS_RING_BITS 9
#include "deque.h"

enum { ITEMS = 8, NOBODY = 0 };

static struct {
    srds_deque deque;
    uint8_t pushed[ITEMS], taken[ITEMS];
    uint32_t last_stolen[MODEL_THREADS];
} shared;

static const char *owner_does;
static int steals[MODEL_THREADS];

static void take(uint32_t item) {
    model_assert(item >= 1 && item < ITEMS && shared.pushed[item]);
    shared.taken[item]++;
    model_assert(shared.taken[item] == 1);
}

static void owner(int me) {
    uint32_t next = 1, item;
    (void)me;
    for (const char *p = owner_does; *p; p++) {
        if (*p == '+') {
            shared.pushed[next] = 1;    /* nobody reads it before the item is there */
            if (srds_deque_push(&shared.deque, next)) next++;
            else shared.pushed[next] = 0;
        } else if (srds_deque_pop(&shared.deque, &item)) take(item);
        model_forget((uint64_t)(p - owner_does) << 8 | next);
    }
}

static void thief(int me) {
    for (int i = 0; i < steals[me]; i++) {
        uint32_t item;
        if (srds_deque_steal(&shared.deque, &item) == 1) {
            take(item);
            model_assert(item > shared.last_stolen[me]);    /* the oldest first */
            shared.last_stolen[me] = item;
        }
        model_forget((uint64_t)i);
    }
}

static void check(void) {
    int64_t top = (int64_t)model_peek(&shared.deque.top, 8);
    int64_t bottom = (int64_t)model_peek(&shared.deque.bottom, 8);
    model_assert(top <= bottom && bottom - top <= SRDS_DEQUE_SLOTS);
    for (; top < bottom; top++)
        take((uint32_t)model_peek(&shared.deque.slots[top & (SRDS_DEQUE_SLOTS - 1)], 4));
    for (int i = 1; i < ITEMS; i++) model_assert(shared.pushed[i] == shared.taken[i]);
}

int main(int argc, char **argv) {
    assert(argc == 5);
    owner_does = argv[2];
    steals[1] = atoi(argv[3]);
    steals[2] = atoi(argv[4]);
    model_thread_is(0, owner, 0);
    model_thread_is(1, thief, 0);
    model_thread_is(2, thief, 0);
    model_run(argv[2], model_memory_named(argv[1]), 3, &shared, sizeof shared, check);
    return 0;
}
