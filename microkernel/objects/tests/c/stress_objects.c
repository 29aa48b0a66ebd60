/* The object arena as C: against an oracle, under threads, and with processes that die in it.

   stress_objects heap N       N random takes and gives of the allocator, beside a map of bytes
   stress_objects threads N    stations as threads that make, pass on, look at and drop N objects each
   stress_objects points       a process dies at the 1st, 2nd, ... place where it can hold the lock
   stress_objects kills N      N processes are killed while they are busy
*/
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static long points_left = -1;       /* counts down to death; negative: never */
static void crash_point(void) {
    if (points_left > 0 && --points_left == 0) kill(getpid(), SIGKILL);
}
#define SRDS_CRASH_POINT() crash_point()
#include "keeper.h"

#define must(condition) ((condition) ? (void)0 : must_fail(#condition, __FILE__, __LINE__))

static void __attribute__((noreturn)) must_fail(const char *what, const char *file, int line) {
    fprintf(stderr, "%s:%d: not so: %s\n", file, line, what);
    abort();
}

static uint64_t next_random(uint64_t *state) {              /* splitmix64 */
    uint64_t z = (*state += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

static uint32_t below(uint64_t *state, uint32_t n) {
    return (uint32_t)(((next_random(state) >> 32) * n) >> 32);
}

/* ---- The allocator beside a map of its units ---- */

enum { UNITS = 1 << 15, MOST = 600 };

static void heap(long rounds) {
    static srds_heap h;
    static unsigned char owner[UNITS];
    static uint32_t taken[MOST];
    srds_chunk *c = calloc(2 * MOST + 3, sizeof *c);
    uint64_t seed = 1;
    uint32_t n = 0;
    must(c != NULL);
    srds_heap_reset(&h, c, (uint64_t)UNITS * SRDS_UNIT, 2 * MOST + 2, SRDS_SMALL);
    for (long round = 0; round < rounds; round++) {
        if (n < MOST && below(&seed, 100) < (round / 5000 % 2 ? 35 : 65)) {
            uint32_t most = below(&seed, 10) ? 60 : below(&seed, 10) ? 2000 : UNITS;
            uint64_t size = (uint64_t)(1 + below(&seed, most)) * SRDS_UNIT, first;
            uint32_t i = srds_heap_take(&h, c, size);
            if (i == 0) {                   /* then no run of free units is that long */
                uint32_t run = 0;
                for (uint32_t u = 0; u < UNITS; u++) {
                    run = owner[u] ? 0 : run + 1;
                    must((uint64_t)run * SRDS_UNIT < size);
                }
                continue;
            }
            must(c[i].size == size && !c[i].free && c[i].offset % SRDS_UNIT == 0);
            first = c[i].offset / SRDS_UNIT;
            must(first + size / SRDS_UNIT <= UNITS);
            for (uint64_t u = first; u < first + size / SRDS_UNIT; u++) must(owner[u]++ == 0);
            taken[n++] = i;
        } else if (n) {
            uint32_t at = below(&seed, n), i = taken[at];
            memset(owner + c[i].offset / SRDS_UNIT, 0, c[i].size / SRDS_UNIT);
            srds_heap_give(&h, c, i);
            taken[at] = taken[--n];
        }
        if (round % 64 == 0) {
            uint64_t used = 0;
            must(srds_heap_check(&h, c) == 0);
            for (uint32_t u = 0; u < UNITS; u++) used += owner[u];
            must(used * SRDS_UNIT == h.used);
        }
    }
    while (n) srds_heap_give(&h, c, taken[--n]);
    must(srds_heap_check(&h, c) == 0 && h.used == 0 && c[h.top].size == h.capacity);
    free(c);
}

/* ---- What holds of a whole arena ---- */

static srds_store *arena(uint64_t capacity, const char *folder) {
    srds_store *s;
    int fd;
    must(srds_store_create(capacity, 4096, 1000000000, folder, &fd, &s) == 0);
    return s;
}

static uint32_t length_of(srds_store *s, srds_list *list) {
    uint32_t n = 0;
    for (uint32_t i = list->first; i; i = s->objects[i].next) n++;
    return n;
}

/* What is derived from the entries is what would be derived now. Nobody else is in the arena. */
static void check(srds_store *s) {
    srds_numbers before, after;
    uint32_t idle, wishes, dropped;
    must(srds_store_numbers(s, &before) == 0);
    must(srds_store_lock(s) == 0);
    must(srds_heap_check(&s->head->heap, s->chunks) == 0);
    idle = length_of(s, &s->head->idle);
    wishes = length_of(s, &s->head->wishes);
    dropped = length_of(s, &s->head->dropped);
    srds_store_rebuild(s);
    must(srds_heap_check(&s->head->heap, s->chunks) == 0);
    must(idle == length_of(s, &s->head->idle));
    must(wishes == length_of(s, &s->head->wishes));
    must(dropped == length_of(s, &s->head->dropped));
    srds_store_unlock(s);
    must(srds_store_numbers(s, &after) == 0);
    after.rebuilt = before.rebuilt;
    must(memcmp(&before, &after, sizeof before) == 0);
}

static void fill(srds_store *s, uint64_t offset, uint64_t n, uint64_t handle) {
    for (uint64_t at = 0; at + 8 <= n; at += 512) memcpy(s->data + offset + at, &handle, 8);
}

static void verify(srds_store *s, uint64_t offset, uint64_t n, uint64_t handle) {
    for (uint64_t at = 0; at + 8 <= n; at += 512) must(memcmp(s->view + offset + at, &handle, 8) == 0);
}

/* ---- Stations as threads, through one mapping so that ThreadSanitizer sees them meet ---- */

enum { THREADS = 3, SHELF = 16 };

typedef struct {
    srds_store store;
    long rounds;
    uint64_t seed;
} station;

static struct {
    pthread_mutex_t lock;
    uint64_t handles[SHELF];        /* each held by who put it there, as station 0 */
} shelf = {.lock = PTHREAD_MUTEX_INITIALIZER};

static srds_store *shelf_store;

static void unshelve(uint32_t at) {
    pthread_mutex_lock(&shelf.lock);
    if (shelf.handles[at]) srds_store_release(shelf_store, shelf.handles[at]);
    shelf.handles[at] = 0;
    pthread_mutex_unlock(&shelf.lock);
}

static uint64_t make(station *me) {
    uint64_t n = below(&me->seed, 8) ? below(&me->seed, 3000) : below(&me->seed, 200000);
    uint64_t handle, offset;
    for (;;) {
        uint32_t seen = atomic_load(&me->store.head->changed);
        int error = srds_store_take(&me->store, n, &handle, &offset);
        if (error == 0) break;
        must(error == ENOMEM);
        if (me->store.folder == NULL) unshelve(below(&me->seed, SHELF));
        else srds_store_await(&me->store, seen, 2000000);
    }
    fill(&me->store, offset, n, handle);
    must(srds_store_seal(&me->store, handle, 0) == 0);
    return handle;
}

static void look(station *me, uint64_t handle) {
    uint64_t n, offset;
    must(srds_store_hold(&me->store, handle, &n) == 0);
    for (;;) {
        uint32_t seen = atomic_load(&me->store.head->changed);
        int error = srds_store_pin(&me->store, handle, &offset);
        if (error == 0) break;
        must(error == EAGAIN);
        srds_store_await(&me->store, seen, 2000000);
    }
    verify(&me->store, offset, n, handle);
    srds_store_unpin(&me->store, handle);
}

static void *station_run(void *with) {
    station *me = with;
    for (long round = 0; round < me->rounds; round++) {
        uint32_t at = below(&me->seed, SHELF);
        uint64_t mine = make(me), other, n;
        must(srds_store_hold(shelf_store, mine, &n) == 0);
        srds_store_release(&me->store, mine);
        pthread_mutex_lock(&shelf.lock);
        other = shelf.handles[at];
        shelf.handles[at] = mine;
        if (other) must(srds_store_hold(&me->store, other, &n) == 0);
        if (other) srds_store_release(shelf_store, other);
        pthread_mutex_unlock(&shelf.lock);
        if (other == 0) continue;
        look(me, other);
        srds_store_release(&me->store, other);
    }
    return NULL;
}

static void threads(long rounds, const char *folder) {
    srds_store *s = arena(256 << 10, folder);
    static station stations[THREADS];
    pthread_t running[THREADS];
    srds_numbers n;
    shelf_store = s;
    for (int i = 0; i < THREADS; i++) {
        stations[i].store = *s;
        stations[i].store.station = (unsigned)i + 1;
        stations[i].rounds = rounds;
        stations[i].seed = (uint64_t)i;
    }
    must(srds_keeper_start(s) == 0);
    for (int i = 0; i < THREADS; i++) {
        must(pthread_create(&running[i], NULL, station_run, &stations[i]) == 0);
    }
    for (int i = 0; i < THREADS; i++) must(pthread_join(running[i], NULL) == 0);
    for (int i = 0; i < SHELF; i++)
        if (shelf.handles[i]) srds_store_release(s, shelf.handles[i]);
    for (int i = 0; i < 5000; i++) {        /* the keeper may still be writing one out */
        must(srds_store_numbers(s, &n) == 0);
        if (n.objects == 0) break;
        usleep(1000);
    }
    srds_keeper_stop(s);
    must(n.objects == 0);
    must((s->file >= 0) == (folder != NULL));
    check(s);
    must(srds_store_numbers(s, &n) == 0 && n.used == 0 && n.spilled == 0);
    srds_store_detach(s);
}

/* ---- Processes that die ---- */

enum { KEPT = 12 };

typedef struct {
    uint64_t handles[KEPT], offsets[KEPT], lengths[KEPT], used;
} kept_objects;

static void keep_some(srds_store *s, kept_objects *kept) {
    srds_numbers n;
    for (int i = 0; i < KEPT; i++) {
        kept->lengths[i] = 700u * (uint64_t)i;
        must(srds_store_take(s, kept->lengths[i], &kept->handles[i], &kept->offsets[i]) == 0);
        fill(s, kept->offsets[i], kept->lengths[i], kept->handles[i]);
        must(srds_store_seal(s, kept->handles[i], i % 2) == 0);
    }
    for (int i = 0; i < KEPT; i += 3) srds_store_release(s, kept->handles[i]);
    must(srds_store_numbers(s, &n) == 0);
    kept->used = n.used;
}

static void check_kept(srds_store *s, const kept_objects *kept) {
    srds_numbers n;
    uint64_t length;
    must(srds_store_numbers(s, &n) == 0);
    must(n.used == kept->used && n.held[1] == 0);
    for (int i = 0; i < KEPT; i++) {
        int error = srds_store_hold(s, kept->handles[i], &length);
        must(error == (i % 3 ? 0 : ESTALE));
        if (error == 0) must(length == kept->lengths[i]);
        if (error == 0) verify(s, kept->offsets[i], length, kept->handles[i]);
    }
    check(s);
}

/* What a worker does, again and again: every operation, on its own objects and on its parent's. */
static void work(srds_store *s, const kept_objects *kept, uint64_t *seed, int rounds) {
    uint64_t mine[8] = {0}, offset, n;
    for (int round = 0; round < rounds; round++) {
        int at = (int)below(seed, 8), other = (int)below(seed, KEPT);
        if (mine[at]) srds_store_release(s, mine[at]);
        mine[at] = 0;
        if (srds_store_take(s, below(seed, 5000), &mine[at], &offset) == 0)
            srds_store_seal(s, mine[at], (int)below(seed, 2));
        else mine[at] = 0;
        if (srds_store_hold(s, kept->handles[other], &n) == 0) {
            if (srds_store_pin(s, kept->handles[other], &offset) == 0 && below(seed, 2))
                srds_store_unpin(s, kept->handles[other]);
            if (below(seed, 2)) srds_store_release(s, kept->handles[other]);
        }
        if (mine[at] && srds_store_pin(s, mine[at], &offset) == 0) srds_store_unpin(s, mine[at]);
    }
}

static void points(void) {
    srds_store *s = arena(1 << 20, NULL), worker;
    kept_objects kept;
    int status = 0;
    long point = 0;
    srds_numbers n;
    keep_some(s, &kept);
    do {
        pid_t child = fork();
        must(child >= 0);
        point++;
        if (child == 0) {
            uint64_t seed = 7;
            worker = *s;
            worker.station = 1;
            points_left = point;
            work(&worker, &kept, &seed, 40);
            _exit(0);
        }
        must(waitpid(child, &status, 0) == child);
        must(srds_store_forget(s, 1) == 0);
        check_kept(s, &kept);
    } while (WIFSIGNALED(status) && point < 100000);
    must(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    must(srds_store_numbers(s, &n) == 0);
    must(point > 300 && n.rebuilt > (uint64_t)point);
    printf("%ld points\n", point);
    srds_store_detach(s);
}

static void kills(long rounds) {
    srds_store *s = arena(1 << 20, NULL), worker;
    kept_objects kept;
    uint64_t seed = 3;
    srds_numbers n;
    keep_some(s, &kept);
    for (long round = 0; round < rounds; round++) {
        pid_t child = fork();
        must(child >= 0);
        if (child == 0) {
            worker = *s;
            worker.station = 1;
            seed += (uint64_t)round;
            for (;;) work(&worker, &kept, &seed, 1000);
        }
        usleep(200 + below(&seed, 1500));
        must(kill(child, SIGKILL) == 0);
        must(waitpid(child, NULL, 0) == child);
        must(srds_store_forget(s, 1) == 0);
        check_kept(s, &kept);
    }
    must(srds_store_numbers(s, &n) == 0);
    printf("%ld kills, %lu of them in the lock\n", rounds, (unsigned long)n.rebuilt - (unsigned long)rounds);
    srds_store_detach(s);
}

int main(int argc, char **argv) {
    long amount = argc > 2 ? atol(argv[2]) : 0;
    must(argc > 1);
    alarm(100);
    if (!strcmp(argv[1], "heap")) heap(amount);
    else if (!strcmp(argv[1], "threads")) threads(amount, argc > 3 ? argv[3] : NULL);
    else if (!strcmp(argv[1], "points")) points();
    else if (!strcmp(argv[1], "kills")) kills(amount);
    else must(0);
    puts("ok");
    return 0;
}
