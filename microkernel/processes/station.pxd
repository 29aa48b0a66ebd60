"""What the driver and the workers of a kernel have in common; see ``station.pyx``."""
from cpython.ref cimport PyObject
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from microkernel.engine cimport Engine
from microkernel.function cimport Function
from microkernel.objects.store cimport ObjectStore
from microkernel.processes.payload cimport Payloads
from microkernel.remote cimport Remote
from microkernel.task cimport Ref
from microkernel.values cimport Writer


cdef extern from "microkernel/processes/control.h" nogil:
    enum:
        SRDS_STATIONS
        SRDS_SLAB_SLOTS
        SRDS_SLAB_BYTES
        SRDS_FUNCTION_BYTES
        SRDS_RING_BYTES
        SRDS_KINDS
        SRDS_CONTROL_MAGIC
    enum:
        SRDS_TASK
        SRDS_DONE
        SRDS_ITEM
        SRDS_CANCEL
        SRDS_ACTOR
        SRDS_CALL
        SRDS_ACTOR_END
        SRDS_FLOW
        SRDS_CONTROL
    enum:
        SRDS_NAMED
        SRDS_RECORDED
        SRDS_STREAMING
        SRDS_IN_BLOCK
        SRDS_METHOD
    enum:
        SRDS_OK
        SRDS_ERROR
        SRDS_CANCELLED
    enum:
        SRDS_FREE
        SRDS_STARTING
        SRDS_UP
        SRDS_ENDING
    uint32_t SRDS_UNCLAIMED
    uint32_t SRDS_REVOKED

    ctypedef struct srds_message:
        uint32_t size
        uint8_t kind
        uint8_t status
        uint16_t flags
        uint32_t slot
        uint32_t payload
        int64_t value
    ctypedef struct srds_task:
        uint32_t size
        uint8_t kind
        uint8_t attempt
        uint16_t flags
        uint32_t slot
        uint32_t payload
        uint32_t function
        uint32_t claim
        uint64_t id_hi
        uint64_t id_lo
        uint64_t parent_hi
        uint64_t parent_lo
        int64_t deadline_ns
    ctypedef struct srds_completion:
        uint32_t size
        uint8_t kind
        uint8_t status
        uint16_t flags
        uint32_t slot
        uint32_t payload
        int64_t started_ns
        int64_t ended_ns
    uint32_t srds_message_size(size_t fixed, size_t payload)

    ctypedef struct srds_ring:
        uint64_t tail
        uint64_t published
        uint64_t head
        uint64_t taken
        uint64_t wake_at
        uint32_t damaged
    void *srds_ring_reserve(srds_ring *ring, uint32_t size)
    void srds_ring_publish(srds_ring *ring)
    srds_message *srds_ring_next(srds_ring *ring)
    void srds_ring_consume(srds_ring *ring)
    void srds_ring_consume_to(srds_ring *ring, const srds_message *message)
    uint64_t srds_ring_unread(srds_ring *ring)
    srds_message *srds_ring_unconsumed(srds_ring *ring, uint64_t *cursor)
    void srds_ring_reset(srds_ring *ring)
    void srds_ring_wake_when(srds_ring *ring, uint64_t published)
    void srds_take_over_sending(srds_ring *ring)
    void srds_take_over_reading(srds_ring *ring)

    ctypedef struct srds_bell:
        uint32_t asleep
        uint32_t cpu
        uint64_t inbox
    ctypedef struct srds_spin:
        uint32_t failures
        uint64_t spins
        uint64_t hits
        uint64_t sleeps
    void srds_bell_ring(srds_bell *bell)
    void srds_bell_reset(srds_bell *bell)
    unsigned int srds_bell_here(srds_bell *bell)
    void srds_bell_notify(srds_bell *bell, srds_ring *ring, unsigned int sender)
    uint64_t srds_bell_news(srds_bell *bell)
    int srds_bell_wait(srds_bell *bell, srds_spin *spin, srds_ring **inbound, int n,
                       unsigned int peer_cpu, int64_t until_ns, uint32_t *stop)

    int SRDS_DEQUE_SLOTS
    ctypedef struct srds_deque:
        pass
    int64_t srds_deque_length(srds_deque *deque)
    void srds_deque_reset(srds_deque *deque)
    int srds_deque_push(srds_deque *deque, uint32_t slot)
    int srds_deque_pop(srds_deque *deque, uint32_t *slot)
    int srds_deque_steal(srds_deque *deque, uint32_t *slot)

    ctypedef struct srds_counters:
        uint64_t tasks
        uint64_t nested
        uint64_t stolen
        uint64_t busy_ns
        uint64_t sleeps
        uint64_t spins
        uint64_t spin_hits
        uint64_t failed
    ctypedef struct srds_station:
        srds_bell bell
        uint32_t state
        int32_t pid
        uint32_t epoch
        uint32_t dedicated
        uint32_t running
        uint32_t running_slot
        uint64_t cancelled
        uint64_t taken
        int64_t started_ns
        srds_counters counters
        srds_deque deque
    ctypedef struct srds_control:
        uint64_t magic
        uint64_t bytes
        int32_t driver
        uint32_t closing
        int64_t opened_ns
        uint64_t idle
        uint64_t backlog
        uint64_t outstanding
        srds_station *stations
    size_t srds_control_bytes()
    srds_ring *srds_ring_between(srds_control *control, unsigned int sender, unsigned int to)
    srds_task *srds_offered(srds_control *control, unsigned int station, unsigned int slot)
    unsigned char *srds_functions_of(srds_control *control, unsigned int station)
    srds_control *srds_control_map(int fd)
    void srds_control_leave(srds_control *control)
    void srds_control_unmap(srds_control *control)
    int srds_claim(srds_task *task, uint32_t who)

    # C11 atomics, without their types
    uint32_t srds_load32(uint32_t *at)
    uint64_t srds_load64(uint64_t *at)
    void srds_store32(uint32_t *at, uint32_t value)
    void srds_store64(uint64_t *at, uint64_t value)
    uint32_t srds_exchange32(uint32_t *at, uint32_t value)
    uint64_t srds_or64(uint64_t *at, uint64_t bits)
    uint64_t srds_and64(uint64_t *at, uint64_t bits)
    int srds_cas32(uint32_t *at, uint32_t expected, uint32_t desired)
    int srds_cas64(uint64_t *at, uint64_t expected, uint64_t desired)
    int srds_lowest_bit(uint64_t bits)


