/* A small model checker for the code in our headers as it stands, not for a copy of it.

   The atomic operations of <stdatomic.h> are replaced by ones that stop the thread before each and
   let the checker choose who goes on. It visits every state that can be reached by any order of
   choices: depth first, from the start again for each branch, and not again where it has been.

   A state is the shared memory, the stores not yet visible, and for each thread what it has read so
   far, since threads are deterministic. Three memory models:
     sc   every store is visible at once (sequential consistency)
     tso  a store waits in its thread's queue, as on x86
     pso  relaxed stores may overtake others there, a store with release overtakes none
   Only stores are delayed: what a processor does by reading ahead is not found here.

   A thread may be declared mortal: then the checker kills it, at every possible point in turn. */
#ifndef MODEL_H
#define MODEL_H
#define SRDS_MODEL 1

#include <assert.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

enum { MODEL_THREADS = 4, MODEL_DEPTH = 2000, MODEL_QUEUE = 16, MODEL_STACK = 1 << 16 };
enum model_memory { MODEL_SC, MODEL_TSO, MODEL_PSO };
enum model_kind { OP_NONE, OP_LOAD, OP_STORE, OP_EXCHANGE, OP_ADD, OP_OR, OP_CAS, OP_FENCE,
                  OP_FUTEX_WAIT, OP_FUTEX_WAKE, OP_AWAIT_DEATH, OP_END };
static const char *const model_names[] = { "none", "load", "store", "exchange", "add", "or", "cas",
                                           "fence", "futex_wait", "futex_wake", "await_death", "end" };

typedef struct {
    enum model_kind kind;
    void *at;
    unsigned size;
    uint64_t value, expected;
    memory_order order;
} model_op;

typedef struct { void *at; unsigned size; uint64_t value; int release; } model_store;

typedef struct {
    void (*body)(int);
    int mortal, dead, asleep, woken;
    model_op next;                      /* what it will do when it is let go on */
    uint64_t answer, history;
    model_store queue[MODEL_QUEUE];
    int queued;
    jmp_buf here, start;
    ucontext_t context;
    char stack[MODEL_STACK];
} model_thread;

static struct {
    enum model_memory memory;
    model_thread threads[MODEL_THREADS];
    int n, running, depth, deaths;
    int path[MODEL_DEPTH];
    const char *violated;
    void *shared;
    size_t shared_bytes;
    const void *alone[8];               /* see model_alone */
    int n_alone;
    void (*check)(void);
    jmp_buf checker;
    ucontext_t main;
    uint64_t *seen, seen_slots, states, transitions, ends;
} model;

static void model_replay(int depth, int loud);

static void __attribute__((noreturn)) model_fail(const char *what) {
    printf("violation: %s\n", what);
    model.violated = NULL;
    model_replay(model.depth, 1);
    exit(1);
}

/* ---- Memory ---- */

static uint64_t model_peek(const void *at, unsigned size) {
    uint64_t value = 0;
    memcpy(&value, at, size);
    return value;
}

static void model_flush(model_thread *thread, int which) {
    model_store *store = &thread->queue[which];
    memcpy(store->at, &store->value, store->size);
    thread->queued--;
    memmove(store, store + 1, sizeof *store * (size_t)(thread->queued - which));
}

static int model_may_flush(model_thread *thread, int which) {
    if (which > 0 && (model.memory == MODEL_TSO || thread->queue[which].release)) return 0;
    for (int i = 0; i < which; i++)
        if (thread->queue[i].at == thread->queue[which].at) return 0;
    return 1;
}

static uint64_t model_read(model_thread *thread, void *at, unsigned size) {
    for (int i = thread->queued - 1; i >= 0; i--)
        if (thread->queue[i].at == at) return thread->queue[i].value;
    return model_peek(at, size);
}

/* ---- One operation ---- */

static int model_drains(const model_op *op) {
    return op->kind != OP_LOAD && op->kind != OP_AWAIT_DEATH
        && !(op->kind == OP_STORE && op->order != memory_order_seq_cst);
}

static int model_enabled(const model_thread *thread) {
    const model_op *op = &thread->next;
    if (thread->dead || op->kind == OP_END) return 0;
    if (model_drains(op) && thread->queued) return 0;
    if (thread->asleep && !thread->woken) return 0;
    if (op->kind == OP_AWAIT_DEATH && !model.threads[op->value].dead
        && model.threads[op->value].next.kind != OP_END) return 0;
    return 1;
}

