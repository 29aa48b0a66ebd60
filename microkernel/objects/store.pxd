"""Objects in shared memory, as the other parts of the kernel use them; see ``store.pyx``.

Who sends an object keeps its ``Block`` until the receiver has called ``hold``. All methods are
called under the GIL; those that may wait give it up.
"""
from libc.stdint cimport uint64_t


cdef extern from *:
    """
    typedef struct srds_store srds_store;
    """
    ctypedef struct srds_store:
        pass


cdef class ObjectStore:
    cdef readonly int fd            # the arena's memory file, to be inherited by other processes
    cdef readonly int station       # whose holds this process takes
    cdef srds_store *at             # this process's mapping of the arena
    cdef void **blocks              # by index of the object: this process's Block, borrowed
    cdef void *looked_at            # the first of the blocks that are pinned, borrowed
    cdef unsigned int limit
    cdef bint owner
    cdef bint open

    # Memory for an object of ``n`` bytes, held by this station, to be written and then sealed.
    # Waits, and says so in the log, while the arena is full; raises ObjectStoreFull in the end.
    cpdef Block allocate(self, size_t n)
    # The object of a handle that another station has sent. Raises ObjectLost if it is gone.
    cpdef Block hold(self, uint64_t handle)
    # Drop all that a dead station held.
    cpdef int forget(self, int station) except -1
    # The Block in whose memory the ``n`` bytes at ``address`` lie that ``exporter`` (an array, a
    # memoryview) has given out, else None. So what ``empty`` made, or what views an object, is sent
    # as a part of that object, without a copy: it begins ``block.where(address, n)`` bytes into it.
    cdef Block block_of(self, object exporter, const void *address, size_t n)
    cdef int check_open(self) except -1
    cdef int wait_for_room(self, size_t n, uint64_t *handle, uint64_t *offset) except -1
    cdef Block enter(self, uint64_t handle, size_t size)


cdef class Block:
    cdef readonly ObjectStore store
    cdef readonly uint64_t handle
    cdef readonly size_t size
    # Until ``seal``, where to write. Afterwards to be read only, and only while the block is
    # pinned: any buffer taken from it (memoryview, NumPy, Arrow) pins it; C code calls ``pin``.
    cdef unsigned char *data
    cdef readonly bint sealed
    cdef unsigned int pins
    cdef void *next                 # in the store's list of pinned blocks
    cdef void *previous

    # The object does not change from now on, and other stations may hold it.
    cpdef int seal(self) except -1
    # The same, and the NumPy arrays that ``exporter`` views become read-only.
    cdef int seal_with(self, object exporter) except -1
    # Copy into a block that is not sealed, without the GIL where that pays.
    cdef int write(self, size_t at, const void *data, size_t n) except -1
    # Bring the object into memory, if it was spilled, and keep it there until ``unpin``.
    cdef const unsigned char *pin(self) except NULL
    cdef int unpin(self) noexcept
    # How many bytes after its beginning an address in this block's memory lies; -1: not in it.
    cdef Py_ssize_t where(self, const void *address, size_t n) noexcept
    cdef int look(self) except -1
