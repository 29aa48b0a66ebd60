"""The layout of frames in C; see ``frame.h``."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from "frame.h" nogil:
    enum:
        SRDS_PROLOGUE
        SRDS_FIXED_END
        SRDS_HEAD_END
        SRDS_SALT
        SRDS_PARENT
        SRDS_MIN_LENGTH
        SRDS_MAX_LENGTH
        SRDS_MAX_PAYLOAD
    ctypedef enum srds_frame_state:
        SRDS_FRAME_WHOLE
        SRDS_FRAME_CUT
        SRDS_FRAME_BAD_LENGTH
        SRDS_FRAME_BAD_CRC
        SRDS_FRAME_BAD_PADDING
    uint16_t srds_get16(const uint8_t *p)
    uint32_t srds_get32(const uint8_t *p)
    uint64_t srds_get64(const uint8_t *p)
    uint64_t srds_frame_span(uint32_t parents, uint64_t payload_n)
    uint64_t srds_frame_total(const uint8_t *frame)
    const uint8_t *srds_frame_salt(const uint8_t *frame)
    uint64_t srds_frame_payload_n(const uint8_t *frame)
    void srds_frame_leaf(const uint8_t *frame, uint8_t *leaf)
    void srds_frame_commitment(const uint8_t *frame, uint8_t *commitment)
    uint64_t srds_frame_encode(uint8_t *out, const uint8_t *fixed, const uint8_t *parents,
                               const uint8_t *salt, const uint8_t *payload, uint64_t payload_n,
                               uint8_t *leaf)
    srds_frame_state srds_frame_check(const uint8_t *frame, uint64_t available)


cdef event_of(str log, const uint8_t *fixed, const uint8_t *parents, const uint8_t *payload,
              uint64_t payload_n, dict kinds)