/* 0: the thread has gone to sleep and has no answer yet. */
static int model_perform(model_thread *thread) {
    model_op *op = &thread->next;
    uint64_t old;
    switch (op->kind) {
    case OP_LOAD:
        thread->answer = model_read(thread, op->at, op->size);
        return 1;
    case OP_STORE:
        if (model.memory == MODEL_SC || op->order == memory_order_seq_cst)
            memcpy(op->at, &op->value, op->size);
        else {
            assert(thread->queued < MODEL_QUEUE);
            thread->queue[thread->queued++] = (model_store){ op->at, op->size, op->value,
                                                            op->order != memory_order_relaxed };
        }
        return 1;
    case OP_EXCHANGE: case OP_ADD: case OP_OR: case OP_CAS:
        old = model_peek(op->at, op->size);
        if (op->kind == OP_ADD) op->value += old;
        if (op->kind == OP_OR) op->value |= old;
        if (op->kind != OP_CAS || old == op->expected) memcpy(op->at, &op->value, op->size);
        thread->answer = old;
        return 1;
    case OP_FUTEX_WAIT:
        if (thread->asleep) {
            thread->asleep = thread->woken = 0;
            thread->answer = 0;
            return 1;
        }
        if (model_peek(op->at, op->size) == op->value) {
            thread->asleep = 1;
            return 0;
        }
        thread->answer = 1;
        return 1;
    case OP_FUTEX_WAKE:
        for (int i = 0; i < model.n; i++)
            if (model.threads[i].asleep && !model.threads[i].woken
                && model.threads[i].next.at == op->at) {
                model.threads[i].woken = 1;
                break;
            }
        return 1;
    default:
        return 1;
    }
}

/* ---- Threads ---- */

/* Only one thread uses this place in this scenario: no order of choices matters to it. */
static inline void model_alone(const volatile void *at) {
    assert(model.n_alone < 8);
    model.alone[model.n_alone++] = (const void *)at;
}

static uint64_t model_do(enum model_kind kind, void *at, unsigned size, uint64_t value,
                         uint64_t expected, memory_order order) {
    model_thread *thread = &model.threads[model.running];
    if (kind == OP_LOAD || kind == OP_STORE)
        for (int i = 0; i < model.n_alone; i++)
            if (model.alone[i] == at) {
                if (kind == OP_LOAD) return model_peek(at, size);
                memcpy(at, &value, size);
                return 0;
            }
    thread->next = (model_op){ kind, at, size, value, expected, order };
    if (!_setjmp(thread->here)) _longjmp(model.checker, 1);
    return thread->answer;
}

/* In a thread, which ends there so that the checker can tell on its own stack; or in the check. */
static void model_violation(const char *what) {
    if (model.running < 0) model_fail(what);
    model.violated = what;
    model_do(OP_END, NULL, 0, 0, 0, memory_order_relaxed);
    abort();
}
#define model_assert(condition) ((condition) ? (void)0 : model_violation(#condition))

/* What the running thread knows from here on stands in shared memory. */
static inline void model_forget(uint64_t place) {
    model.threads[model.running].history = place;
}

static void model_trampoline(void) {
    int me = model.running;
    for (;;) {
        if (!_setjmp(model.threads[me].start)) {
            swapcontext(&model.threads[me].context, &model.main);
        }
        model.threads[me].body(me);
        model_do(OP_END, NULL, 0, 0, 0, memory_order_relaxed);
    }
}

static void model_resume(int i) {
    model.running = i;
    if (!_setjmp(model.checker)) _longjmp(model.threads[i].here, 1);
    model.running = -1;
}

static void model_restart(int i) {
    model_thread *thread = &model.threads[i];
    thread->dead = thread->asleep = thread->woken = thread->queued = 0;
    thread->history = 1;
    thread->answer = 0;
    model.running = i;
    if (!_setjmp(model.checker)) _longjmp(thread->start, 1);
    model.running = -1;
}

/* ---- States ---- */

static uint64_t model_mix(uint64_t h, uint64_t x) {
    h = (h ^ x) * 0x9e3779b97f4a7c15ull;
    return h ^ (h >> 29);
}

