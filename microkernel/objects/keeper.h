/* The keeper: the one thread, in the driver, that makes memory ahead of use, spills and restores.

   Spilled is the object that has been idle longest (sealed, and no station looks at it), and only
   while somebody waits for room. An object stays in memory, valid, until it is in the file as a
   whole, so a full disk loses nothing: the error is kept for who waits. The file has no name (it
   vanishes with the processes), and room in it is given back to the disk. Its map is the keeper's
   own memory: stations ask by the state of an object, and the keeper needs neither interpreter nor
   GIL to answer. */
#ifndef SRDS_KEEPER_H
#define SRDS_KEEPER_H

#include "operations.h"

#include <limits.h>
#include <signal.h>
#include <stdio.h>

static inline int srds_file_open(srds_store *s) {
    uint32_t descriptors = 2 * s->head->limit + 2;
    if (s->folder == NULL) return ENOTSUP;
    if (s->file_heap == NULL) {
        srds_chunk *chunks = mmap(NULL, ((uint64_t)descriptors + 1) * sizeof *chunks,
                                  PROT_READ | PROT_WRITE,
                                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (chunks == MAP_FAILED) return errno;
        if ((s->file_heap = malloc(sizeof *s->file_heap)) == NULL) {
            munmap(chunks, ((uint64_t)descriptors + 1) * sizeof *chunks);
            return ENOMEM;
        }
        s->file_chunks = chunks;
        srds_heap_reset(s->file_heap, chunks, SRDS_HEAP_LIMIT, descriptors, 0);
    }
    s->file = open(s->folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (s->file < 0) {                      /* some file systems know no nameless files */
        char path[PATH_MAX];
        if (snprintf(path, sizeof path, "%s/srds-objects-XXXXXX", s->folder) >= (int)sizeof path)
            return ENAMETOOLONG;
        if ((s->file = mkostemp(path, O_CLOEXEC)) < 0) return errno;
        unlink(path);
    }
    return 0;
}

static inline int srds_file_write(srds_store *s, uint64_t at, const unsigned char *data, uint64_t n) {
    while (n) {
        ssize_t done = pwrite(s->file, data, n < (1u << 30) ? n : 1u << 30, (off_t)at);
        if (done < 0 && errno != EINTR) return errno;
        if (done > 0) data += done, at += (uint64_t)done, n -= (uint64_t)done;
    }
    return 0;
}

static inline int srds_file_read(srds_store *s, uint64_t at, unsigned char *data, uint64_t n) {
    while (n) {
        ssize_t done = pread(s->file, data, n < (1u << 30) ? n : 1u << 30, (off_t)at);
        if (done == 0) return EIO;
        if (done < 0 && errno != EINTR) return errno;
        if (done > 0) data += done, at += (uint64_t)done, n -= (uint64_t)done;
    }
    return 0;
}

static inline void srds_file_give(srds_store *s, uint32_t chunk) {
    srds_chunk *c = &s->file_chunks[chunk];
    uint64_t from = srds_up(c->offset, 4096), to = (c->offset + c->size) & ~(uint64_t)4095;
    if (from < to) fallocate(s->file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)from,
                             (off_t)(to - from));
    srds_heap_give(s->file_heap, s->file_chunks, chunk);
}

/* Write the object that was idle longest to the file and give its memory back. Called with the lock,
   which is given up meanwhile. 1: done, or it went away by itself; 0: none can be; else -errno. */
static inline int srds_keeper_spill(srds_store *s) {
    srds_head *h = s->head;
    uint32_t i = h->idle.first, room;
    srds_object *o = &s->objects[i];
    uint64_t word, offset, length;
    int error = 0;
    if (i == 0 || s->folder == NULL) return 0;
    srds_list_remove(s, &h->idle, i);
    srds_object_become(o, SRDS_SPILLING);
    word = atomic_load(&o->word);
    offset = o->offset;
    length = o->length;
    srds_store_unlock(s);

    if (s->file < 0) error = srds_file_open(s);
    room = error ? 0 : srds_heap_take(s->file_heap, s->file_chunks, srds_heap_rounded(length));
    if (!error && room == 0) error = EFBIG;
    if (!error) error = srds_file_write(s, s->file_chunks[room].offset, s->view + offset, length);

    if (srds_store_lock(s)) return -ENOTRECOVERABLE;
    if (atomic_load(&o->word) != word) {    /* nobody holds it any more */
        if (room) srds_file_give(s, room);
        return 1;
    }
    if (error || o->pinned) {
        srds_object_become(o, SRDS_SEALED);
        if (!o->pinned) srds_list_append(s, &h->idle, i);
        if (room) srds_file_give(s, room);
        if (error) h->spill_error = error;
        return error ? -error : 1;
    }
    srds_heap_give(&h->heap, s->chunks, o->chunk);
    o->chunk = room;
    o->offset = s->file_chunks[room].offset;
    srds_object_become(o, SRDS_SPILLED);
    h->spilled++;
    h->spilled_bytes += length;
    h->spill_error = 0;
    srds_store_tell_changed(s);
    return 1;
}

/* Bring the first spilled object that somebody looks at back. With the lock, which is given up
   meanwhile. 1: done, or it went away by itself; 0: there is no room yet. */
static inline int srds_keeper_restore(srds_store *s) {
    srds_head *h = s->head;
    uint32_t i = h->wishes.first, chunk, room;
    srds_object *o = &s->objects[i];
    uint64_t from, to, length = o->length;
    int error;
    chunk = srds_heap_take(&h->heap, s->chunks, srds_heap_rounded(length));
    if (chunk == 0) return srds_keeper_spill(s) > 0;
    srds_list_remove(s, &h->wishes, i);
    room = o->chunk;
    from = o->offset;
    to = s->chunks[chunk].offset;
    o->chunk = chunk;
    o->offset = to;
    srds_object_become(o, SRDS_RESTORING);
    srds_store_unlock(s);

    error = srds_file_read(s, from, s->data + to, length);

    if (srds_store_lock(s)) return 0;
    if (error && o->holders) {
        srds_heap_give(&h->heap, s->chunks, o->chunk);
        o->chunk = room;
        o->offset = from;
        o->error = error;
        srds_object_become(o, SRDS_SPILLED);
        if (o->pinned) srds_list_append(s, &h->wishes, i);
    } else {
        h->spilled--;
        h->spilled_bytes -= length;
        srds_file_give(s, room);
        srds_object_become(o, SRDS_SEALED);
        if (!o->pinned) srds_list_append(s, &h->idle, i);
        if (!o->holders) srds_store_drop(s, i);
    }
    srds_store_wake(&h->changed);
    return !error;
}

/* Give the file's room of objects back that are no more. With the lock, given up meanwhile. */
static inline int srds_keeper_discard(srds_store *s) {
    uint32_t i;
    while ((i = s->head->dropped.first) != 0) {
        uint32_t room = s->objects[i].chunk;
        srds_list_remove(s, &s->head->dropped, i);
        srds_object_become(&s->objects[i], SRDS_UNUSED);
        srds_object_spare(s, i);
        srds_store_unlock(s);
        srds_file_give(s, room);
        if (srds_store_lock(s)) return -ENOTRECOVERABLE;
    }
    return 0;
}

static inline void *srds_keeper_run(void *store) {
    srds_store *s = store;
    srds_head *h = s->head;
    uint64_t from = 0, to = 0;
    while (!atomic_load(&s->stop)) {
        uint32_t errands = atomic_load(&h->errands);
        if (srds_store_lock(s)) return NULL;
        if (srds_keeper_discard(s)) return NULL;
        while (h->wishes.first && !atomic_load(&s->stop) && srds_keeper_restore(s)) {}
        while (h->wanted && !atomic_load(&s->stop)
               && !srds_heap_find(&h->heap, s->chunks, h->wanted) && srds_keeper_spill(s) > 0) {}
        h->wanted = 0;
        if (h->ahead_to) {
            from = h->ahead_from;
            to = h->ahead_to;
            h->ahead_to = 0;
        }
        srds_store_unlock(s);
        if (from < to) {                    /* unit by unit: errands go first */
            srds_unit_warm(s, from / SRDS_PAGE);
            from = (from / SRDS_PAGE + 1) * SRDS_PAGE;
            continue;
        }
        srds_store_sleep(&h->errands, errands, 0);
    }
    return NULL;
}

/* Idempotent. 0 or an errno. */
static inline int srds_keeper_start(srds_store *s) {
    sigset_t all, before;
    pthread_attr_t attributes;
    int error;
    if (s->keeping) return 0;
    sigfillset(&all);                       /* signals are the interpreter's */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 128 << 10);
    error = pthread_create(&s->keeper, &attributes, srds_keeper_run, s);
    pthread_attr_destroy(&attributes);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error == 0) s->keeping = 1;
    return error;
}

static inline void srds_keeper_stop(srds_store *s) {
    if (!s->keeping) return;
    atomic_store(&s->stop, 1);
    srds_store_wake(&s->head->errands);
    pthread_join(s->keeper, NULL);
    s->keeping = 0;
}

#endif
