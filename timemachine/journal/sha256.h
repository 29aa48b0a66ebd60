/* SHA-256 (FIPS 180-4) and HMAC-SHA-256 (RFC 2104).
 *
 * The flusher hashes every event while the interpreter runs, so hashing may neither take the GIL
 * nor allocate: that rules out hashlib. The compression function is chosen once, at run time: the
 * SHA extensions of x86-64 where cpuid reports them, portable C everywhere else.
 */
#ifndef SRDS_SHA256_H
#define SRDS_SHA256_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the journal's formats are little-endian and so is this code"
#endif

typedef void (*srds_sha256_blocks_fn)(uint32_t state[8], const uint8_t *data, size_t blocks);

static const uint32_t srds_sha256_k[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static inline uint32_t srds_rotr(uint32_t x, int n) { return (x >> n) | (x << (32 - n)); }

static inline void srds_sha256_blocks_portable(uint32_t state[8], const uint8_t *data, size_t blocks) {
    for (; blocks; blocks--, data += 64) {
        uint32_t w[64];
        for (int i = 0; i < 16; i++) {
            uint32_t word;
            memcpy(&word, data + 4 * i, 4);
            w[i] = __builtin_bswap32(word);
        }
        for (int i = 16; i < 64; i++) {
            uint32_t s0 = srds_rotr(w[i - 15], 7) ^ srds_rotr(w[i - 15], 18) ^ (w[i - 15] >> 3);
            uint32_t s1 = srds_rotr(w[i - 2], 17) ^ srds_rotr(w[i - 2], 19) ^ (w[i - 2] >> 10);
            w[i] = w[i - 16] + s0 + w[i - 7] + s1;
        }
        uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
        uint32_t e = state[4], f = state[5], g = state[6], h = state[7];
        for (int i = 0; i < 64; i++) {
            uint32_t s1 = srds_rotr(e, 6) ^ srds_rotr(e, 11) ^ srds_rotr(e, 25);
            uint32_t t1 = h + s1 + ((e & f) ^ (~e & g)) + srds_sha256_k[i] + w[i];
            uint32_t s0 = srds_rotr(a, 2) ^ srds_rotr(a, 13) ^ srds_rotr(a, 22);
            uint32_t t2 = s0 + ((a & b) ^ (a & c) ^ (b & c));
            h = g; g = f; f = e; e = d + t1;
            d = c; c = b; b = a; a = t1 + t2;
        }
        state[0] += a; state[1] += b; state[2] += c; state[3] += d;
        state[4] += e; state[5] += f; state[6] += g; state[7] += h;
    }
}

#if defined(__x86_64__)
#include <immintrin.h>

/* Four rounds; `next` gets its message words from `cur` and `prev`, `prev` begins its own. */
#define SRDS_SHA_ROUNDS(i, cur, next, prev, finish, begin)                                       \
    do {                                                                                         \
        __m128i sum = _mm_add_epi32(cur, _mm_loadu_si128((const __m128i *)&srds_sha256_k[4 * i])); \
        state1 = _mm_sha256rnds2_epu32(state1, state0, sum);                                     \
        if (finish) {                                                                            \
            next = _mm_add_epi32(next, _mm_alignr_epi8(cur, prev, 4));                           \
            next = _mm_sha256msg2_epu32(next, cur);                                              \
        }                                                                                        \
        state0 = _mm_sha256rnds2_epu32(state0, state1, _mm_shuffle_epi32(sum, 0x0E));            \
        if (begin) prev = _mm_sha256msg1_epu32(prev, cur);                                       \
    } while (0)

__attribute__((target("sha,sse4.1,ssse3")))
static inline void srds_sha256_blocks_x86(uint32_t state[8], const uint8_t *data, size_t blocks) {
    const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0bULL, 0x0405060700010203ULL);
    __m128i low = _mm_loadu_si128((const __m128i *)&state[0]);
    __m128i high = _mm_loadu_si128((const __m128i *)&state[4]);
    low = _mm_shuffle_epi32(low, 0xB1);
    high = _mm_shuffle_epi32(high, 0x1B);
    __m128i state0 = _mm_alignr_epi8(low, high, 8);
    __m128i state1 = _mm_blend_epi16(high, low, 0xF0);
    for (; blocks; blocks--, data += 64) {
        const __m128i saved0 = state0, saved1 = state1;
        __m128i m0 = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(data + 0)), swap);
        __m128i m1 = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(data + 16)), swap);
        __m128i m2 = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(data + 32)), swap);
        __m128i m3 = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(data + 48)), swap);
        SRDS_SHA_ROUNDS(0, m0, m1, m3, 0, 0);
        SRDS_SHA_ROUNDS(1, m1, m2, m0, 0, 1);
        SRDS_SHA_ROUNDS(2, m2, m3, m1, 0, 1);
        SRDS_SHA_ROUNDS(3, m3, m0, m2, 1, 1);
        SRDS_SHA_ROUNDS(4, m0, m1, m3, 1, 1);
        SRDS_SHA_ROUNDS(5, m1, m2, m0, 1, 1);
        SRDS_SHA_ROUNDS(6, m2, m3, m1, 1, 1);
        SRDS_SHA_ROUNDS(7, m3, m0, m2, 1, 1);
        SRDS_SHA_ROUNDS(8, m0, m1, m3, 1, 1);
        SRDS_SHA_ROUNDS(9, m1, m2, m0, 1, 1);
        SRDS_SHA_ROUNDS(10, m2, m3, m1, 1, 1);
        SRDS_SHA_ROUNDS(11, m3, m0, m2, 1, 1);
        SRDS_SHA_ROUNDS(12, m0, m1, m3, 1, 1);
        SRDS_SHA_ROUNDS(13, m1, m2, m0, 1, 0);
        SRDS_SHA_ROUNDS(14, m2, m3, m1, 1, 0);
        SRDS_SHA_ROUNDS(15, m3, m0, m2, 0, 0);
        state0 = _mm_add_epi32(state0, saved0);
        state1 = _mm_add_epi32(state1, saved1);
    }
    low = _mm_shuffle_epi32(state0, 0x1B);
    high = _mm_shuffle_epi32(state1, 0xB1);
    _mm_storeu_si128((__m128i *)&state[0], _mm_blend_epi16(low, high, 0xF0));
    _mm_storeu_si128((__m128i *)&state[4], _mm_alignr_epi8(high, low, 8));
}
#undef SRDS_SHA_ROUNDS

