/* The arena on systems that have it; on others its functions say ENOSYS. */
#ifndef SRDS_NATIVE_H
#define SRDS_NATIVE_H

#ifdef __linux__

#include "keeper.h"

static inline uint32_t srds_store_seen(srds_store *s) { return atomic_load(&s->head->changed); }
static inline unsigned char *srds_store_data(srds_store *s) { return s->data; }
static inline unsigned char *srds_store_view(srds_store *s) { return (unsigned char *)s->view; }
static inline uint64_t srds_store_capacity(srds_store *s) { return s->head->capacity; }
static inline uint32_t srds_store_limit(srds_store *s) { return s->head->limit; }
static inline int64_t srds_store_patience(srds_store *s) { return s->head->patience_ns; }
/* 0 in a forked child: its parent's holds are not its own. */
static inline int srds_store_mine(srds_store *s) { return *s->mine; }

#else

#include <errno.h>
#include <stdint.h>

typedef struct srds_store { int none; } srds_store;
typedef struct {
    uint64_t capacity, used, objects, spilled, spilled_bytes, largest_free, rebuilt;
    uint64_t held[64], held_bytes[64];
    int spill_error;
} srds_numbers;

#define SRDS_MISSING(name, ...) static inline int name(__VA_ARGS__) { return ENOSYS; }
SRDS_MISSING(srds_store_create, uint64_t c, uint32_t l, int64_t p, const char *f, int *d, srds_store **r)
SRDS_MISSING(srds_store_attach, int fd, unsigned station, srds_store **r)
SRDS_MISSING(srds_store_take, srds_store *s, uint64_t n, uint64_t *handle, uint64_t *offset)
SRDS_MISSING(srds_store_seal, srds_store *s, uint64_t handle, int pinned)
SRDS_MISSING(srds_store_hold, srds_store *s, uint64_t handle, uint64_t *length)
SRDS_MISSING(srds_store_pin, srds_store *s, uint64_t handle, uint64_t *offset)
SRDS_MISSING(srds_store_forget, srds_store *s, unsigned station)
SRDS_MISSING(srds_store_numbers, srds_store *s, srds_numbers *n)
SRDS_MISSING(srds_keeper_start, srds_store *s)
static inline void srds_store_detach(srds_store *s) {}
static inline void srds_store_unpin(srds_store *s, uint64_t handle) {}
static inline void srds_store_release(srds_store *s, uint64_t handle) {}
static inline void srds_store_touch(srds_store *s, uint64_t offset, uint64_t length) {}
static inline void srds_store_await(srds_store *s, uint32_t seen, int64_t ns) {}
static inline void srds_keeper_stop(srds_store *s) {}
static inline int64_t srds_store_now(void) { return 0; }
static inline uint32_t srds_store_seen(srds_store *s) { return 0; }
static inline unsigned char *srds_store_data(srds_store *s) { return 0; }
static inline unsigned char *srds_store_view(srds_store *s) { return 0; }
static inline uint64_t srds_store_capacity(srds_store *s) { return 0; }
static inline uint32_t srds_store_limit(srds_store *s) { return 0; }
static inline int64_t srds_store_patience(srds_store *s) { return 0; }
static inline int srds_store_mine(srds_store *s) { return 0; }

#endif
#endif
