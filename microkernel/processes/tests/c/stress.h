/* What the stress programs share: threads that stand for processes over one shared mapping, a bound
   on their time, and numbers that are the same in every run. */
#ifndef STRESS_H
#define STRESS_H

#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define must(condition) ((condition) ? (void)0 : must_fail(#condition, __FILE__, __LINE__))

static void __attribute__((noreturn)) must_fail(const char *what, const char *file, int line) {
    fprintf(stderr, "%s:%d: not so: %s\n", file, line, what);
    abort();
}

/* Zeroed and shared, between two pages that may not be touched. */
static void *shared_memory(size_t bytes) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE), room = (bytes + page - 1) / page * page;
    unsigned char *at = mmap(NULL, room + 2 * page, PROT_NONE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    must(at != MAP_FAILED);
    must(mprotect(at + page, room, PROT_READ | PROT_WRITE) == 0);
    return at + page;
}

static inline uint64_t next_random(uint64_t *state) {       /* splitmix64 */
    uint64_t z = (*state += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

static inline uint32_t below(uint64_t *state, uint32_t n) {
    return (uint32_t)(((next_random(state) >> 32) * n) >> 32);
}

static inline void start(pthread_t *thread, void *(*body)(void *), void *with) {
    must(pthread_create(thread, NULL, body, with) == 0);
}

static inline void end(pthread_t thread) { must(pthread_join(thread, NULL) == 0); }

#endif
