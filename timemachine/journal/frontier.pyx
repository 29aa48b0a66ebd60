"""The frontier of an RFC 6962 tree, in C: what the flusher and the verification grow.

``enclave.transparency.Frontier`` is the same thing in Python; this one takes leaves by the million
and without the GIL.
"""
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy, memset


cdef class LeafFrontier:
    """The roots of the complete subtrees of a tree of ``size`` leaves, the largest first.

    Raises ``ValueError`` when the number of hashes is not that of the bits set in ``size``.
    """

    def __init__(self, uint64_t size=0, hashes=()):
        cdef int k
        cdef const uint8_t[::1] value
        if len(hashes) != int(size).bit_count():
            raise ValueError(f"{len(hashes)} hashes are no frontier of {size} leaves")
        memset(&self.tree, 0, sizeof(self.tree))
        self.tree.size = size
        given = iter(hashes)
        for k in range(63, -1, -1):
            if (size >> k) & 1:
                value = next(given)
                if value.shape[0] != 32:
                    raise ValueError(f"a hash has {value.shape[0]} bytes, not 32")
                memcpy(self.tree.node[k], &value[0], 32)

    @property
    def size(self):
        """The number of leaves."""
        return self.tree.size

    @property
    def hashes(self):
        """The roots of the complete subtrees, 32 bytes each, the largest subtree first."""
        cdef int k
        return tuple(
            bytes(self.tree.node[k][:32]) for k in range(63, -1, -1) if (self.tree.size >> k) & 1
        )

    @property
    def root(self):
        """The root of the tree: 32 bytes."""
        cdef uint8_t root[32]
        srds_frontier_root(&self.tree, root)
        return root[:32]

    def extend(self, const uint8_t[::1] leaves):
        """Add leaf hashes, 32 bytes each in a row."""
        cdef Py_ssize_t i
        if leaves.shape[0] % 32:
            raise ValueError(f"{leaves.shape[0]} bytes are no whole number of leaf hashes")
        with nogil:
            for i in range(0, leaves.shape[0], 32):
                srds_frontier_push(&self.tree, &leaves[i])

    def copy(self):
        """A frontier of the same tree that grows by itself."""
        cdef LeafFrontier other = LeafFrontier.__new__(LeafFrontier)
        other.tree = self.tree
        return other