#include <cpuid.h>
static inline int srds_has_sha_extensions(void) {
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & (1u << 19)) || !(c & (1u << 9))) return 0;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & (1u << 29));
}
#endif

static inline srds_sha256_blocks_fn srds_sha256_best(void) {
    static srds_sha256_blocks_fn chosen;
    srds_sha256_blocks_fn fn = __atomic_load_n(&chosen, __ATOMIC_RELAXED);
    if (!fn) {
        fn = srds_sha256_blocks_portable;
#if defined(__x86_64__)
        if (srds_has_sha_extensions()) fn = srds_sha256_blocks_x86;
#endif
        __atomic_store_n(&chosen, fn, __ATOMIC_RELAXED);
    }
    return fn;
}

typedef struct {
    uint32_t state[8];
    uint64_t total;
    uint8_t pending[64];
    srds_sha256_blocks_fn blocks;
} srds_sha256;

static inline void srds_sha256_begin(srds_sha256 *s, srds_sha256_blocks_fn blocks) {
    static const uint32_t initial[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                        0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    memcpy(s->state, initial, sizeof initial);
    s->total = 0;
    s->blocks = blocks;
}

static inline void srds_sha256_add(srds_sha256 *s, const void *data, size_t n) {
    const uint8_t *p = (const uint8_t *)data;
    size_t held = s->total & 63;
    s->total += n;
    if (held) {
        size_t room = 64 - held;
        if (n < room) {
            if (n) memcpy(s->pending + held, p, n);
            return;
        }
        memcpy(s->pending + held, p, room);
        s->blocks(s->state, s->pending, 1);
        p += room;
        n -= room;
    }
    if (n >= 64) s->blocks(s->state, p, n / 64);
    if (n & 63) memcpy(s->pending, p + (n & ~(size_t)63), n & 63);
}

static inline void srds_sha256_end(srds_sha256 *s, uint8_t digest[32]) {
    size_t held = s->total & 63;
    uint64_t bits = __builtin_bswap64(s->total * 8);
    s->pending[held++] = 0x80;
    if (held > 56) {
        memset(s->pending + held, 0, 64 - held);
        s->blocks(s->state, s->pending, 1);
        held = 0;
    }
    memset(s->pending + held, 0, 56 - held);
    memcpy(s->pending + 56, &bits, 8);
    s->blocks(s->state, s->pending, 1);
    for (int i = 0; i < 8; i++) {
        uint32_t word = __builtin_bswap32(s->state[i]);
        memcpy(digest + 4 * i, &word, 4);
    }
}

/* HMAC for keys of at most 64 bytes: ours are the 16-byte salts of the frames. */
static inline void srds_hmac_sha256(srds_sha256_blocks_fn blocks, const uint8_t *key, size_t key_n,
                                    const void *data, size_t n, uint8_t digest[32]) {
    uint8_t pad[64];
    srds_sha256 s;
    memset(pad, 0x36, 64);
    for (size_t i = 0; i < key_n; i++) pad[i] ^= key[i];
    srds_sha256_begin(&s, blocks);
    srds_sha256_add(&s, pad, 64);
    srds_sha256_add(&s, data, n);
    srds_sha256_end(&s, digest);
    for (int i = 0; i < 64; i++) pad[i] ^= 0x36 ^ 0x5c;
    srds_sha256_begin(&s, blocks);
    srds_sha256_add(&s, pad, 64);
    srds_sha256_add(&s, digest, 32);
    srds_sha256_end(&s, digest);
}

#endif
