/* Blocks are filled by one thread and written by another; compiled with ThreadSanitizer by
   test_spill.py: spill_stress FOLDER TASKS CAPACITY, where CAPACITY is how many blocks the file may
   have, or 0. Prints the numbers of entries that were found, lost, overwritten and wrong. */
#define _GNU_SOURCE
#include <stdio.h>

#include "microkernel/tracing/spill.h"

static srds_trace trace;

int main(int argc, char **argv) {
    srds_trace *t = &trace;
    uint64_t tasks = strtoull(argv[2], NULL, 10), found = 0, wrong = 0;
    unsigned char *seen = calloc(tasks, 1);
    srds_trace_block *block = malloc(sizeof *block);
    uint64_t capacity = strtoull(argv[3], NULL, 10);
    if (argc != 4 || srds_trace_open(t, argv[1], -1, -1, 0) != 0 || !seen || !block) return 2;
    atomic_store(&t->stats->capacity, capacity);
    for (uint64_t i = 0; i < tasks; i++) {
        uint64_t started = srds_trace_begin(t, 0, 0, 7);
        srds_trace_end(t, t, 0, 0, started);
        srds_trace_append(t, t, i, ~i, 0, 0, 7, 0, 0, 0, SRDS_ENDED_OK, 0, SRDS_KIND_TASK);
    }
    srds_trace_stop_writer(t);
    for (uint64_t number = 1; number <= atomic_load(&t->stats->blocks); number++) {
        const srds_trace_block *at = t->block;
        if (atomic_load(&at->head.number) != number) {
            uint64_t place = capacity ? (number - 1) % capacity : number - 1;
            off_t offset = (off_t)place * SRDS_TRACE_BLOCK;
            if (t->file < 0 || pread(t->file, block, sizeof *block, offset) != sizeof *block
                || atomic_load(&block->head.number) != number) continue;
            at = block;
        }
        for (uint32_t i = 0; i < atomic_load(&at->head.count); i++, found++) {
            const srds_trace_entry *e = &at->entries[i];
            if (e->id_hi >= tasks || e->id_lo != ~e->id_hi || seen[e->id_hi]
                || e->started > e->ended) wrong++;
            else seen[e->id_hi] = 1;
        }
    }
    printf("%llu %llu %llu %llu\n", (unsigned long long)found,
           (unsigned long long)atomic_load(&t->stats->lost),
           (unsigned long long)atomic_load(&t->stats->overwritten), (unsigned long long)wrong);
    srds_trace_free(t);
    free(seen);
    free(block);
    return 0;
}
