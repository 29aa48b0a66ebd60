"""Which of several instances of an operator the items of a key go to.

The same key goes to the same instance in every process and in every run, so that a replay deals the
items out as the recorded run did; Python's own ``hash`` differs between runs for text and bytes.
Keys that are equal go to the same instance, so ``1``, ``1.0`` and ``True`` are one key.
"""
from numbers import Number

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint64_t

from microkernel.errors import GraphError

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    static inline uint64_t srds_key_mix(uint64_t x) {
        x ^= x >> 32; x *= 0xd6e8feb86659fd93ULL;
        x ^= x >> 32; x *= 0xd6e8feb86659fd93ULL;
        return x ^ (x >> 32);
    }
    static inline uint64_t srds_key_bytes(const char *p, size_t n) {
        uint64_t h = 0x9e3779b97f4a7c15ULL ^ n, word;
        for (; n >= 8; p += 8, n -= 8) {
            memcpy(&word, p, 8);
            h = srds_key_mix(h ^ word);
        }
        word = 0;
        memcpy(&word, p, n);
        return srds_key_mix(h ^ word);
    }
    """
    uint64_t srds_key_mix(uint64_t x) noexcept nogil
    uint64_t srds_key_bytes(const char *p, size_t n) noexcept nogil

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL


cdef uint64_t key_hash(object key) except? 0xffffffffffffffff:
    """Equal for equal keys, in any process."""
    cdef Py_ssize_t size
    cdef const char *text
    cdef uint64_t mixed
    if isinstance(key, str):
        try:
            text = PyUnicode_AsUTF8AndSize(key, &size)
        except UnicodeEncodeError:
            return key_hash(key.encode("utf-8", "surrogatepass"))
        return srds_key_bytes(text, size)
    if isinstance(key, (int, float)):
        return srds_key_mix(<uint64_t><Py_ssize_t>hash(key)) if key == key else 0
    if isinstance(key, bytes):
        return srds_key_bytes(PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key))
    if key is None:
        return 0x6b79
    if isinstance(key, (tuple, frozenset)):
        if isinstance(key, frozenset):
            mixed = 0x7365
            for part in key:
                mixed += srds_key_mix(key_hash(part))
            return srds_key_mix(mixed)
        mixed = 0x7475
        for part in key:
            mixed = srds_key_mix(mixed ^ key_hash(part)) + 0x9e3779b97f4a7c15ULL
        return mixed
    if isinstance(key, Number):
        return srds_key_mix(<uint64_t><Py_ssize_t>hash(key))
    raise GraphError(f"{type(key).__qualname__} is no type of a key", what=repr(key)[:80],
                     expected="a number, text, bytes, None, or a tuple or frozenset of those",
                     remedy="let key return the parts of the object that tell keys apart")


def instance_of(key, size_t instances):
    """Which of so many instances the items of ``key`` go to.

    >>> instance_of(1, 7) == instance_of(1.0, 7)
    True
    """
    return key_hash(key) % instances
