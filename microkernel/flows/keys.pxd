"""Which instance of an operator a key belongs to; see ``keys.pyx``."""
from libc.stdint cimport uint64_t


cdef uint64_t key_hash(object key) except? 0xffffffffffffffff
