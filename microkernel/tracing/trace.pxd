"""The trace ring at C level; see ``trace.pyx``."""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from microkernel.task cimport FAILED, Ref


cdef extern from "microkernel/tracing/trace.h":
    enum:
        SRDS_ENDED_OK
        SRDS_ENDED_ERROR
        SRDS_ENDED_CANCELLED
        SRDS_ENDED_MISSED
        SRDS_KIND_TASK
        SRDS_KIND_DECISION
        SRDS_KIND_COROUTINE
        SRDS_IN_NS
        SRDS_SENT

    ctypedef struct Moment "srds_moment":
        uint64_t ticks
        int64_t ns

    ctypedef struct PlaceCounts "srds_place_counts":
        uint64_t submitted
        uint64_t begun
        uint64_t left
        uint64_t[4] ended
        uint64_t retried

    ctypedef struct Row "srds_trace_row":
        uint64_t running
        uint64_t since
        uint64_t tasks
        uint64_t busy
        uint32_t depth
        int32_t process
        char[48] name

    ctypedef struct Stats "srds_stats":
        char[8] magic
        uint32_t version
        uint32_t closed
        int32_t process
        uint32_t counter
        int64_t opened_unix_ns
        Moment opened
        uint8_t[16] run_id
        char[96] program
        char[16] placement
        uint64_t blocks
        uint64_t lost
        uint64_t overwritten
        uint64_t capacity
        uint32_t spill_error
        uint32_t names_used
        PlaceCounts places[64][4]
        Row rows[256]

    ctypedef struct CTrace "srds_trace":
        PlaceCounts *places
        Row *rows
        Stats *stats
        void *area
        int counter
        int memory
        int file
        int inherited
        uint16_t station
        uint16_t staged_station
        uint16_t staged_lane
        uint8_t staged_in_ns
        const void *staged
        uint64_t staged_started
        uint64_t staged_ended

    int srds_trace_lane(const CTrace *t, unsigned long thread) noexcept nogil
    uint64_t srds_trace_begin(CTrace *t, unsigned lane, unsigned place,
                              uint64_t function) noexcept nogil
    void srds_trace_end(CTrace *t, const void *task, unsigned lane, unsigned place,
                        uint64_t started) noexcept nogil
    int srds_trace_append(CTrace *t, const void *task, uint64_t id_hi, uint64_t id_lo,
                          uint64_t parent_hi, uint64_t parent_lo, uint64_t function,
                          uint64_t started, unsigned lane, unsigned place, unsigned status,
                          unsigned attempt, unsigned kind) noexcept nogil
    int srds_trace_knows(const CTrace *t, uint64_t function) noexcept nogil
    uint64_t srds_ticks(int counter) noexcept nogil


cdef class TraceRing:
    cdef CTrace trace
    cdef dict lanes             # of the threads that ran something, by their ident
    cdef dict names             # of functions, by the hash of the name
    cdef readonly str folder
    cdef bint open
    cdef Moment gauged          # both clocks, not long ago
    cdef int64_t gauged_until   # ticks
    cdef double rate            # ns per tick

    cdef int new_lane(self, unsigned long thread) except -1
    cdef int note_name(self, Ref task) except -1
    cdef int say_lost(self) except -1
    cdef int append_slowly(self, Ref task, int state, object result, unsigned kind) except -1
    cdef int append_remote(self, Ref task, unsigned station, int64_t started_ns,
                           int64_t ended_ns) except -1
    cdef int64_t ns_of(self, int64_t ticks) noexcept
    cdef int last_times(self, int64_t *started_ns, int64_t *ended_ns) noexcept


cdef inline int submitted(TraceRing ring, Ref task) noexcept:
    """A task was handed in."""
    ring.trace.places[task.place].submitted += 1
    return 0


cdef inline int begin(TraceRing ring, Ref task) except -1:
    """A task begins in the thread that ``task.thread`` names."""
    cdef int lane = srds_trace_lane(&ring.trace, task.thread)
    if lane < 0:
        lane = ring.new_lane(task.thread)
    if not srds_trace_knows(&ring.trace, task.function.hash):
        ring.note_name(task)
    task.started = srds_trace_begin(&ring.trace, lane, task.place, task.function.hash)
    return 0


cdef inline int begin_coroutine(TraceRing ring, Ref task) noexcept:
    """A coroutine begins: others run in its thread before it ends."""
    ring.trace.places[task.place].begun += 1
    task.started = srds_ticks(ring.trace.counter)
    return 0


cdef inline int end(TraceRing ring, Ref task) except -1:
    """The function of a task that was begun has returned; ``append`` comes next."""
    cdef int lane = srds_trace_lane(&ring.trace, task.thread)
    if lane < 0:
        lane = ring.new_lane(task.thread)
    srds_trace_end(&ring.trace, <void *>task, lane, task.place, task.started)
    return 0


cdef inline int append(TraceRing ring, Ref task, int state, object result) except -1:
    """The entry of a task that ends; one that another process sent has its entry there."""
    cdef int lost
    if task.place == SRDS_SENT:
        return 0
    if state == FAILED or ring.trace.staged != <void *>task:
        return ring.append_slowly(task, state, result, SRDS_KIND_TASK)
    lost = srds_trace_append(&ring.trace, <void *>task, task.id.hi, task.id.lo, task.parent.hi,
                             task.parent.lo, task.function.hash, 0, 0, task.place,
                             SRDS_ENDED_OK, task.attempt, SRDS_KIND_TASK)
    return ring.say_lost() if lost else 0
