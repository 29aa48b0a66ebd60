"""Completes the last segment of a log whose writer died: recovery appends with it.

It writes by the same C as the flusher, so that a recovered event is framed like any other.
"""
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

import os

from timemachine.journal.frontier cimport LeafFrontier


cdef class SegmentWriter:
    """Appends events to an existing segment.

    ``path`` is the segment's, ``first_seq`` its first frame's number, ``offset`` where its whole
    frames end, ``tree`` the frontier over all frames up to there, ``segments`` and ``headers`` the
    header chain without this segment's header, ``next_headers`` the chain with it.
    """

    cdef srds_segment segment

    def __cinit__(self):
        srds_segment_init(&self.segment)

    def __init__(self, path, uint64_t first_seq, uint64_t offset, LeafFrontier tree,
                 uint64_t segments, const uint8_t[::1] headers, const uint8_t[::1] next_headers,
                 uint64_t lamport):
        flags = os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
        self.segment.frames = os.open(path, flags)
        self.segment.leaves = os.open(path.with_suffix(".leaves"), flags | os.O_CREAT, 0o600)
        self.segment.first_seq = first_seq
        self.segment.offset = offset
        self.segment.tree = tree.tree
        self.segment.segments = segments
        if headers.shape[0] != 32 or next_headers.shape[0] != 32:
            raise ValueError("a header chain has 32 bytes")
        memcpy(self.segment.headers, &headers[0], 32)
        memcpy(self.segment.next_headers, &next_headers[0], 32)
        self.segment.lamport = lamport
        srds_batch_begin(&self.segment)

    def __dealloc__(self):
        srds_segment_free(&self.segment)

    def add(self, const uint8_t[::1] fixed, const uint8_t[::1] parents,
            const uint8_t[::1] payload):
        """Add an event to the batch: 56 fixed bytes, parents, payload."""
        if fixed.shape[0] != 56:
            raise ValueError(f"the fixed part has {fixed.shape[0]} bytes, not 56")
        cdef int error = srds_batch_add(
            &self.segment, &fixed[0], &parents[0] if parents.shape[0] else NULL,
            &payload[0] if payload.shape[0] else NULL, <uint64_t>payload.shape[0])
        if error:
            raise OSError(error, os.strerror(error))

    def commit(self):
        """Write and sync the batch; nothing of it counts before. Raises ``OSError``."""
        cdef int error
        with nogil:
            error = srds_batch_commit(&self.segment)
        if error:
            raise OSError(error, os.strerror(error))
        os.fsync(self.segment.leaves)
        srds_batch_begin(&self.segment)

    @property
    def tree(self):
        """The frontier over all committed frames."""
        cdef LeafFrontier tree = LeafFrontier()
        tree.tree = self.segment.tree
        return tree

    @property
    def segments(self):
        """The number of segments that hold frames."""
        return self.segment.segments

    @property
    def headers(self):
        """The chain over the headers of these segments."""
        return <bytes>self.segment.headers[:32]

    @property
    def lamport(self):
        """The Lamport time of the last committed event."""
        return self.segment.lamport