static uint64_t model_hash(void) {
    uint64_t h = 0x51ed270b3a1dc0deull, word;
    for (size_t i = 0; i + 8 <= model.shared_bytes; i += 8) {
        memcpy(&word, (char *)model.shared + i, 8);
        h = model_mix(h, word);
    }
    for (int i = 0; i < model.n; i++) {
        model_thread *t = &model.threads[i];
        h = model_mix(model_mix(h, t->history), (uint64_t)(t->dead * 4 + t->asleep * 2 + t->woken));
        h = model_mix(h, (uint64_t)t->next.kind << 32 | (uint32_t)t->queued);
        for (int k = 0; k < t->queued; k++)
            h = model_mix(model_mix(h, (uint64_t)(uintptr_t)t->queue[k].at), t->queue[k].value);
    }
    return h ? h : 1;
}

static int model_new(uint64_t h) {
    uint64_t at;
    if (model.states * 2 >= model.seen_slots) {
        uint64_t *old = model.seen, slots = model.seen_slots;
        model.seen_slots = slots ? slots * 2 : 1 << 16;
        model.seen = calloc(model.seen_slots, sizeof *model.seen);
        assert(model.seen);
        for (uint64_t i = 0; i < slots; i++) {
            if (!old[i]) continue;
            for (at = old[i] & (model.seen_slots - 1); model.seen[at];)
                at = (at + 1) & (model.seen_slots - 1);
            model.seen[at] = old[i];
        }
        free(old);
    }
    for (at = h & (model.seen_slots - 1); model.seen[at]; at = (at + 1) & (model.seen_slots - 1))
        if (model.seen[at] == h) return 0;
    model.seen[at] = h;
    model.states++;
    return 1;
}

/* A choice: let thread i go on; kill it; make the k-th of its waiting stores visible. */
enum { CHOOSE_STEP = 0, CHOOSE_DEATH = 1, CHOOSE_STORE = 2 };

static int model_choices(int *choices) {
    int n = 0;
    for (int i = 0; i < model.n; i++) {
        model_thread *t = &model.threads[i];
        if (model_enabled(t)) choices[n++] = i * 64 + CHOOSE_STEP;
        if (t->mortal && !t->dead && t->next.kind != OP_END) choices[n++] = i * 64 + CHOOSE_DEATH;
        for (int k = 0; k < t->queued; k++)
            if (model_may_flush(t, k)) choices[n++] = i * 64 + CHOOSE_STORE + k;
    }
    return n;
}

static void model_take(int choice, int loud) {
    int i = choice / 64, what = choice % 64;
    model_thread *t = &model.threads[i];
    if (loud)
        printf("  thread %d: %s %s at %td value %lld\n", i,
               what == CHOOSE_DEATH ? "dies before" : what ? "store becomes visible; next:" : "",
               model_names[t->next.kind],
               t->next.at ? (char *)t->next.at - (char *)model.shared : 0, (long long)t->next.value);
    if (what == CHOOSE_DEATH) {
        t->dead = 1;
        return;
    }
    if (what >= CHOOSE_STORE) {
        model_flush(t, what - CHOOSE_STORE);
        return;
    }
    if (!model_perform(t)) return;
    t->history = model_mix(model_mix(t->history, (uint64_t)t->next.kind), t->answer);
    model_resume(i);
}

static void model_replay(int depth, int loud) {
    memset(model.shared, 0, model.shared_bytes);
    for (int i = 0; i < model.n; i++) model_restart(i);
    for (int d = 0; d < depth; d++) model_take(model.path[d], loud);
}

static void model_explore(int depth) {
    int choices[MODEL_THREADS * (MODEL_QUEUE + 2)], n;
    model.depth = depth;
    if (!model_new(model_hash())) return;
    n = model_choices(choices);
    if (n == 0) {
        model.ends++;
        for (int i = 0; i < model.n; i++)
            if (!model.threads[i].dead && model.threads[i].next.kind != OP_END)
                model_fail("a thread waits forever");
        model.check();
        return;
    }
    assert(depth < MODEL_DEPTH);
    for (int k = 0; k < n; k++) {
        if (k > 0) model_replay(depth, 0);
        model.path[depth] = choices[k];
        model.depth = depth + 1;
        model.transitions++;
        model_take(choices[k], 0);
        if (model.violated) model_fail(model.violated);
        model_explore(depth + 1);
    }
}

