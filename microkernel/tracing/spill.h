/* Where the blocks of a trace come from and go to; see trace.h.

   A thread of its own writes full blocks, so that no task waits for a disk; only when it is sixteen
   blocks behind does a task wait, at most a fifth of a second, and then a block is lost and counted.
   The file grows until it holds a thousand million tasks or the disk is nearly full; from there the
   oldest blocks are overwritten, and counted. */
#ifndef SRDS_SPILL_H
#define SRDS_SPILL_H

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "microkernel/tracing/trace.h"

#define SRDS_TRACE_FILE_BLOCKS ((uint64_t)1 << 18)      /* 64 GiB */
#define SRDS_TRACE_LEAVE_FREE ((uint64_t)1 << 30)       /* bytes of the disk that are others' */

enum { SRDS_TRACE_PATIENCE_MS = 200 };

static const size_t srds_area_bytes = (size_t)SRDS_TRACE_BLOCK * SRDS_TRACE_BLOCKS;

static inline off_t srds_area_at(unsigned station) {
    return (off_t)SRDS_STATS_BYTES + (off_t)(srds_area_bytes * station);
}

static int srds_anonymous_file(const char *folder) {
    char path[4096];
    int file = -1;
#ifdef O_TMPFILE
    file = open(folder, O_TMPFILE | O_RDWR | O_EXCL | O_CLOEXEC, 0600);
#endif
    if (file < 0) {
        if (snprintf(path, sizeof path, "%s/srds-trace-XXXXXX", folder) >= (int)sizeof path) {
            errno = ENAMETOOLONG;
            return -1;
        }
        file = mkstemp(path);
        if (file >= 0) {
            fcntl(file, F_SETFD, FD_CLOEXEC);
            unlink(path);
        }
    }
    return file;
}

/* The spill file, opened at the first need; -1 with errno. */
static int srds_trace_open_file(srds_trace *t) {
    pthread_mutex_lock(&t->lock);
    if (t->file < 0) t->file = srds_anonymous_file(t->folder);
    int file = t->file;
    pthread_mutex_unlock(&t->lock);
    return file;
}

/* Stop growing when the file is as long as it may be, or the disk nearly full. */
static void srds_trace_limit(srds_trace *t, int file, uint64_t number) {
    struct statvfs disk;
    uint64_t none = 0;
    if (atomic_load(&t->stats->capacity)) return;
    if (number < SRDS_TRACE_FILE_BLOCKS) {
        if (number % 64 || fstatvfs(file, &disk) != 0) return;
        if ((uint64_t)disk.f_bavail * disk.f_frsize > SRDS_TRACE_LEAVE_FREE) return;
    }
    atomic_compare_exchange_strong(&t->stats->capacity, &none, number);
}

static int srds_trace_write(srds_trace *t, const srds_trace_block *block) {
    const char *data = (const char *)block;
    size_t left = SRDS_TRACE_BLOCK;
    uint64_t number = atomic_load(&block->head.number), capacity;
    off_t at;
    int file = srds_trace_open_file(t);
    if (file < 0) return errno;
    srds_trace_limit(t, file, number);
    capacity = atomic_load(&t->stats->capacity);
    at = (off_t)((capacity ? (number - 1) % capacity : number - 1) * SRDS_TRACE_BLOCK);
    while (left) {
        ssize_t n = pwrite(file, data, left, at);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return n < 0 ? errno : EIO;
        data += n;
        left -= (size_t)n;
        at += n;
    }
    if (capacity && number > capacity)
        atomic_fetch_add(&t->stats->overwritten, SRDS_TRACE_ENTRIES);
    return 0;
}

static void srds_trace_spill(srds_trace *t, srds_trace_block *block) {
    int error = srds_trace_write(t, block);
    if (error) {
        atomic_store(&t->stats->spill_error, (uint32_t)error);
        atomic_fetch_add(&t->stats->lost, atomic_load(&block->head.count));
    }
    atomic_store_explicit(&block->head.number, 0, memory_order_release);
}

