"""An index over the frames of a log: where each one lies, and which belong to a decision.

One scan builds it; a scan of what has been added since extends it. The decisions stand in an
open-addressing hash table in the order of their first event, the events of one decision form a
chain through an array, so that ten million frames cost two arrays and no Python object.
"""
from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcmp

from timemachine.journal.frame cimport (
    SRDS_FRAME_WHOLE,
    srds_frame_total,
    srds_get16,
    srds_get64,
)
from timemachine.journal.segment_file cimport SegmentFile

cdef uint64_t NONE = <uint64_t>-1
cdef uint8_t[16] NOBODY
NOBODY[:] = [0] * 16

cdef struct Chain:
    uint64_t high
    uint64_t low
    uint64_t first
    uint64_t last


cdef class FrameIndex:
    """Offsets of the frames of one log, by seq, and the chains of its decisions."""

    cdef uint64_t *offsets
    cdef uint64_t *following
    cdef uint64_t room
    cdef readonly uint64_t size
    cdef Chain *chains
    cdef uint64_t n_chains
    cdef uint64_t chains_room
    cdef uint64_t *slots
    cdef uint64_t n_slots

    def __dealloc__(self):
        free(self.offsets)
        free(self.following)
        free(self.chains)
        free(self.slots)

    cdef int add(self, uint64_t offset, const uint8_t *decision) except -1 nogil:
        cdef uint64_t room
        cdef void *grown
        if self.size == self.room:
            room = self.room * 2 if self.room else 1024
            grown = realloc(self.offsets, room * sizeof(uint64_t))
            if grown != NULL:
                self.offsets = <uint64_t *>grown
                grown = realloc(self.following, room * sizeof(uint64_t))
            if grown == NULL:
                with gil:
                    raise MemoryError()
            self.following = <uint64_t *>grown
            self.room = room
        self.offsets[self.size] = offset
        self.following[self.size] = NONE
        if memcmp(decision, NOBODY, 16) != 0:
            self.chain(srds_get64(decision), srds_get64(decision + 8))
        self.size += 1
        return 0

    cdef uint64_t *slot(self, uint64_t high, uint64_t low) noexcept nogil:
        cdef uint64_t i = (high ^ low) * <uint64_t>0x9e3779b97f4a7c15
        i ^= i >> 32
        while True:
            i &= self.n_slots - 1
            if self.slots[i] == 0:
                return &self.slots[i]
            if self.chains[self.slots[i] - 1].high == high and \
                    self.chains[self.slots[i] - 1].low == low:
                return &self.slots[i]
            i += 1

    cdef int chain(self, uint64_t high, uint64_t low) except -1 nogil:
        cdef uint64_t i, n, room
        cdef uint64_t *at
        cdef uint64_t *fresh
        cdef Chain *chains
        if 2 * self.n_chains >= self.n_slots:
            n = self.n_slots * 2 if self.n_slots else 1024
            fresh = <uint64_t *>calloc(n, sizeof(uint64_t))
            if fresh == NULL:
                with gil:
                    raise MemoryError()
            free(self.slots)
            self.slots = fresh
            self.n_slots = n
            for i in range(self.n_chains):
                self.slot(self.chains[i].high, self.chains[i].low)[0] = i + 1
        at = self.slot(high, low)
        if at[0]:
            self.following[self.chains[at[0] - 1].last] = self.size
            self.chains[at[0] - 1].last = self.size
            return 0
        if self.n_chains == self.chains_room:
            room = self.chains_room * 2 if self.chains_room else 256
            chains = <Chain *>realloc(self.chains, room * sizeof(Chain))
            if chains == NULL:
                with gil:
                    raise MemoryError()
            self.chains = chains
            self.chains_room = room
        self.chains[self.n_chains].high = high
        self.chains[self.n_chains].low = low
        self.chains[self.n_chains].first = self.chains[self.n_chains].last = self.size
        self.n_chains += 1
        at[0] = self.n_chains
        return 0

    def scan(self, SegmentFile file, uint64_t offset, int declaring_kind):
        """Add the whole frames from ``offset`` that follow each other.

        Returns the offset reached and the offsets of frames of ``declaring_kind``. It stops at the
        first frame that is not whole, or not the next one: the caller finds out why.
        """
        cdef list declared = []
        file.readahead = 1 << 20
        with nogil:
            while file.check(offset) == SRDS_FRAME_WHOLE:
                if srds_get64(file.frame + 8) != self.size:
                    break
                self.add(offset, file.frame + 32)
                if srds_get16(file.frame + 48) == declaring_kind:
                    with gil:
                        declared.append(offset)
                offset += srds_frame_total(file.frame)
        return offset, declared

    def offset(self, uint64_t seq):
        """Where frame ``seq`` begins in its segment."""
        if seq >= self.size:
            raise IndexError(f"there is no frame {seq} among {self.size}")
        return self.offsets[seq]

    def find(self, const uint8_t[::1] decision):
        """The seqs of a decision's frames (16 bytes), ascending."""
        cdef uint64_t at
        cdef list found = []
        if decision.shape[0] != 16:
            raise ValueError(f"a decision's id has 16 bytes, not {decision.shape[0]}")
        if self.n_slots:
            at = self.slot(srds_get64(&decision[0]), srds_get64(&decision[8]))[0]
            if at:
                at = self.chains[at - 1].first
                while at != NONE:
                    found.append(at)
                    at = self.following[at]
        return found

    def decisions(self):
        """The ids of all decisions, 16 bytes each, in the order of their first frames."""
        cdef uint64_t i
        return [<bytes>(<uint8_t *>&self.chains[i])[:16] for i in range(self.n_chains)]
