"""The codec of recorded values at C level; see ``values.pyx``."""


cdef struct Writer:
    unsigned char *data
    size_t length
    size_t capacity


cdef struct Cursor:
    const unsigned char *at
    const unsigned char *end


cdef int reserve(Writer *w, size_t n) except -1
cdef int write_raw(Writer *w, const void *data, size_t n) except -1
cdef int write_array_header(Writer *w, size_t n) except -1
cdef int write_uint(Writer *w, unsigned long long n) except -1
cdef int write_text(Writer *w, str text) except -1
cdef int write_binary(Writer *w, const void *data, size_t n) except -1
cdef int write_value(Writer *w, object value, int depth) except -1
cdef object read_value(Cursor *c, int depth)
cdef int skip_value(Cursor *c, int depth) except -1