static void *srds_trace_writer(void *argument) {
    srds_trace *t = argument;
#ifdef SCHED_BATCH
    struct sched_param none = {0};
    pthread_setschedparam(pthread_self(), SCHED_BATCH, &none);  /* no task is interrupted for it */
#endif
    pthread_mutex_lock(&t->lock);
    for (;;) {
        while (!t->fulls && !t->stopping) pthread_cond_wait(&t->filled, &t->lock);
        if (!t->fulls) break;
        unsigned i = t->full[0];
        pthread_mutex_unlock(&t->lock);
        srds_trace_spill(t, &t->area[i]);
        pthread_mutex_lock(&t->lock);
        memmove(t->full, t->full + 1, --t->fulls);
        t->empty[t->empties++] = (uint8_t)i;
        pthread_cond_broadcast(&t->emptied);
    }
    pthread_mutex_unlock(&t->lock);
    return NULL;
}

static void srds_trace_start_writer(srds_trace *t) {
    pthread_attr_t attributes;
    sigset_t all, before;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 1 << 17);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    t->writing = pthread_create(&t->writer, &attributes, srds_trace_writer, t) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
}

/* The memory of a block that was never used, at once: cheaper than a page fault for each page. */
static void srds_trace_populate(srds_trace_block *block) {
#ifdef MADV_POPULATE_WRITE
    if (block->head.opened.ns == 0) madvise(block, SRDS_TRACE_BLOCK, MADV_POPULATE_WRITE);
#else
    (void)block;
#endif
}

static void srds_trace_begin_block(srds_trace *t, unsigned i) {
    srds_trace_head *head = &t->area[i].head;
    t->block = &t->area[i];
    t->used = 0;
    head->station = t->station;
    head->opened = srds_both_clocks(t->counter);
    atomic_store_explicit(&head->count, 0, memory_order_relaxed);
    atomic_store_explicit(&head->number, 1 + atomic_fetch_add(&t->stats->blocks, 1),
                          memory_order_release);
}

/* Whether entries were lost since this was last asked. */
static int srds_trace_lost_more(srds_trace *t) {
    uint64_t told = t->lost_told;
    t->lost_told = atomic_load(&t->stats->lost);
    return t->lost_told != told;
}

/* The block is full: another one. Returns whether entries were lost since it was last told. */
static int srds_trace_turn(srds_trace *t) {
    struct timespec until;
    unsigned mine = (unsigned)(t->block - t->area);
    int kept = 0;
    if (t->inherited) {             /* a forked child: nobody reads it */
        t->used = 0;
        return 0;
    }
    if (!t->writing) srds_trace_start_writer(t);
    if (t->writing) {
        pthread_mutex_lock(&t->lock);
        t->full[t->fulls++] = (uint8_t)mine;
        pthread_cond_signal(&t->filled);
        if (!t->empties) {
            clock_gettime(CLOCK_REALTIME, &until);
            until.tv_nsec += SRDS_TRACE_PATIENCE_MS * 1000000L;
            until.tv_sec += until.tv_nsec / 1000000000L;
            until.tv_nsec %= 1000000000L;
            while (!t->empties)
                if (pthread_cond_timedwait(&t->emptied, &t->lock, &until)) break;
        }
        kept = t->empties > 0;
        if (kept) mine = t->empty[--t->empties];
        else t->fulls--;            /* the last of sixteen: not the one being written */
        pthread_mutex_unlock(&t->lock);
        if (kept) srds_trace_populate(&t->area[mine]);
        else atomic_fetch_add(&t->stats->lost, t->used);
    } else {
        srds_trace_spill(t, t->block);      /* no thread can be had */
    }
    srds_trace_begin_block(t, mine);
    return srds_trace_lost_more(t);
}

/* Everything full is written, or was refused, when this returns. Called without the GIL. */
static void srds_trace_flush(srds_trace *t) {
    pthread_mutex_lock(&t->lock);
    while (t->fulls && t->writing) pthread_cond_wait(&t->emptied, &t->lock);
    pthread_mutex_unlock(&t->lock);
}

static srds_trace *srds_traces;     /* of this process; changed under the GIL */

static void *srds_map(int memory, size_t bytes, off_t at) {
    if (memory < 0)
        return mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, memory, at);
}

/* In a forked child the trace is the parent's: what still writes to it writes to pages that
   nobody reads. */