static void model_thread_is(int i, void (*body)(int), int mortal) {
    model.threads[i].body = body;
    model.threads[i].mortal = mortal;
}

/* Visits everything; leaves the process with 1 at the first violation. */
static void model_run(const char *name, enum model_memory memory, int threads, void *shared,
                      size_t bytes, void (*check)(void)) {
    static int made;
    model.memory = memory;
    model.n = threads;
    model.shared = shared;
    model.shared_bytes = bytes;
    model.check = check;
    model.states = model.transitions = model.ends = model.seen_slots = 0;
    free(model.seen);
    model.seen = NULL;
    for (; made < threads; made++) {
        ucontext_t *context = &model.threads[made].context;
        getcontext(context);
        context->uc_stack.ss_sp = model.threads[made].stack;
        context->uc_stack.ss_size = MODEL_STACK;
        model.running = made;
        makecontext(context, model_trampoline, 0);
        swapcontext(&model.main, context);
    }
    model_replay(0, 0);
    model_explore(0);
    printf("%s, %s: %llu states, %llu steps, %llu ends\n", name,
           memory == MODEL_SC ? "sc" : memory == MODEL_TSO ? "tso" : "pso",
           (unsigned long long)model.states, (unsigned long long)model.transitions,
           (unsigned long long)model.ends);
}

static enum model_memory model_memory_named(const char *name) {
    return !strcmp(name, "sc") ? MODEL_SC : !strcmp(name, "tso") ? MODEL_TSO : MODEL_PSO;
}

/* ---- In place of <stdatomic.h> and the system call ---- */

#define model_type(p) __typeof__((void)0, *(p))
#undef atomic_load_explicit
#undef atomic_store_explicit
#undef atomic_exchange_explicit
#undef atomic_fetch_or_explicit
#undef atomic_fetch_add_explicit
#undef atomic_compare_exchange_strong_explicit
#undef atomic_thread_fence
#define atomic_load_explicit(p, o) \
    ((model_type(p))model_do(OP_LOAD, (void *)(p), sizeof *(p), 0, 0, o))
#define atomic_store_explicit(p, v, o) \
    ((void)model_do(OP_STORE, (void *)(p), sizeof *(p), (uint64_t)(v), 0, o))
#define atomic_exchange_explicit(p, v, o) \
    ((model_type(p))model_do(OP_EXCHANGE, (void *)(p), sizeof *(p), (uint64_t)(v), 0, o))
#define atomic_fetch_or_explicit(p, v, o) \
    ((model_type(p))model_do(OP_OR, (void *)(p), sizeof *(p), (uint64_t)(v), 0, o))
#define atomic_fetch_add_explicit(p, v, o) \
    ((model_type(p))model_do(OP_ADD, (void *)(p), sizeof *(p), (uint64_t)(v), 0, o))
#define atomic_compare_exchange_strong_explicit(p, e, v, o, f) __extension__ ({ \
    model_type(p) was_ = (model_type(p))model_do(OP_CAS, (void *)(p), sizeof *(p), (uint64_t)(v), \
                                                 (uint64_t)*(e), o); \
    int same_ = was_ == *(e); \
    *(e) = was_; \
    same_; })
#define atomic_thread_fence(o) ((void)model_do(OP_FENCE, NULL, 0, 0, 0, o))

static inline int srds_futex_wait(_Atomic uint32_t *word, uint32_t value, int64_t until_ns) {
    (void)until_ns;                     /* nobody is woken by the clock here */
    model_do(OP_FUTEX_WAIT, (void *)word, sizeof *word, value, 0, memory_order_seq_cst);
    return 0;
}

static inline void srds_futex_wake(_Atomic uint32_t *word) {
    model_do(OP_FUTEX_WAKE, (void *)word, sizeof *word, 0, 0, memory_order_seq_cst);
}

static inline void model_await_death(int thread) {
    model_do(OP_AWAIT_DEATH, NULL, 0, (uint64_t)thread, 0, memory_order_relaxed);
}

#define sched_getcpu model_cpu
int model_cpu(void);
int model_cpu(void) { return 0; }

#endif
