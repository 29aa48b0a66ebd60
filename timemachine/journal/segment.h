/* Writes one log's segment files and their leaf sidecars, and keeps the log's Merkle frontier.
 *
 * A batch is built in memory (srds_batch_add), then written, synced and only then adopted
 * (srds_batch_commit): until that moment offset, frontier and header chain are those of the last
 * batch that is safely on disk, so a failed write can be tried again from the start. After a failed
 * fdatasync the kernel may have dropped the pages, therefore a retry writes everything anew.
 *
 * Functions return 0 or an errno.
 */
#ifndef SRDS_SEGMENT_H
#define SRDS_SEGMENT_H

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "frame.h"
#include "frontier.h"

enum { SRDS_FORMAT_VERSION = 1, SRDS_BLOCK_HEAD = 24 };

typedef struct {
    int directory;
    int frames;
    int leaves;
    uint64_t first_seq; /* of the current segment */
    uint64_t offset;    /* end of the last safe frame */
    uint64_t lamport;   /* of the last safe frame */
    srds_frontier tree;
    uint64_t segments;        /* segments that hold frames */
    uint8_t headers[32];      /* chain over their header blocks: SHA-256(previous || block) */
    uint8_t next_headers[32]; /* the chain with the current segment's header in it */
    int torn;                 /* bytes of a failed write may lie beyond `offset` */
    char *prefix;             /* "{...," : the part of a header that does not change with the tree */
    size_t prefix_n;
    uint8_t *batch;
    size_t batch_n, batch_room;
    uint8_t *hashes;
    size_t hashes_n, hashes_room;
    uint8_t salts[4096];
    size_t salts_left;
    srds_frontier next_tree;
    uint64_t next_lamport;
} srds_segment;

static inline void srds_segment_init(srds_segment *s) {
    memset(s, 0, sizeof *s);
    s->directory = s->frames = s->leaves = -1;
}

static inline void srds_segment_free(srds_segment *s) {
    if (s->frames >= 0) close(s->frames);
    if (s->leaves >= 0) close(s->leaves);
    if (s->directory >= 0) close(s->directory);
    s->directory = s->frames = s->leaves = -1;
    free(s->prefix);
    free(s->batch);
    free(s->hashes);
    s->prefix = NULL;
    s->batch = s->hashes = NULL;
}

static inline int srds_write_all(int fd, const uint8_t *data, size_t n, uint64_t offset) {
    while (n) {
        ssize_t done = pwrite(fd, data, n, (off_t)offset);
        if (done < 0) {
            if (errno == EINTR) continue;
            return errno;
        }
        if (!done) return ENOSPC;
        data += done;
        n -= (size_t)done;
        offset += (uint64_t)done;
    }
    return 0;
}

static inline int srds_sync_data(int fd) { return fdatasync(fd) ? errno : 0; }

static inline int srds_reserve(uint8_t **buffer, size_t *room, size_t needed) {
    if (needed <= *room) return 0;
    size_t wanted = *room ? *room : 65536;
    while (wanted < needed) wanted *= 2;
    uint8_t *grown = realloc(*buffer, wanted);
    if (!grown) return ENOMEM;
    *buffer = grown;
    *room = wanted;
    return 0;
}

static inline int srds_random(uint8_t *out, size_t n) {
    while (n) {
        ssize_t done = getrandom(out, n, 0);
        if (done < 0) {
            if (errno == EINTR) continue;
            return errno;
        }
        out += done;
        n -= (size_t)done;
    }
    return 0;
}

static inline void srds_chain_header(const uint8_t previous[32], const uint8_t *block, size_t n,
                              uint8_t out[32]) {
    srds_sha256 s;
    srds_sha256_begin(&s, srds_sha256_best());
    srds_sha256_add(&s, previous, 32);
    srds_sha256_add(&s, block, n);
    srds_sha256_end(&s, out);
}

static inline char *srds_put_hex(char *out, const uint8_t *data, size_t n) {
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < n; i++) {
        *out++ = digits[data[i] >> 4];
        *out++ = digits[data[i] & 15];
    }
    return out;
}

/* Begin the segment that follows the safe frames. A file of the same name can only be a segment
   without frames: it is replaced. */
