"""The codec of recorded values at C level; see ``values.pyx``.

What every recorded input goes through is inline here: a call into another module costs more than
the few bytes that it would write.
"""
from libc.stdint cimport uint64_t
from libc.string cimport memcpy


cdef extern from *:
    """
    #include <stdint.h>
    #if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    #define srds_swap_bytes(n) (n)
    #else
    #define srds_swap_bytes(n) __builtin_bswap64(n)
    #endif
    """
    uint64_t swap_bytes "srds_swap_bytes"(uint64_t n) noexcept nogil


cdef struct Writer:
    unsigned char *data
    size_t length
    size_t capacity


cdef struct Cursor:
    const unsigned char *at
    const unsigned char *end


cdef int grow(Writer *w, size_t n) except -1


cdef inline int reserve(Writer *w, size_t n) except -1:
    """Make room for ``n`` more bytes."""
    return 0 if w.length + n <= w.capacity else grow(w, n)


cdef int write_long_array_header(Writer *w, size_t n) except -1
cdef int write_long_uint(Writer *w, unsigned long long n) except -1
cdef int write_text(Writer *w, str text) except -1
cdef int write_binary(Writer *w, const void *data, size_t n) except -1
cdef int write_value(Writer *w, object value, int depth) except -1
cdef object read_value(Cursor *c, int depth)
cdef int skip_value(Cursor *c, int depth) except -1


cdef inline int write_raw(Writer *w, const void *data, size_t n) except -1:
    reserve(w, n)
    memcpy(w.data + w.length, data, n)
    w.length += n
    return 0


cdef inline int put_tagged(Writer *w, unsigned char tag, uint64_t n, int width) except -1:
    """One tag byte and ``n`` in ``width`` big-endian bytes."""
    cdef uint64_t big_endian
    reserve(w, 9)
    w.data[w.length] = tag
    if width:
        big_endian = swap_bytes(n << (64 - 8 * width))
        memcpy(w.data + w.length + 1, &big_endian, 8)
    w.length += 1 + width
    return 0


cdef inline int write_array_header(Writer *w, size_t n) except -1:
    if n < 16:
        return put_tagged(w, <unsigned char>(0x90 | n), 0, 0)
    return write_long_array_header(w, n)


cdef inline int write_uint(Writer *w, unsigned long long n) except -1:
    if n < 0x80:
        return put_tagged(w, <unsigned char>n, 0, 0)
    return write_long_uint(w, n)
