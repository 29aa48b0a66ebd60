/* The messages that pass between the processes of one kernel.

   A task record is written once and serves four times: as the message on a ring, as what is known of
   a pending task, as its entry in the lineage (id, parent, function, attempt) and, joined with the
   completion, as its trace event. It fills one cache line; arguments follow it.

   Every message is a multiple of 64 bytes and begins with its size and kind, so that a ring can be
   read without knowing what is in it. */
#ifndef SRDS_RECORD_H
#define SRDS_RECORD_H

#include <assert.h>
#include <stdatomic.h>
#include <stdint.h>

enum {                              /* kinds of messages */
    SRDS_FILLER = 0,                /* up to the end of the ring; skipped by srds_ring_next */
    SRDS_TASK = 1,                  /* srds_task, then its arguments: run it and answer */
    SRDS_DONE = 2,                  /* srds_completion, then the result: the end of a task */
    SRDS_ITEM = 3,                  /* srds_completion, then one item of a streaming generator */
    SRDS_CANCEL = 4,                /* srds_message; slot: the sender's task to be given up */
    SRDS_ACTOR = 5,                 /* srds_task: make the actor `id`; arguments follow */
    SRDS_CALL = 6,                  /* srds_task: call a method of the actor `parent` */
    SRDS_ACTOR_END = 7,             /* srds_task: end the actor `parent` */
    SRDS_FLOW = 8,                  /* srds_message: whatever flows say to each other */
    SRDS_CONTROL = 9,               /* srds_message: what has no kind of its own */
    SRDS_KINDS = 16
};

enum {                              /* flags of a task */
    SRDS_NAMED = 1,                 /* has named arguments */
    SRDS_RECORDED = 2,              /* of a recorded decision, whose 16 bytes come first; in the
                                       answer, what it read comes first */
    SRDS_STREAMING = 4,             /* a generator: one SRDS_ITEM each, then SRDS_DONE */
    SRDS_IN_BLOCK = 16,             /* the payload is the handle of a block that holds it */
    SRDS_METHOD = 32                /* `function` is the number of a method of an actor */
};

enum {                              /* status of a completion */
    SRDS_OK = 0,
    SRDS_ERROR = 1,                 /* the payload is the error */
    SRDS_CANCELLED = 2
};

enum { SRDS_UNCLAIMED = 0, SRDS_REVOKED = 0xffffffffu };

typedef struct {                    /* how every message begins */
    uint32_t size;                  /* bytes of the whole message, a multiple of 64 */
    uint8_t kind;
    uint8_t status;                 /* or attempt */
    uint16_t flags;
    uint32_t slot;                  /* the sender's entry for the task: comes back in the answer */
    uint32_t payload;               /* bytes of payload behind the fixed part */
    int64_t value;
} srds_message;

typedef struct {
    uint32_t size;
    uint8_t kind;
    uint8_t attempt;                /* 0 the first time; each crash or retry adds one */
    uint16_t flags;
    uint32_t slot;
    uint32_t payload;               /* bytes of arguments behind the record */
    uint32_t function;              /* station << 24 | index in its function table; 0: in payload */
    _Atomic uint32_t claim;         /* SRDS_UNCLAIMED, 1 + station that runs it, SRDS_REVOKED */
    uint64_t id_hi, id_lo;
    uint64_t parent_hi, parent_lo;
    int64_t deadline_ns;            /* CLOCK_MONOTONIC; 0: none */
} srds_task;

typedef struct {
    uint32_t size;
    uint8_t kind;
    uint8_t status;
    uint16_t flags;
    uint32_t slot;
    uint32_t payload;               /* bytes of the result behind the record */
    int64_t started_ns, ended_ns;   /* CLOCK_MONOTONIC */
} srds_completion;

static_assert(sizeof(srds_task) == 64, "a task record fills one cache line");
static_assert(sizeof(srds_completion) == 32, "a completion fills half a cache line");

static inline uint32_t srds_message_size(size_t fixed, size_t payload) {
    return (uint32_t)((fixed + payload + 63) & ~(size_t)63);
}

#endif
