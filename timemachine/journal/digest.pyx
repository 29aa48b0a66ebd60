"""The journal's SHA-256, HMAC-SHA-256 and CRC-32C for Python callers.

The flusher uses the same C without the interpreter. ``portable`` forces the path for processors
without the instructions, which a test could not reach otherwise.
"""
from libc.stdint cimport uint8_t, uint32_t

cdef extern from "sha256.h" nogil:
    ctypedef void (*srds_sha256_blocks_fn)(uint32_t *state, const uint8_t *data, size_t blocks)
    ctypedef struct srds_sha256:
        pass
    srds_sha256_blocks_fn srds_sha256_best()
    void srds_sha256_blocks_portable(uint32_t *state, const uint8_t *data, size_t blocks)
    void srds_sha256_begin(srds_sha256 *s, srds_sha256_blocks_fn blocks)
    void srds_sha256_add(srds_sha256 *s, const void *data, size_t n)
    void srds_sha256_end(srds_sha256 *s, uint8_t *digest)
    void srds_hmac_sha256(srds_sha256_blocks_fn blocks, const uint8_t *key, size_t key_n,
                          const void *data, size_t n, uint8_t *digest)

cdef extern from "crc32c.h" nogil:
    ctypedef uint32_t (*srds_crc32c_fn)(uint32_t crc, const uint8_t *p, size_t n)
    srds_crc32c_fn srds_crc32c_best()
    uint32_t srds_crc32c_portable(uint32_t crc, const uint8_t *p, size_t n)


cdef inline const uint8_t *start(const uint8_t[::1] data) noexcept:
    return &data[0] if data.shape[0] else NULL


cdef srds_sha256_blocks_fn compression(bint portable) noexcept:
    return srds_sha256_blocks_portable if portable else srds_sha256_best()


def sha256(*parts, bint portable=False):
    """SHA-256 over the parts, one after the other: 32 bytes."""
    cdef srds_sha256 s
    cdef uint8_t digest[32]
    cdef const uint8_t[::1] data
    srds_sha256_begin(&s, compression(portable))
    for part in parts:
        data = part
        srds_sha256_add(&s, start(data), <size_t>data.shape[0])
    srds_sha256_end(&s, digest)
    return digest[:32]


def hmac_sha256(const uint8_t[::1] key, const uint8_t[::1] data, *, bint portable=False):
    """HMAC-SHA-256 under a key of at most 64 bytes: 32 bytes."""
    cdef uint8_t digest[32]
    if key.shape[0] > 64:
        raise ValueError(f"the key has {key.shape[0]} bytes, more than 64")
    srds_hmac_sha256(compression(portable), start(key), <size_t>key.shape[0],
                     start(data), <size_t>data.shape[0], digest)
    return digest[:32]


def crc32c(const uint8_t[::1] data, uint32_t crc=0, *, bint portable=False):
    """CRC-32C of the data; ``crc`` is that of what comes before it."""
    cdef srds_crc32c_fn function = srds_crc32c_portable if portable else srds_crc32c_best()
    return function(crc, start(data), <size_t>data.shape[0])
