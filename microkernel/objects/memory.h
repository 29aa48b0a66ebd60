/* The arena's memory: one memory file, mapped by every process once for writing and once for reading.

   The file is reserved, not allocated: a page costs memory from its first use on, and stays. First
   use is what makes a large copy slow (about ten times the copy itself), so memory is made ahead of
   use by the keeper, and a large range that is used for the first time in a process is mapped with
   one call instead of one fault a page.

   The layout: head, entries, chunk descriptors, room for sorting, bits of warm units, objects. */
#ifndef SRDS_MEMORY_H
#define SRDS_MEMORY_H

#include "table.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

#define SRDS_MAGIC 0x3173746a626f7273ull    /* "srobjts1" */
#define SRDS_PAGE ((uint64_t)2 << 20)       /* a unit of warming; a huge page */

enum {
    SRDS_AHEAD_LEAST = 2 << 20,
    SRDS_AHEAD_MOST = 128 << 20,
    SRDS_TOGETHER = 8 << 20,                /* from here on two threads make its memory */
    SRDS_BULK = 1 << 20                     /* from here on a range is mapped by one call */
};

static inline uint64_t srds_up(uint64_t n, uint64_t step) {
    return (n + step - 1) & ~(step - 1);
}

static inline int64_t srds_store_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Sleep while *word is `seen`, at most `ns` nanoseconds (0: for ever). */
static inline void srds_store_sleep(_Atomic uint32_t *word, uint32_t seen, int64_t ns) {
    struct timespec limit = {ns / 1000000000, ns % 1000000000};
    syscall(SYS_futex, word, FUTEX_WAIT, seen, ns ? &limit : NULL, NULL, 0);
}

