/* The time stamps of the trace: the processor's own counter where it can be trusted, read in a few
   nanoseconds without a call, else CLOCK_MONOTONIC.

   On x86-64 the counter can be trusted when the processor says that it is invariant (same rate in
   every power state) and the operating system, which checks that the counters of all processors
   agree, has not given it up for another clock. On AArch64 the architecture promises both. Whoever
   wants nanoseconds interpolates between pairs of readings of both clocks. */
#ifndef SRDS_TICKS_H
#define SRDS_TICKS_H

#include <stdint.h>
#include <string.h>
#include <time.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <fcntl.h>
#include <unistd.h>
#include <x86intrin.h>
#endif

static inline int64_t srds_wall_of_ticks_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Whether the processor's counter is what srds_ticks may read. */
static inline int srds_counter_usable(void) {
#if defined(__x86_64__)
    unsigned a, b, c, d;
    char clock[32] = "";
    int file;
    ssize_t n = 0;
    if (!__get_cpuid(0x80000007u, &a, &b, &c, &d) || !(d & (1u << 8))) return 0;
    file = open("/sys/devices/system/clocksource/clocksource0/current_clocksource",
                O_RDONLY | O_CLOEXEC);
    if (file < 0) return 1;
    n = read(file, clock, sizeof(clock) - 1);
    close(file);
    return n <= 0 || strncmp(clock, "tsc", 3) == 0 || strncmp(clock, "kvm-clock", 9) == 0
        || strncmp(clock, "hyperv_clocksource_tsc", 22) == 0;
#elif defined(__aarch64__)
    return 1;
#else
    return 0;
#endif
}

static inline uint64_t srds_ticks(int counter) {
#if defined(__x86_64__)
    if (__builtin_expect(counter, 1)) return __rdtsc();
#elif defined(__aarch64__)
    uint64_t ticks;
    __asm__ volatile("mrs %0, cntvct_el0" : "=r"(ticks));
    return ticks;
#endif
    return (uint64_t)srds_wall_of_ticks_ns();
}

typedef struct {
    uint64_t ticks;
    int64_t ns;
} srds_moment;

/* Both clocks at one moment: of three readings the one that was not interrupted. */
static inline srds_moment srds_both_clocks(int counter) {
    srds_moment best = {0, 0};
    uint64_t least = UINT64_MAX;
    for (int i = 0; i < 3; i++) {
        uint64_t before = srds_ticks(counter);
        int64_t ns = srds_wall_of_ticks_ns();
        uint64_t after = srds_ticks(counter);
        if (after - before < least) {
            least = after - before;
            best.ticks = before + least / 2;
            best.ns = ns;
        }
    }
    return best;
}

#endif