static void srds_traces_forked(void) {
    for (srds_trace *t = srds_traces; t; t = t->next) {
        int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE;
        mmap(t->stats, SRDS_STATS_BYTES, PROT_READ | PROT_WRITE, flags, -1, 0);
        mmap(t->area, srds_area_bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
        t->inherited = 1;
    }
}

static int srds_watch_trace_forks(void) {
    return pthread_atfork(NULL, NULL, srds_traces_forked);
}

/* Make a trace (memory < 0), or write to one from another process of its kernel. 0, or errno. */
static int srds_trace_open(srds_trace *t, const char *folder, int memory, int file,
                           unsigned station) {
    static int usable = -1;         /* asked for once: it does not change */
    int own = memory < 0;
    t->memory = t->file = -1;
    t->station = (uint16_t)station;
    t->folder = strdup(folder);
    if (!t->folder) return ENOMEM;
#ifdef MFD_CLOEXEC
    if (own) {
        memory = memfd_create("srds-trace", MFD_CLOEXEC);
        if (memory >= 0 && ftruncate(memory, srds_area_at(SRDS_TRACE_STATIONS)) != 0) {
            close(memory);
            memory = -1;
        }
    }
#endif
    t->memory = memory;
    t->file = file;
    t->stats = srds_map(memory, SRDS_STATS_BYTES, 0);
    if (t->stats == MAP_FAILED) t->stats = NULL;
    t->area = srds_map(memory, srds_area_bytes, srds_area_at(station));
    if (t->area == MAP_FAILED) t->area = NULL;
    if (!t->stats || !t->area) return ENOMEM;
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->filled, NULL);
    pthread_cond_init(&t->emptied, NULL);
    t->turn = srds_trace_turn;
    t->places = t->stats->places[station];
    t->rows = station ? &t->stats->rows[SRDS_TRACE_LANES + station] : t->stats->rows;
    t->last_row = station ? 0 : SRDS_TRACE_LANES - 1;
    for (unsigned i = SRDS_TRACE_BLOCKS - 1; i > 0; i--) t->empty[t->empties++] = (uint8_t)i;
    if (own && usable < 0) usable = srds_counter_usable();
    t->counter = own ? usable : (int)t->stats->counter;
    if (own) {
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        t->stats->opened_unix_ns = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
        t->stats->counter = (uint32_t)t->counter;
        t->stats->process = (int32_t)getpid();
        t->stats->version = sizeof(srds_stats);
        t->stats->opened = srds_both_clocks(t->counter);
        memcpy(t->stats->magic, "srdstat1", 8);
    }
    /* What a killed process of this station had not written yet. */
    for (unsigned i = 0; i < SRDS_TRACE_BLOCKS && !own; i++)
        if (atomic_load(&t->area[i].head.number)) srds_trace_spill(t, &t->area[i]);
    srds_trace_begin_block(t, 0);
    t->next = srds_traces;
    srds_traces = t;
    return 0;
}

/* Write what is full and let the thread end. Called without the GIL. */
static void srds_trace_stop_writer(srds_trace *t) {
    if (t->inherited || !t->turn) return;
    pthread_mutex_lock(&t->lock);
    t->stopping = 1;
    int writing = t->writing;
    pthread_cond_signal(&t->filled);
    pthread_mutex_unlock(&t->lock);
    if (writing) pthread_join(t->writer, NULL);
    t->writing = t->stopping = 0;
}

static void srds_trace_free(srds_trace *t) {
    for (srds_trace **at = &srds_traces; *at; at = &(*at)->next)
        if (*at == t) {
            *at = t->next;
            break;
        }
    if (t->turn && !t->inherited) {
        pthread_mutex_destroy(&t->lock);
        pthread_cond_destroy(&t->filled);
        pthread_cond_destroy(&t->emptied);
    }
    if (t->stats) munmap(t->stats, SRDS_STATS_BYTES);
    if (t->area) munmap(t->area, srds_area_bytes);
    if (t->memory >= 0) close(t->memory);
    if (t->file >= 0) close(t->file);
    free(t->folder);
}

/* A function's name, for readers in other processes; left out when the room for names is used up. */
static void srds_trace_note_name(srds_trace *t, uint64_t hash, const char *name, uint32_t length) {
    const uint32_t room = SRDS_STATS_BYTES - SRDS_NAMES_AT;
    uint32_t need = (uint32_t)((16 + length + 7) & ~7u), at;
    char *names = (char *)t->stats + SRDS_NAMES_AT;
    srds_trace_know(t, hash);
    at = atomic_load(&t->stats->names_used);
    do {
        if (need > room || at > room - need) return;
    } while (!atomic_compare_exchange_weak(&t->stats->names_used, &at, at + need));
    memcpy(names + at + 16, name, length);
    memcpy(names + at, &hash, 8);
    atomic_store_explicit((_Atomic uint32_t *)(names + at + 8), length + 1, memory_order_release);
}

#endif
