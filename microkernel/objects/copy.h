/* Copying into the arena.

   A large object is more than the caches hold, and who made it does not read it again: written past
   the caches it takes half the memory traffic, since no line is fetched to be overwritten. Measured
   on 80 MB: 0.5 to 0.7 of what memcpy takes. Smaller ones go through the caches, where the process
   that they are for will find them. */
#ifndef SRDS_COPY_H
#define SRDS_COPY_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

enum { SRDS_PAST_CACHES = 8 << 20, SRDS_LINE = 64, SRDS_FETCH_AHEAD = 1024 };

static inline void srds_copy(void *to, const void *from, size_t n) {
#ifdef __SSE2__
    if (n >= SRDS_PAST_CACHES) {
        unsigned char *d = to;
        const unsigned char *s = from;
        size_t head = (size_t)(-(uintptr_t)d & (SRDS_LINE - 1)), lines;
        memcpy(d, s, head);
        d += head, s += head, n -= head;
        for (lines = n / SRDS_LINE; lines; lines--, d += SRDS_LINE, s += SRDS_LINE) {
            __m128i a = _mm_loadu_si128((const __m128i *)s);
            __m128i b = _mm_loadu_si128((const __m128i *)(s + 16));
            __m128i c = _mm_loadu_si128((const __m128i *)(s + 32));
            __m128i e = _mm_loadu_si128((const __m128i *)(s + 48));
            _mm_prefetch((const char *)s + SRDS_FETCH_AHEAD, _MM_HINT_NTA);  /* may be past the end */
            _mm_stream_si128((__m128i *)d, a);
            _mm_stream_si128((__m128i *)(d + 16), b);
            _mm_stream_si128((__m128i *)(d + 32), c);
            _mm_stream_si128((__m128i *)(d + 48), e);
        }
        _mm_sfence();
        memcpy(d, s, n % SRDS_LINE);
        return;
    }
#endif
    memcpy(to, from, n);
}

#endif
