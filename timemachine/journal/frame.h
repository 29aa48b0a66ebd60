/* The frame: how one event lies in a segment file. docs/journal.md has the same table in words.
 *
 *   0 u32 length        bytes after this 8-byte prologue
 *   4 u32 crc32c        over those bytes
 *   8 u64 seq           position in the log, from 0, without gaps
 *  16 u64 lamport
 *  24 u64 wall_ns
 *  32 u8[16] decision   zeros: none
 *  48 u16 kind
 *  50 u16 parents       count n
 *  52 u32 key_id        0: the payload is in clear
 *  56 u64 flags
 *  64 u8[32] commitment HMAC-SHA-256(salt, payload)
 *  96 n x {u64 log, u64 lamport}
 *  .. u8[16] salt, payload; then zeros up to a multiple of 8, which length does not count
 *
 * The leaf hash covers bytes 8 .. 96+16n. It leaves out length, CRC, salt and payload, so a payload
 * may be stored otherwise, or erased, and every proof over the log still holds.
 */
#ifndef SRDS_FRAME_H
#define SRDS_FRAME_H

#include "crc32c.h"
#include "sha256.h"

enum {
    SRDS_PROLOGUE = 8,
    SRDS_FIXED_END = 64, /* the event's own fields are bytes 8 .. 64 */
    SRDS_HEAD_END = 96,  /* and the commitment ends here */
    SRDS_SALT = 16,
    SRDS_PARENT = 16,
    SRDS_MIN_LENGTH = SRDS_HEAD_END - SRDS_PROLOGUE,
    SRDS_MAX_PAYLOAD = 64 << 20,
    SRDS_MAX_LENGTH = SRDS_MIN_LENGTH + 65535 * SRDS_PARENT + SRDS_SALT + SRDS_MAX_PAYLOAD
};

typedef enum {
    SRDS_FRAME_WHOLE = 0,
    SRDS_FRAME_CUT,        /* the file ends within the frame */
    SRDS_FRAME_BAD_LENGTH, /* the length is out of bounds, or too short for what the head announces */
    SRDS_FRAME_BAD_CRC,
    SRDS_FRAME_BAD_PADDING /* neither CRC nor leaf covers the padding: it must be zero */
} srds_frame_state;

static inline uint16_t srds_get16(const uint8_t *p) { uint16_t v; memcpy(&v, p, 2); return v; }
static inline uint32_t srds_get32(const uint8_t *p) { uint32_t v; memcpy(&v, p, 4); return v; }
static inline uint64_t srds_get64(const uint8_t *p) { uint64_t v; memcpy(&v, p, 8); return v; }
static inline void srds_put16(uint8_t *p, uint16_t v) { memcpy(p, &v, 2); }
static inline void srds_put32(uint8_t *p, uint32_t v) { memcpy(p, &v, 4); }
static inline void srds_put64(uint8_t *p, uint64_t v) { memcpy(p, &v, 8); }

static inline uint64_t srds_align8(uint64_t n) { return (n + 7) & ~(uint64_t)7; }

static inline uint64_t srds_frame_span(uint32_t parents, uint64_t payload_n) {
    return srds_align8(SRDS_HEAD_END + (uint64_t)parents * SRDS_PARENT + SRDS_SALT + payload_n);
}

static inline uint64_t srds_frame_total(const uint8_t *frame) {
    return srds_align8(SRDS_PROLOGUE + (uint64_t)srds_get32(frame));
}

static inline const uint8_t *srds_frame_salt(const uint8_t *frame) {
    return frame + SRDS_HEAD_END + (size_t)srds_get16(frame + 50) * SRDS_PARENT;
}

static inline uint64_t srds_frame_payload_n(const uint8_t *frame) {
    return SRDS_PROLOGUE + (uint64_t)srds_get32(frame) - SRDS_HEAD_END -
           (uint64_t)srds_get16(frame + 50) * SRDS_PARENT - SRDS_SALT;
}

static inline void srds_frame_leaf(const uint8_t *frame, uint8_t leaf[32]) {
    static const uint8_t mark = 0;
    srds_sha256 s;
    srds_sha256_begin(&s, srds_sha256_best());
    srds_sha256_add(&s, &mark, 1);
    srds_sha256_add(&s, frame + SRDS_PROLOGUE,
                    SRDS_HEAD_END - SRDS_PROLOGUE + (size_t)srds_get16(frame + 50) * SRDS_PARENT);
    srds_sha256_end(&s, leaf);
}

static inline void srds_frame_commitment(const uint8_t *frame, uint8_t commitment[32]) {
    const uint8_t *salt = srds_frame_salt(frame);
    srds_hmac_sha256(srds_sha256_best(), salt, SRDS_SALT, salt + SRDS_SALT,
                     srds_frame_payload_n(frame), commitment);
}

/* Write the whole frame to `out`, which has room for srds_frame_span(); `fixed` holds what will be
   bytes 8 .. 64. Returns the bytes written. */
static inline uint64_t srds_frame_encode(uint8_t *out, const uint8_t *fixed, const uint8_t *parents,
                                         const uint8_t *salt, const uint8_t *payload,
                                         uint64_t payload_n, uint8_t leaf[32]) {
    uint32_t n = srds_get16(fixed + 50 - SRDS_PROLOGUE);
    uint64_t end = SRDS_HEAD_END + (uint64_t)n * SRDS_PARENT + SRDS_SALT + payload_n;
    uint64_t span = srds_align8(end);
    uint8_t *p = out + SRDS_HEAD_END;
    memset(out + span - 8, 0, 8);
    srds_put32(out, (uint32_t)(end - SRDS_PROLOGUE));
    memcpy(out + SRDS_PROLOGUE, fixed, SRDS_FIXED_END - SRDS_PROLOGUE);
    if (n) memcpy(p, parents, (size_t)n * SRDS_PARENT);
    p += (size_t)n * SRDS_PARENT;
    memcpy(p, salt, SRDS_SALT);
    if (payload_n) memcpy(p + SRDS_SALT, payload, payload_n);
    srds_hmac_sha256(srds_sha256_best(), salt, SRDS_SALT, p + SRDS_SALT, payload_n,
                     out + SRDS_FIXED_END);
    srds_frame_leaf(out, leaf);
    srds_put32(out + 4, srds_crc32c_best()(0, out + SRDS_PROLOGUE, end - SRDS_PROLOGUE));
    return span;
}

/* Whether `frame`, of which `available` bytes can be read, is whole. The length is bounded before
   anything is done with it: it comes from the disk. */
static inline srds_frame_state srds_frame_check(const uint8_t *frame, uint64_t available) {
    if (available < SRDS_PROLOGUE) return SRDS_FRAME_CUT;
    uint64_t length = srds_get32(frame);
    if (length < SRDS_MIN_LENGTH || length > SRDS_MAX_LENGTH) return SRDS_FRAME_BAD_LENGTH;
    if (srds_align8(SRDS_PROLOGUE + length) > available) return SRDS_FRAME_CUT;
    if (length < SRDS_MIN_LENGTH + (uint64_t)srds_get16(frame + 50) * SRDS_PARENT + SRDS_SALT)
        return SRDS_FRAME_BAD_LENGTH;
    if (srds_crc32c_best()(0, frame + SRDS_PROLOGUE, length) != srds_get32(frame + 4))
        return SRDS_FRAME_BAD_CRC;
    for (uint64_t i = SRDS_PROLOGUE + length; i & 7; i++)
        if (frame[i]) return SRDS_FRAME_BAD_PADDING;
    return SRDS_FRAME_WHOLE;
}

#endif