cdef struct Entry:
    # A task that another station has: sent to it, or offered to all (``offered`` >= 0).
    PyObject *task
    PyObject *held              # blocks of the object arena that its message names
    srds_task *message          # in the ring, as long as it is not answered
    uint32_t station
    int32_t offered             # its place in this station's slab
    uint32_t before             # entries of the same station in the order of sending
    uint32_t after              # also the list of free entries
    uint32_t taken              # items of a stream


cdef class Mapping:
    cdef srds_control *at


cdef class Handler:
    """What handles messages of one kind: actors, flows, requests."""
    cdef int message(self, int sender, srds_message *message) except -1
    cdef int station_ended(self, int station) except -1


cdef class Station(Remote):
    cdef srds_control *control
    cdef Mapping mapping
    cdef readonly int index
    cdef readonly int control_fd
    cdef Engine engine
    cdef Payloads payloads
    cdef unsigned char *regions[64]     # of pickled functions, one a station
    cdef Entry *entries
    cdef uint32_t capacity
    cdef uint32_t epoch         # of this station; part of the numbers of its entries
    cdef uint32_t[64] first     # of the entries of each station, in the order of sending
    cdef uint32_t[64] last
    cdef uint32_t[64] sent      # how many entries each station has
    cdef uint32_t free_entries
    cdef srds_bell *bell
    cdef srds_spin spin
    cdef Writer scratch
    cdef Writer gathered        # events of a recorded task, for its answer
    cdef list handlers          # by kind of message
    cdef object lent            # (ring's count, blocks) of answers that may not be read yet

    cdef int open_payloads(self, ObjectStore objects) except -1
    cdef int attach(self, int fd, int index) except -1
    cdef Entry *entry(self, uint32_t slot) noexcept
    cdef int handle(self, int kind, Handler handler) except -1
    cdef uint32_t new_entry(self, Ref task, int station) except 0
    cdef int free_entry(self, uint32_t slot) except -1
    cdef Writer take_scratch(self) noexcept
    cdef void give_scratch(self, Writer w) noexcept
    cdef uint32_t encode_call(self, Writer *w, Ref task, uint16_t *flags,
                              list held) except? 0xffffffff
    cdef int keep_held(self, Entry *entry, list held) except -1
    cdef int fill(self, srds_task *m, Ref task, int kind, uint32_t slot, uint32_t function,
                  Writer *w, uint16_t flags) except -1
    cdef int send_task(self, int to, int kind, Ref task) except -1
    cdef int send_message(self, int to, int kind, uint32_t slot, int64_t value, const void *payload,
                          size_t n) except -1
    cdef void *reserve(self, int to, uint32_t size) except NULL
    cdef int publish(self, int to) except -1
    cdef int answer(self, int to, uint32_t slot, int status, object value, int64_t started_ns,
                    int64_t ended_ns) except -1
    cdef int answer_item(self, int to, uint32_t slot, object value) except -1
    cdef int write_answer(self, int to, int kind, uint32_t slot, int status, uint16_t flags,
                          Writer *w, list held, int64_t started_ns, int64_t ended_ns) except -1
    cdef int let_go_of_read_answers(self) except -1
    cdef int move_to_block(self, Writer *w, list held) except -1
    cdef int poll(self) except -1
    cdef int read(self, int sender) except -1
    cdef int give_back(self, int sender, srds_ring *ring) except -1
    cdef Function method(self, uint32_t number)
    cdef tuple read_call(self, uint32_t function, const unsigned char *data, size_t n,
                         uint16_t flags)
    cdef list take_entries_of(self, int station)
    cdef int received(self, int sender, srds_message *message) except -1
    cdef int answered(self, int sender, srds_completion *message) except -1
    cdef int item_arrived(self, srds_completion *message) except -1
    cdef object read_answer(self, Ref task, int status, const unsigned char *data, size_t n,
                            uint16_t flags)
    cdef int ended(self, Ref task, int status, object value, srds_completion *times,
                   int station) except -1
    cdef tuple read_arguments(self, srds_task *message)
