"""Deterministic task identifiers.

An identifier is derived, never drawn: ``id(child) = mix(id(parent), child_index, hash of the
function's qualified name)``. It depends on neither time, worker count nor place, so a replay gives
every task the id it had live, and everything in the journal can be keyed by it. The hash of the
*code* is deliberately no ingredient: patched code keeps its ids.

At the Python level an identifier is its 16 bytes (big-endian ``hi`` then ``lo``), printed as 32
hexadecimal digits.
"""
from hashlib import blake2b

from libc.stdint cimport uint64_t


cdef uint64_t name_hash(str qualified_name) except? 0:
    """The first eight bytes of BLAKE2b over the name: stable across processes and versions."""
    return int.from_bytes(blake2b(qualified_name.encode(), digest_size=8).digest(), "big")


cdef bytes id_to_bytes(TaskId id):
    cdef unsigned char raw[16]
    cdef int i
    for i in range(8):
        raw[i] = <unsigned char>(id.hi >> (56 - 8 * i))
        raw[8 + i] = <unsigned char>(id.lo >> (56 - 8 * i))
    return raw[:16]


cdef TaskId id_from_bytes(bytes raw) except *:
    if len(raw) != 16:
        raise ValueError(f"a task id has 16 bytes, not {len(raw)}")
    cdef TaskId id
    cdef const unsigned char *p = raw
    cdef int i
    id.hi = 0
    id.lo = 0
    for i in range(8):
        id.hi = (id.hi << 8) | p[i]
        id.lo = (id.lo << 8) | p[8 + i]
    return id


def root_id(bytes run_id, counter, str qualified_name):
    """The id of a root task: its parent is the run (16 random bytes kept in the journal)."""
    return id_to_bytes(mix(id_from_bytes(run_id), counter, name_hash(qualified_name)))


def child_id(bytes parent, child_index, str qualified_name):
    """The id of the ``child_index``-th task (lane << 32 | count) that ``parent`` submitted."""
    return id_to_bytes(mix(id_from_bytes(parent), child_index, name_hash(qualified_name)))
