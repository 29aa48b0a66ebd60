"""Reads the frames of one segment file.

It reads with ``pread`` into a window instead of mapping the file: a mapped file that somebody
cuts kills the process that looks at it, and an auditor reads the stores of strangers.
"""
from libc.errno cimport EINTR, errno
from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp
from posix.unistd cimport close, pread

import os

from timemachine.errors import JournalDamaged
from timemachine.journal.frame cimport (
    SRDS_FIXED_END,
    SRDS_FRAME_BAD_CRC,
    SRDS_FRAME_BAD_LENGTH,
    SRDS_FRAME_BAD_PADDING,
    SRDS_FRAME_CUT,
    SRDS_FRAME_WHOLE,
    SRDS_HEAD_END,
    SRDS_MAX_LENGTH,
    SRDS_MIN_LENGTH,
    SRDS_PROLOGUE,
    SRDS_SALT,
    event_of,
    srds_frame_check,
    srds_frame_commitment,
    srds_frame_leaf,
    srds_frame_payload_n,
    srds_frame_salt,
    srds_frame_total,
    srds_get16,
    srds_get32,
    srds_get64,
)

cdef size_t SCAN_WINDOW = 1 << 20
cdef size_t LOOK_WINDOW = 4096
cdef uint64_t SEARCH_BYTES = <uint64_t>4 << 30

cdef dict REASONS = {
    SRDS_FRAME_CUT: "the file ends within the frame",
    SRDS_FRAME_BAD_LENGTH: "the frame's length is impossible",
    SRDS_FRAME_BAD_CRC: "the frame fails its checksum",
    SRDS_FRAME_BAD_PADDING: "the bytes after the frame are not zero",
}


