/* CRC-32C (Castagnoli, reflected polynomial 0x82f63b78), as in iSCSI and ext4.
 *
 * It tells a torn or rotten frame from a whole one; it is no tamper evidence. The instruction of
 * SSE 4.2 is used where cpuid reports it, that of ARMv8 where the compiler was told to expect it,
 * and eight tables ("slicing by 8") everywhere else.
 */
#ifndef SRDS_CRC32C_H
#define SRDS_CRC32C_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef uint32_t (*srds_crc32c_fn)(uint32_t crc, const uint8_t *p, size_t n);

static uint32_t srds_crc32c_table[8][256];
static int srds_crc32c_table_ready;

/* Two threads may fill the tables at once: both write the same values. */
static inline void srds_crc32c_fill_table(void) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t crc = i;
        for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ (0x82f63b78u & (0u - (crc & 1)));
        srds_crc32c_table[0][i] = crc;
    }
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t crc = srds_crc32c_table[0][i];
        for (int t = 1; t < 8; t++) {
            crc = srds_crc32c_table[0][crc & 0xff] ^ (crc >> 8);
            srds_crc32c_table[t][i] = crc;
        }
    }
    __atomic_store_n(&srds_crc32c_table_ready, 1, __ATOMIC_RELEASE);
}

static inline uint32_t srds_crc32c_portable(uint32_t crc, const uint8_t *p, size_t n) {
    if (!__atomic_load_n(&srds_crc32c_table_ready, __ATOMIC_ACQUIRE)) srds_crc32c_fill_table();
    const uint32_t(*t)[256] = srds_crc32c_table;
    crc = ~crc;
    for (; n >= 8; n -= 8, p += 8) {
        uint64_t word;
        memcpy(&word, p, 8);
        word ^= crc;
        crc = t[7][word & 0xff] ^ t[6][(word >> 8) & 0xff] ^ t[5][(word >> 16) & 0xff] ^
              t[4][(word >> 24) & 0xff] ^ t[3][(word >> 32) & 0xff] ^ t[2][(word >> 40) & 0xff] ^
              t[1][(word >> 48) & 0xff] ^ t[0][word >> 56];
    }
    for (; n; n--, p++) crc = t[0][(crc ^ *p) & 0xff] ^ (crc >> 8);
    return ~crc;
}

#if defined(__x86_64__)
#include <cpuid.h>
#include <nmmintrin.h>

__attribute__((target("sse4.2")))
static inline uint32_t srds_crc32c_machine(uint32_t crc, const uint8_t *p, size_t n) {
    uint64_t c = ~crc;
    for (; n >= 8; n -= 8, p += 8) {
        uint64_t word;
        memcpy(&word, p, 8);
        c = _mm_crc32_u64(c, word);
    }
    for (; n; n--, p++) c = _mm_crc32_u8((uint32_t)c, *p);
    return ~(uint32_t)c;
}

static inline int srds_has_crc32c(void) {
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & (1u << 20));
}
#elif defined(__aarch64__) && defined(__ARM_FEATURE_CRC32)
#include <arm_acle.h>

static inline uint32_t srds_crc32c_machine(uint32_t crc, const uint8_t *p, size_t n) {
    crc = ~crc;
    for (; n >= 8; n -= 8, p += 8) {
        uint64_t word;
        memcpy(&word, p, 8);
        crc = __crc32cd(crc, word);
    }
    for (; n; n--, p++) crc = __crc32cb(crc, *p);
    return ~crc;
}

static inline int srds_has_crc32c(void) { return 1; }
#else
#define srds_crc32c_machine srds_crc32c_portable
static inline int srds_has_crc32c(void) { return 0; }
#endif

static inline srds_crc32c_fn srds_crc32c_best(void) {
    static srds_crc32c_fn chosen;
    srds_crc32c_fn fn = __atomic_load_n(&chosen, __ATOMIC_RELAXED);
    if (!fn) {
        fn = srds_has_crc32c() ? srds_crc32c_machine : srds_crc32c_portable;
        __atomic_store_n(&chosen, fn, __ATOMIC_RELAXED);
    }
    return fn;
}

#endif