static inline void srds_store_wake(_Atomic uint32_t *word) {
    atomic_fetch_add(word, 1);
    syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

/* Where the parts lie, from capacity and limit. */
static inline void srds_store_lay_out(srds_head *h, uint64_t capacity, uint32_t limit) {
    uint64_t units = srds_up(capacity, SRDS_PAGE) / SRDS_PAGE;
    h->magic = SRDS_MAGIC;
    h->capacity = capacity;
    h->limit = limit;
    h->table_at = srds_up(sizeof *h, 4096);
    h->chunks_at = srds_up(h->table_at + ((uint64_t)limit + 1) * sizeof(srds_object), 4096);
    h->order_at = srds_up(h->chunks_at + (2 * (uint64_t)limit + 3) * sizeof(srds_chunk), 4096);
    h->warm_at = srds_up(h->order_at + (uint64_t)limit * sizeof(uint32_t), 4096);
    h->data_at = srds_up(h->warm_at + srds_up(units, 64) / 8, SRDS_PAGE);
    h->total = h->data_at + srds_up(capacity, SRDS_PAGE);
}

/* Map `n` bytes from `offset` on, a multiple of SRDS_PAGE, at an address that is one too. */
static inline void *srds_store_map_aligned(int fd, uint64_t offset, uint64_t n, int protection) {
    unsigned char *room = mmap(NULL, n + SRDS_PAGE, PROT_NONE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0), *at, *mapped;
    if (room == MAP_FAILED) return NULL;
    at = (unsigned char *)srds_up((uint64_t)(uintptr_t)room, SRDS_PAGE);
    if (at > room) munmap(room, (size_t)(at - room));
    munmap(at + n, (size_t)(room + SRDS_PAGE - at));
    mapped = mmap(at, n, protection, MAP_SHARED | MAP_FIXED | MAP_NORESERVE, fd, (off_t)offset);
    if (mapped == MAP_FAILED) {
        munmap(at, n);
        return NULL;
    }
    madvise(mapped, n, MADV_HUGEPAGE);      /* where the machine allows it */
    madvise(mapped, n, MADV_DONTDUMP);
    return mapped;
}

static inline void srds_store_detach(srds_store *s) {
    if (s == NULL) return;
    if (s->head) {
        uint64_t data_bytes = s->head->total - s->head->data_at;
        uint64_t units = data_bytes / SRDS_PAGE;
        if (s->data) munmap(s->data, data_bytes);
        if (s->view) munmap((void *)s->view, data_bytes);
        if (s->mapped) munmap((void *)s->mapped, srds_up(units, 64) / 8);
        if (s->file_chunks) munmap(s->file_chunks, (2 * (uint64_t)s->head->limit + 3) * sizeof(srds_chunk));
        munmap(s->head, s->control_bytes);
    }
    if (s->mine) munmap(s->mine, 4096);
    if (s->file >= 0) close(s->file);
    free(s->file_heap);
    free(s->folder);
    free(s);
}

/* Map the arena of the memory file `fd`. 0 or an errno; EINVAL: it is none. */
static inline int srds_store_attach(int fd, unsigned station, srds_store **result) {
    srds_head *peek;
    struct stat file;
    srds_store *s;
    uint64_t data_bytes;
    if (fstat(fd, &file) < 0) return errno;
    if (file.st_size < 4096 || station >= SRDS_STATIONS) return EINVAL;
    if ((s = calloc(1, sizeof *s)) == NULL) return ENOMEM;
    s->station = station;
    s->file = -1;
    peek = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
    if (peek == MAP_FAILED) goto failed;
    if (peek->magic != SRDS_MAGIC || peek->total != (uint64_t)file.st_size
        || peek->data_at >= peek->total) {
        munmap(peek, 4096);
        srds_store_detach(s);
        return EINVAL;
    }
    s->control_bytes = peek->data_at;
    data_bytes = peek->total - peek->data_at;
    munmap(peek, 4096);
    s->head = mmap(NULL, s->control_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (s->head == MAP_FAILED) {
        s->head = NULL;
        goto failed;
    }
    madvise(s->head, s->control_bytes, MADV_DONTDUMP);
    s->objects = (srds_object *)((char *)s->head + s->head->table_at);
    s->chunks = (srds_chunk *)((char *)s->head + s->head->chunks_at);
    s->order = (uint32_t *)((char *)s->head + s->head->order_at);
    s->warm = (_Atomic uint64_t *)((char *)s->head + s->head->warm_at);
    s->data = srds_store_map_aligned(fd, s->head->data_at, data_bytes, PROT_READ | PROT_WRITE);
    if (s->data == NULL) goto failed;
    s->view = srds_store_map_aligned(fd, s->head->data_at, data_bytes, PROT_READ);
    if (s->view == NULL) goto failed;
    s->mapped = mmap(NULL, srds_up(data_bytes / SRDS_PAGE, 64) / 8, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (s->mapped == MAP_FAILED) {
        s->mapped = NULL;
        goto failed;
    }
    s->mine = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (s->mine == MAP_FAILED) {
        s->mine = NULL;
        goto failed;
    }
    madvise(s->mine, 4096, MADV_WIPEONFORK);
    *s->mine = 1;
    *result = s;
    return 0;
failed:
    {
        int error = errno ? errno : ENOMEM;
        srds_store_detach(s);
        return error;
    }
}

/* A new arena. Its memory file cannot change its size, so no mapping of it can be cut off. */
static inline int srds_store_create(uint64_t capacity, uint32_t limit, int64_t patience_ns,
                                    const char *folder, int *fd, srds_store **result) {
    srds_head plan;
    pthread_mutexattr_t attributes;
    srds_store *s = NULL;
    int error;
    if (capacity == 0 || capacity % SRDS_UNIT || capacity > SRDS_HEAP_LIMIT || limit == 0) return EINVAL;
    memset(&plan, 0, sizeof plan);
    srds_store_lay_out(&plan, capacity, limit);
    plan.patience_ns = patience_ns;
    *fd = memfd_create("srds-objects", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (*fd < 0) return errno;
    if (ftruncate(*fd, (off_t)plan.total) < 0
        || pwrite(*fd, &plan, offsetof(srds_head, lock), 0) != (ssize_t)offsetof(srds_head, lock)
        || fcntl(*fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
        error = errno;
        close(*fd);
        return error;
    }
    if ((error = srds_store_attach(*fd, 0, &s)) != 0) {
        close(*fd);
        return error;
    }
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    error = pthread_mutex_init(&s->head->lock, &attributes);
    pthread_mutexattr_destroy(&attributes);
    if (error == 0 && folder && (s->folder = strdup(folder)) == NULL) error = ENOMEM;
    if (error) {
        srds_store_detach(s);
        close(*fd);
        return error;
    }
    srds_heap_reset(&s->head->heap, s->chunks, capacity, 2 * limit + 2, SRDS_SMALL);
    *result = s;
    return 0;
}

static inline int srds_unit_is(_Atomic uint64_t *bits, uint64_t unit) {
    return atomic_load_explicit(&bits[unit / 64], memory_order_relaxed) >> (unit % 64) & 1;
}

static inline void srds_unit_set(_Atomic uint64_t *bits, uint64_t unit) {
    atomic_fetch_or_explicit(&bits[unit / 64], (uint64_t)1 << (unit % 64), memory_order_relaxed);
}

/* Have the memory of one whole unit, in this process's page table too. */
static inline void srds_unit_warm(srds_store *s, uint64_t unit) {
    if (srds_unit_is(s->mapped, unit)) return;
    /* Where the system cannot (before Linux 5.14), pages come one by one as they are used. */
    madvise(s->data + unit * SRDS_PAGE, SRDS_PAGE, MADV_POPULATE_WRITE);
    srds_unit_set(s->warm, unit);
    srds_unit_set(s->mapped, unit);
}

/* Before a large object is written: its memory, at less than what faults cost. Without a lock. */
static inline void srds_store_touch(srds_store *s, uint64_t offset, uint64_t length) {
    uint64_t first = srds_up(offset, SRDS_PAGE) / SRDS_PAGE, last = (offset + length) / SRDS_PAGE;
    if (length < SRDS_BULK) return;
    for (; first < last; first++) srds_unit_warm(s, first);
}

#endif