static inline int srds_segment_begin(srds_segment *s) {
    struct timespec now;
    char name[32], unfinished[40], leaves_name[32];
    int error, frames = -1, leaves = -1;
    const size_t room = SRDS_BLOCK_HEAD + s->prefix_n + 512 + 64 * 67;
    uint8_t *block = malloc(room);
    if (!block) return ENOMEM;
    clock_gettime(CLOCK_REALTIME, &now);
    char *body = (char *)block + SRDS_BLOCK_HEAD, *p = body;
    memcpy(p, s->prefix, s->prefix_n);
    p += s->prefix_n;
    p += sprintf(p, "\"created\":%" PRIu64 ",\"first_seq\":%" PRIu64 ",\"lamport\":%" PRIu64
                    ",\"previous\":{\"frontier\":[",
                 (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec, s->tree.size,
                 s->lamport);
    int written = 0;
    for (int k = 63; k >= 0; k--) {
        if (!((s->tree.size >> k) & 1)) continue;
        if (written++) *p++ = ',';
        *p++ = '"';
        p = srds_put_hex(p, s->tree.node[k], 32);
        *p++ = '"';
    }
    p += sprintf(p, "],\"headers\":\"");
    p = srds_put_hex(p, s->headers, 32);
    p += sprintf(p, "\",\"segments\":%" PRIu64 ",\"size\":%" PRIu64 "}}", s->segments, s->tree.size);
    while ((p - body) & 7) *p++ = ' ';
    const size_t n = (size_t)(p - (char *)block);
    memcpy(block, "SRDSJRN1", 8);
    srds_put32(block + 8, SRDS_FORMAT_VERSION);
    srds_put32(block + 12, (uint32_t)(p - body));
    srds_put32(block + 16, srds_crc32c_best()(0, (uint8_t *)body, (size_t)(p - body)));
    srds_put32(block + 20, 0);

    snprintf(name, sizeof name, "%020" PRIu64 ".seg", s->tree.size);
    snprintf(unfinished, sizeof unfinished, "%s.new", name);
    snprintf(leaves_name, sizeof leaves_name, "%020" PRIu64 ".leaves", s->tree.size);
    const int flags = O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW;
    if ((leaves = openat(s->directory, leaves_name, flags, 0600)) < 0 ||
        (frames = openat(s->directory, unfinished, flags, 0600)) < 0) {
        error = errno;
    } else if (!(error = srds_write_all(frames, block, n, 0)) && !(error = srds_sync_data(frames)) &&
               (s->leaves < 0 || !(error = srds_sync_data(s->leaves)))) {
        if (renameat(s->directory, unfinished, s->directory, name) || fsync(s->directory))
            error = errno;
    }
    if (error) {
        if (frames >= 0) close(frames);
        if (leaves >= 0) close(leaves);
        unlinkat(s->directory, unfinished, 0);
    } else {
        if (s->frames >= 0) close(s->frames);
        if (s->leaves >= 0) close(s->leaves);
        s->frames = frames;
        s->leaves = leaves;
        s->first_seq = s->tree.size;
        s->offset = n;
        srds_chain_header(s->headers, block, n, s->next_headers);
    }
    free(block);
    return error;
}

static inline void srds_batch_begin(srds_segment *s) {
    s->batch_n = s->hashes_n = 0;
    s->next_tree = s->tree;
    s->next_lamport = s->lamport;
}

/* Add an event; `fixed` holds bytes 8 .. 64 of the frame to be. */
static inline int srds_batch_add(srds_segment *s, const uint8_t *fixed, const uint8_t *parents,
                          const uint8_t *payload, uint64_t payload_n) {
    const uint32_t n = srds_get16(fixed + 50 - SRDS_PROLOGUE);
    int error;
    if ((error = srds_reserve(&s->batch, &s->batch_room,
                              s->batch_n + srds_frame_span(n, payload_n))) ||
        (error = srds_reserve(&s->hashes, &s->hashes_room, s->hashes_n + 32)))
        return error;
    if (s->salts_left < SRDS_SALT) {
        if ((error = srds_random(s->salts, sizeof s->salts))) return error;
        s->salts_left = sizeof s->salts;
    }
    s->salts_left -= SRDS_SALT;
    uint8_t *leaf = s->hashes + s->hashes_n;
    s->batch_n += srds_frame_encode(s->batch + s->batch_n, fixed, parents, s->salts + s->salts_left,
                                    payload, payload_n, leaf);
    memset(s->salts + s->salts_left, 0, SRDS_SALT);
    s->hashes_n += 32;
    srds_frontier_push(&s->next_tree, leaf);
    s->next_lamport = srds_get64(fixed + 16 - SRDS_PROLOGUE);
    return 0;
}

static inline int srds_batch_commit(srds_segment *s) {
    int error = 0;
    const uint64_t leaves_at = (s->tree.size - s->first_seq) * 32;
    if ((error = srds_write_all(s->frames, s->batch, s->batch_n, s->offset)) ||
        (error = srds_write_all(s->leaves, s->hashes, s->hashes_n, leaves_at)) ||
        (error = srds_sync_data(s->frames))) {
        s->torn = ftruncate(s->frames, (off_t)s->offset) != 0;
        s->torn |= ftruncate(s->leaves, (off_t)leaves_at) != 0;
        return error;
    }
    if (s->tree.size == s->first_seq) {
        s->segments++;
        memcpy(s->headers, s->next_headers, 32);
    }
    s->torn = 0;
    s->offset += s->batch_n;
    s->tree = s->next_tree;
    s->lamport = s->next_lamport;
    /* A large event passed through: do not keep its memory. */
    if (s->batch_room > (16u << 20)) {
        free(s->batch);
        s->batch = NULL;
        s->batch_room = 0;
    }
    return 0;
}

#endif