cdef class SegmentFile:
    """The frames of one segment, by offset. One thread at a time.

    ``kinds`` maps the numbers of kinds to names, ``start`` is the offset of the first frame,
    ``last`` that of the last frame that ``audit`` found right.
    Raises ``OSError`` when the file cannot be read.
    """

    def __cinit__(self, path, str log, dict kinds, uint64_t first_seq, uint64_t start):
        self.fd = -1
        self.path = os.fspath(path)
        self.log = log
        self.kinds = kinds
        self.first_seq = first_seq
        self.start = start
        self.readahead = SCAN_WINDOW
        self.fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)

    def __dealloc__(self):
        if self.fd >= 0:
            close(self.fd)
        free(self.window)

    cdef int look(self, uint64_t offset, uint64_t wanted) except -1 nogil:
        """Point ``frame`` at the bytes from ``offset``: ``available`` of them, ``wanted`` or fewer
        only where the file ends."""
        cdef uint64_t skip
        cdef size_t size
        cdef ssize_t got
        cdef uint8_t *grown
        if offset >= self.window_at and offset + wanted <= self.window_at + self.window_n:
            skip = offset - self.window_at
            self.frame = self.window + skip
            self.available = self.window_n - skip
            return 0
        size = self.readahead if wanted < self.readahead else wanted
        if size > self.room:
            grown = <uint8_t *>realloc(self.window, size)
            if grown == NULL:
                with gil:
                    raise MemoryError()
            self.window = grown
            self.room = size
        self.window_at = offset
        self.window_n = 0
        while self.window_n < size:
            got = pread(self.fd, self.window + self.window_n, size - self.window_n,
                        <ssize_t>(offset + self.window_n))
            if got < 0:
                if errno == EINTR:
                    continue
                with gil:
                    raise OSError(errno, os.strerror(errno), self.path)
            if got == 0:
                break
            self.window_n += got
        self.frame = self.window
        self.available = self.window_n
        return 0

    cdef int check(self, uint64_t offset) except -1 nogil:
        """The ``srds_frame_state`` of the frame at ``offset``; ``frame`` points at it."""
        cdef uint64_t length
        self.look(offset, SRDS_HEAD_END)
        if self.available >= SRDS_PROLOGUE:
            length = srds_get32(self.frame)
            if SRDS_MIN_LENGTH <= length <= SRDS_MAX_LENGTH:
                self.look(offset, srds_frame_total(self.frame))
        return srds_frame_check(self.frame, self.available)

    def refresh(self):
        """Forget what was read: a live segment has grown."""
        self.window_n = 0

    def problem(self, uint64_t offset):
        """Why there is no whole frame at ``offset``: a sentence, "" at the file's end, or None."""
        cdef int state = self.check(offset)
        if state == SRDS_FRAME_WHOLE:
            return None
        return "" if self.available == 0 else REASONS[state]

    def frame_at(self, uint64_t offset):
        """The bytes of the whole frame at ``offset``, padding included."""
        self._require(offset)
        return <bytes>self.frame[:srds_frame_total(self.frame)]

    def head_at(self, uint64_t offset):
        """What ``offset`` seems to say, whole or not: length with prologue, seq, decision, kind.

        None when not even a head is there.
        """
        self.look(offset, SRDS_HEAD_END)
        if self.available < SRDS_HEAD_END:
            return None
        decision = <bytes>(self.frame + 32)[:16]
        return (srds_frame_total(self.frame), srds_get64(self.frame + 8),
                decision if any(decision) else None, srds_get16(self.frame + 48))

    def leaf_at(self, uint64_t offset):
        """The leaf hash of the whole frame at ``offset``."""
        cdef uint8_t leaf[32]
        self._require(offset)
        srds_frame_leaf(self.frame, leaf)
        return <bytes>leaf[:32]

    def event(self, uint64_t offset, *, scanning=False):
        """The event of the whole frame at ``offset``; ``scanning`` reads on for its neighbours.

        Raises ``JournalDamaged`` when the frame is not whole.
        """
        self.readahead = SCAN_WINDOW if scanning else LOOK_WINDOW
        self._require(offset)
        cdef const uint8_t *frame = self.frame
        return event_of(self.log, frame + SRDS_PROLOGUE, frame + SRDS_HEAD_END,
                        srds_frame_salt(frame) + SRDS_SALT, srds_frame_payload_n(frame), self.kinds)

    cdef int _require(self, uint64_t offset) except -1:
        cdef int state = self.check(offset)
        if state != SRDS_FRAME_WHOLE:
            # The window may have been read while a live writer was at work there.
            self.window_n = 0
            state = self.check(offset)
        if state != SRDS_FRAME_WHOLE:
            raise JournalDamaged(
                f"{self.path}, offset {offset}: {REASONS[state]}",
                what=f"{self.path} at {offset}",
                expected="a whole frame",
                remedy="restore the segment from a copy; `srds verify` names all damage",
                segment=os.path.basename(self.path),
                offset=offset,
            )
        return 0

    def find_whole(self, uint64_t offset, uint64_t least_seq):
        """The offset of the next whole frame from ``offset`` with at least this seq, or None.

        Raises ``JournalDamaged`` when the bytes are made to look like frames again and again: the
        search would take time without bound.
        """
        cdef uint64_t most, seq, spent = 0
        cdef int state
        self.readahead = SCAN_WINDOW
        most = least_seq + os.fstat(self.fd).st_size // SRDS_MIN_LENGTH + 65536
        while True:
            self.look(offset, SRDS_HEAD_END)
            if self.available < SRDS_HEAD_END:
                return None
            seq = srds_get64(self.frame + 8)
            if least_seq <= seq <= most:
                state = self.check(offset)
                if state == SRDS_FRAME_WHOLE:
                    return offset
                if state == SRDS_FRAME_BAD_CRC:
                    spent += srds_get32(self.frame)
                if spent > SEARCH_BYTES:
                    raise JournalDamaged(
                        f"{self.path} holds countless false frames up to offset {offset}",
                        what=self.path,
                        expected="a file that a journal wrote",
                        remedy="restore the segment from a copy",
                        segment=os.path.basename(self.path),
                        offset=offset,
                    )
            offset += 8

    def audit(self, uint64_t offset, uint64_t seq, bytearray computed, const uint8_t[::1] sidecar,
              int stop_kind):
        """Check frames from ``offset``, the first of which should be number ``seq``.

        Appends the leaf hash of each frame that is right to ``computed``. ``sidecar`` holds the
        leaves of the segment as they were written. Stops before the first frame that is not right
        and after one of kind ``stop_kind``. Returns the offset and seq reached, and what is wrong
        there: "end", "kind", "frame", "seq", "commitment" or "leaf".
        """
        cdef uint8_t digest[32]
        cdef uint64_t index, known = <uint64_t>sidecar.shape[0] // 32
        cdef int state, kind
        self.readahead = SCAN_WINDOW
        while True:
            state = self.check(offset)
            if state != SRDS_FRAME_WHOLE:
                return offset, seq, "end" if self.available == 0 else "frame"
            if srds_get64(self.frame + 8) != seq:
                return offset, seq, "seq"
            srds_frame_commitment(self.frame, digest)
            if memcmp(digest, self.frame + SRDS_FIXED_END, 32) != 0:
                return offset, seq, "commitment"
            srds_frame_leaf(self.frame, digest)
            index = seq - self.first_seq
            if index < known and memcmp(digest, &sidecar[32 * index], 32) != 0:
                return offset, seq, "leaf"
            computed += digest[:32]
            kind = srds_get16(self.frame + 48)
            self.last = offset
            offset += srds_frame_total(self.frame)
            seq += 1
            if kind == stop_kind:
                return offset, seq, "kind"
