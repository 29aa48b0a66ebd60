"""Frames for Python: one event as it lies in a segment, in the ring, and in the reader's hands.

``docs/journal.md`` gives the layout, ``frame.h`` the C that both the flusher and this module use.
"""
cimport cython
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcmp, memset

from timemachine.errors import JournalDamaged

MAX_PAYLOAD = SRDS_MAX_PAYLOAD
MAX_LENGTH = SRDS_MAX_LENGTH


@cython.dataclasses.dataclass(frozen=True)
cdef class Event:
    """One event of a journal.

    ``log`` is the log's id in 32 hexadecimal digits, ``seq`` the event's position in it,
    ``lamport`` its logical time, ``wall_ns`` the Unix time (for information, it orders nothing),
    ``decision`` the 16 bytes of the decision that it belongs to or None, ``kind`` the name of its
    kind, and ``parents`` its causes elsewhere: pairs of the first eight bytes of a log's id, as a
    little-endian number, and a Lamport time in that log.
    """

    log: str
    seq: int
    lamport: int
    wall_ns: int
    decision: bytes | None
    kind: str
    flags: int
    parents: tuple
    payload: bytes


cdef event_of(str log, const uint8_t *fixed, const uint8_t *parents, const uint8_t *payload,
              uint64_t payload_n, dict kinds):
    """Build an event; ``fixed`` points at what is byte 8 of a frame."""
    cdef const uint8_t *head = fixed - 8
    cdef int number = srds_get16(head + 48)
    cdef int i, n = srds_get16(head + 50)
    cdef uint8_t nobody[16]
    memset(nobody, 0, 16)
    name = kinds.get(number)
    if name is None:
        raise JournalDamaged(
            f"event {srds_get64(head + 8)} of log {log} is of kind {number}, declared nowhere",
            what=f"kind {number}",
            expected="a kind from the segment's header or a journal.kind event",
            remedy="restore the segment from a copy; `srds verify` shows what else is damaged",
            seq=srds_get64(head + 8),
        )
    return Event(
        log,
        srds_get64(head + 8),
        srds_get64(head + 16),
        srds_get64(head + 24),
        None if memcmp(head + 32, nobody, 16) == 0 else <bytes>(head + 32)[:16],
        name,
        srds_get64(head + 56),
        () if n == 0 else tuple(
            [(srds_get64(parents + 16 * i), srds_get64(parents + 16 * i + 8)) for i in range(n)]
        ),
        <bytes>payload[:payload_n],
    )


def decode_record(str log, const uint8_t[::1] fixed, const uint8_t[::1] parents,
                  const uint8_t[::1] payload, dict kinds):
    """The event of a ring's record: 56 fixed bytes, its parents and its payload."""
    if fixed.shape[0] != SRDS_FIXED_END - SRDS_PROLOGUE:
        raise ValueError(f"the fixed part has {fixed.shape[0]} bytes")
    return event_of(log, &fixed[0], &parents[0] if parents.shape[0] else NULL,
                    &payload[0] if payload.shape[0] else NULL, <uint64_t>payload.shape[0], kinds)


def encode(const uint8_t[::1] fixed, const uint8_t[::1] parents, const uint8_t[::1] payload,
           const uint8_t[::1] salt):
    """A frame and its leaf hash; ``fixed`` is the frame's bytes 8 to 64, ``salt`` has 16 bytes."""
    cdef uint8_t leaf[32]
    cdef uint64_t n = srds_frame_span(<uint64_t>parents.shape[0] // SRDS_PARENT,
                                      <uint64_t>payload.shape[0])
    if fixed.shape[0] != SRDS_FIXED_END - SRDS_PROLOGUE or salt.shape[0] != SRDS_SALT:
        raise ValueError("the fixed part has 56 bytes and the salt 16")
    if parents.shape[0] != srds_get16(&fixed[50 - SRDS_PROLOGUE]) * SRDS_PARENT:
        raise ValueError("the number of parents is not that in the fixed part")
    frame = bytearray(n)
    cdef uint8_t[::1] out = frame
    srds_frame_encode(&out[0], &fixed[0], &parents[0] if parents.shape[0] else NULL, &salt[0],
                      &payload[0] if payload.shape[0] else NULL, <uint64_t>payload.shape[0], leaf)
    return bytes(frame), leaf[:32]


def is_whole(const uint8_t[::1] frame):
    """Whether the bytes begin with a whole frame: length, CRC and padding are right."""
    return frame.shape[0] > 0 and (
        srds_frame_check(&frame[0], <uint64_t>frame.shape[0]) == SRDS_FRAME_WHOLE
    )


def leaf_of(const uint8_t[::1] frame):
    """The leaf hash of a whole frame: 32 bytes."""
    cdef uint8_t leaf[32]
    if not is_whole(frame):
        raise ValueError("the bytes are no whole frame")
    srds_frame_leaf(&frame[0], leaf)
    return leaf[:32]


def commitment_of(const uint8_t[::1] frame):
    """HMAC-SHA-256 of a whole frame's payload under its salt: 32 bytes."""
    cdef uint8_t commitment[32]
    if not is_whole(frame):
        raise ValueError("the bytes are no whole frame")
    srds_frame_commitment(&frame[0], commitment)
    return commitment[:32]
