"""Objects in memory that all processes of a kernel share: written once, then read by any of them.

``ObjectStore`` is one process's (one *station*'s) view of the arena, ``Block`` an object that this
station holds. A block may be written until it is sealed and never after: what is read is mapped
read-only. A station has at most one Block of an object, so the arena counts stations, not
references, and a dead station's share is one bit to clear. Buffers taken from a Block (memoryviews,
NumPy arrays, Arrow buffers) keep it alive and in memory; one that nobody looks at may be written to
disk while others wait for room, and comes back when it is looked at.

After Ray's object store (Plasma) and its immutable, sealed objects; without a process of its own.
The C beneath: ``arena.h`` allocates, ``table.h`` and ``operations.h`` know who holds what and
survive a death at any instruction, ``memory.h`` maps, ``keeper.h`` is the thread that warms and
spills.
"""
import os

cimport cython
from cpython.buffer cimport (
    PyBUF_ANY_CONTIGUOUS,
    PyBuffer_FillInfo,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from cpython.exc cimport PyErr_CheckSignals
from cpython.memoryview cimport PyMemoryView_Check, PyMemoryView_GET_BUFFER
from libc.errno cimport E2BIG, EAGAIN, EBUSY, ENFILE, ENOMEM, ESTALE
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from posix.unistd cimport close as close_descriptor

from microkernel.objects.native cimport (
    srds_copy,
    srds_keeper_start,
    srds_keeper_stop,
    srds_numbers,
    srds_store_attach,
    srds_store_await,
    srds_store_capacity,
    srds_store_create,
    srds_store_data,
    srds_store_detach,
    srds_store_forget,
    srds_store_hold,
    srds_store_limit,
    srds_store_mine,
    srds_store_now,
    srds_store_numbers,
    srds_store_patience,
    srds_store_pin,
    srds_store_release,
    srds_store_seal,
    srds_store_seen,
    srds_store_take,
    srds_store_touch,
    srds_store_unpin,
    srds_store_view,
)

from microkernel.objects import refusals
from microkernel.objects.capacity import default_capacity
from microkernel.objects.statistics import ObjectStatistics, describe_holders

cdef enum:
    BULK = 256 << 10                # bytes from which on a copy gives up the GIL
    NAP_NS = 50000000               # how long a wait goes on without looking up
    SEARCHED = 256                  # blocks that block_of looks through
    LEAST_OBJECT = 1024             # smaller values travel in messages: bounds the table of objects
    FEWEST_OBJECTS = 4096


@cython.final
cdef class ObjectStore:
    """One process's view of the object arena; made by ``create`` or ``attach``."""

    def __cinit__(self):
        self.fd = -1

    @staticmethod
    def create(capacity=0, spill_folder=None, *, double patience=10.0):
        """A new arena; this process becomes station 0, which also warms and spills.

        ``capacity`` is in bytes (0: 30 % of the memory of this machine or container): reserved, not
        allocated, and never exceeded. ``spill_folder`` is where objects go that do not fit; None
        spills nothing. ``patience`` is how many seconds ``allocate`` waits for room.
        """
        cdef ObjectStore store = ObjectStore.__new__(ObjectStore)
        cdef const char *folder = NULL
        cdef uint64_t wanted
        cdef uint64_t objects
        cdef int64_t patience_ns
        if not isinstance(capacity, int) or not 0 <= capacity <= 1 << 46:
            raise refusals.wrong_capacity(capacity)
        if not 0 <= patience < 1e9:
            raise refusals.wrong_patience(patience)
        if spill_folder is not None:
            path = os.fsencode(spill_folder)
            if not os.path.isdir(path) or not os.access(path, os.W_OK | os.X_OK):
                raise refusals.wrong_folder(os.fsdecode(path))
            folder = path
        wanted = ((capacity or default_capacity()) + 4095) // 4096 * 4096
        objects = min(wanted // LEAST_OBJECT + FEWEST_OBJECTS, <uint64_t>1 << 30)
        patience_ns = <int64_t>(patience * 1e9)
        check(srds_store_create(wanted, <uint32_t>objects, patience_ns, folder, &store.fd,
                                &store.at))
        store.owner = True
        store.begin()
        check(srds_keeper_start(store.at))
        return store

    @staticmethod
    def attach(int fd, int station):
        """The arena of the memory file ``fd``, which was inherited, as ``station`` (1 to 63)."""
        cdef ObjectStore store = ObjectStore.__new__(ObjectStore)
        if not 0 < station < 64:
            raise refusals.wrong_station(station, "1 to 63")
        check(srds_store_attach(fd, <unsigned>station, &store.at))
        store.fd = fd
        store.station = station
        store.begin()
        return store

    def begin(self):
        self.limit = srds_store_limit(self.at)
        self.blocks = <void **>calloc(<size_t>self.limit + 1, sizeof(void *))
        if self.blocks == NULL:
            raise MemoryError()
        self.open = True

    def __dealloc__(self):
        if self.at != NULL:
            if self.owner and srds_store_mine(self.at):
                with nogil:
                    srds_keeper_stop(self.at)
            srds_store_detach(self.at)
        free(self.blocks)
        if self.owner and self.fd >= 0:
            close_descriptor(self.fd)

    def close(self):
        """No objects are made or taken from here on. Views that exist stay valid until they go;
        an object that is on disk is lost."""
        if not self.open:
            return
        self.open = False
        if self.owner and srds_store_mine(self.at):
            with nogil:
                srds_keeper_stop(self.at)

    @property
    def capacity(self):
        """Bytes that the arena may grow to."""
        return srds_store_capacity(self.at)

    def statistics(self):
        """What is in the arena now."""
        cdef srds_numbers n
        cdef int i
        check(srds_store_numbers(self.at, &n))
        return ObjectStatistics(
            capacity=n.capacity, used=n.used, objects=n.objects, spilled=n.spilled,
            spilled_bytes=n.spilled_bytes, largest_free=n.largest_free, rebuilt=n.rebuilt,
            holders={i: n.held[i] for i in range(64) if n.held[i]},
            held_bytes={i: n.held_bytes[i] for i in range(64) if n.held[i]})

    cdef int check_open(self) except -1:
        if not self.open:
            raise refusals.closed()
        if not srds_store_mine(self.at):
            raise refusals.forked()
        return 0

    cpdef Block allocate(self, size_t n):
        """A block of ``n`` bytes to be written and then sealed.

        Waits while the arena is full, and says in the log who holds what. Raises
        ``ObjectStoreFull`` when there is no room in the end, or never can be.
        """
        cdef uint64_t handle
        cdef uint64_t offset
        cdef Block block
        cdef int error
        self.check_open()
        error = srds_store_take(self.at, n, &handle, &offset)
        if error:
            if error == ENOMEM or error == ENFILE:
                self.wait_for_room(n, &handle, &offset)
            elif error == E2BIG:
                raise refusals.too_large(n, self.capacity)
            else:
                check(error)
        block = self.enter(handle, n)
        block.data = srds_store_data(self.at) + offset
        if n >= BULK:
            with nogil:
                srds_store_touch(self.at, offset, n)
        return block

    cdef int wait_for_room(self, size_t n, uint64_t *handle, uint64_t *offset) except -1:
        cdef int64_t begun = srds_store_now()
        cdef int64_t now = begun
        cdef int64_t until = begun + srds_store_patience(self.at)
        cdef bint told = False
        cdef uint32_t seen
        cdef int error
        while True:
            seen = srds_store_seen(self.at)
            error = srds_store_take(self.at, n, handle, offset)
            if error != ENOMEM and error != ENFILE:
                check(error)
                return 0
            if now >= until:
                raise refusals.no_room(n, (now - begun) / 1e9, self.situation(error == ENFILE))
            if not told and now - begun >= NAP_NS:
                told = True
                import logging
                logging.getLogger("microkernel.objects").warning(
                    "waiting up to %.0f s for room for an object of %s bytes: %s",
                    (until - begun) / 1e9, f"{n:,}", self.situation(error == ENFILE))
            with nogil:
                srds_store_await(self.at, seen, NAP_NS)
            PyErr_CheckSignals()
            self.check_open()
            now = srds_store_now()

    def situation(self, many):
        """Why there is no room, for people."""
        cdef srds_numbers n
        check(srds_store_numbers(self.at, &n))
        text = describe_holders(self.statistics())
        if many:
            text = f"the table of {self.limit:,} objects is full; {text}"
        if n.spill_error:
            text += f"; spilling failed: {os.strerror(n.spill_error)}"
        return text

    cdef Block enter(self, uint64_t handle, size_t size):
        cdef Block block = Block.__new__(Block)
        block.store = self
        block.handle = handle
        block.size = size
        self.blocks[<uint32_t>handle] = <void *>block
        return block

    cpdef Block hold(self, uint64_t handle):
        """The object of a handle; this station holds it as long as the Block, or a view, lives.

        Raises ``ObjectLost`` when nobody holds it any more.
        """
        cdef uint32_t index = <uint32_t>handle
        cdef uint64_t size = 0
        cdef Block block
        cdef int error
        if index <= self.limit and self.blocks[index] != NULL:
            block = <Block>self.blocks[index]
            if block.handle == handle:
                return block
        self.check_open()
        error = srds_store_hold(self.at, handle, &size)
        if error == ESTALE:
            raise refusals.gone(handle)
        if error == EBUSY:
            raise refusals.not_sealed(handle)
        check(error)
        block = self.enter(handle, size)
        block.sealed = True
        return block

    cpdef int forget(self, int station) except -1:
        """Drop all that a dead station held."""
        if not 0 <= station < 64 or station == self.station:
            raise refusals.wrong_station(station, "another station, 0 to 63")
        self.check_open()
        check(srds_store_forget(self.at, <unsigned>station))
        return 0

    cdef Block block_of(self, object exporter, const void *address, size_t n):
        cdef size_t at = <size_t>address
        cdef size_t data = <size_t>srds_store_data(self.at)
        cdef size_t view = <size_t>srds_store_view(self.at)
        cdef size_t capacity = srds_store_capacity(self.at)
        cdef Block block
        cdef void *one
        cdef int _
        if not (data <= at < data + capacity or view <= at < view + capacity):
            return None
        for _ in range(SEARCHED):
            if type(exporter) is Block:
                block = <Block>exporter
                return block if block.where(address, n) >= 0 else None
            if PyMemoryView_Check(exporter):
                exporter = <object>PyMemoryView_GET_BUFFER(exporter).obj
            else:
                exporter = getattr(exporter, "base", None)
            if exporter is None:
                break
        # Arrow does not say what its buffers lie in.
        one = self.looked_at
        for _ in range(SEARCHED):
            if one == NULL:
                break
            if (<Block>one).where(address, n) >= 0:
                return <Block>one
            one = (<Block>one).next
        return None


@cython.final
@cython.no_gc
@cython.freelist(64)
cdef class Block:
    """An object in the arena that this process holds: writable until ``seal``, read-only after.

    Supports the buffer protocol; whatever buffer is taken from it keeps it alive and in memory.
    """

    def __init__(self):
        raise TypeError("blocks are made by ObjectStore.allocate and ObjectStore.hold")

    def __dealloc__(self):
        cdef ObjectStore store = self.store
        if store is None:
            return
        if store.blocks[<uint32_t>self.handle] == <void *>self:
            store.blocks[<uint32_t>self.handle] = NULL
        if srds_store_mine(store.at):
            srds_store_release(store.at, self.handle)

    def __len__(self):
        return self.size

    def __repr__(self):
        return f"<Block {self.handle:#x} of {self.size:,} bytes, " \
               f"{'sealed' if self.sealed else 'being written'}>"

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        self.pin()
        try:
            PyBuffer_FillInfo(buffer, self, self.data, self.size, self.sealed, flags)
        except BaseException:
            self.unpin()
            raise

    def __releasebuffer__(self, Py_buffer *buffer):
        self.unpin()

    def fill(self, source, size_t at=0):
        """Copy the bytes of ``source``, any contiguous buffer, to ``at`` in this block."""
        cdef Py_buffer view
        PyObject_GetBuffer(source, &view, PyBUF_ANY_CONTIGUOUS)
        try:
            self.write(at, view.buf, view.len)
        finally:
            PyBuffer_Release(&view)

    cpdef int seal(self) except -1:
        """The object does not change from here on; other processes may hold it. Idempotent.

        Buffers that were taken before can still be written to, which nobody should do.
        """
        if self.sealed:
            return 0
        self.store.check_open()
        check(srds_store_seal(self.store.at, self.handle, self.pins > 0))
        self.sealed = True
        # The same memory, where it is read only.
        self.data += srds_store_view(self.store.at) - srds_store_data(self.store.at)
        return 0

    cdef int seal_with(self, object exporter) except -1:
        if self.sealed:
            return 0
        self.seal()
        while exporter is not None and type(exporter) is not Block:
            flags = getattr(exporter, "flags", None)
            if flags is not None:
                try:
                    flags.writeable = False
                except (AttributeError, ValueError):
                    break           # no array of NumPy's
            exporter = getattr(exporter, "base", None)
        return 0

    cdef int write(self, size_t at, const void *data, size_t n) except -1:
        if self.sealed or at > self.size or n > self.size - at:
            raise refusals.not_writable(self, at, n)
        if n < BULK:
            srds_copy(self.data + at, data, n)
        else:
            with nogil:
                srds_copy(self.data + at, data, n)
        return 0

    cdef const unsigned char *pin(self) except NULL:
        cdef ObjectStore store = self.store
        if self.pins == 0 and self.sealed:
            self.look()
        if self.pins == 0:
            self.next = store.looked_at
            self.previous = NULL
            if store.looked_at != NULL:
                (<Block>store.looked_at).previous = <void *>self
            store.looked_at = <void *>self
        self.pins += 1
        return self.data

    cdef int unpin(self) noexcept:
        cdef ObjectStore store = self.store
        self.pins -= 1
        if self.pins:
            return 0
        if self.next != NULL:
            (<Block>self.next).previous = self.previous
        if self.previous != NULL:
            (<Block>self.previous).next = self.next
        else:
            store.looked_at = self.next
        if self.sealed and srds_store_mine(store.at):
            srds_store_unpin(store.at, self.handle)
        return 0

    cdef int look(self) except -1:
        """Have the object in memory, and tell the arena that this station looks at it."""
        cdef ObjectStore store = self.store
        cdef int64_t until = 0
        cdef uint64_t offset
        cdef uint32_t seen
        cdef int error
        try:
            while True:
                if not srds_store_mine(store.at):
                    store.check_open()
                seen = srds_store_seen(store.at)
                error = srds_store_pin(store.at, self.handle, &offset)
                if error == 0:
                    self.data = srds_store_view(store.at) + offset
                    return 0
                if error != EAGAIN:
                    break
                store.check_open()
                if until == 0:
                    until = srds_store_now() + srds_store_patience(store.at)
                elif srds_store_now() >= until:
                    break
                with nogil:
                    srds_store_await(store.at, seen, NAP_NS)
                PyErr_CheckSignals()
        except BaseException:
            self.look_away()
            raise
        self.look_away()
        if error == EAGAIN:
            raise refusals.no_room_to_restore(self.size, store.situation(False))
        raise refusals.not_restorable(self.size, error)

    def look_away(self):
        # Another thread may have had more luck, or go on waiting; then it looks again.
        if self.pins == 0 and srds_store_mine(self.store.at):
            srds_store_unpin(self.store.at, self.handle)

    cdef Py_ssize_t where(self, const void *address, size_t n) noexcept:
        cdef size_t at = <size_t>address
        cdef size_t begin = <size_t>self.data
        cdef size_t data = <size_t>srds_store_data(self.store.at)
        cdef size_t view = <size_t>srds_store_view(self.store.at)
        cdef size_t capacity = srds_store_capacity(self.store.at)
        if self.pins == 0:
            return -1
        # Sealed or not, either mapping may be what the address lies in.
        at -= data if data <= at < data + capacity else view
        begin -= view if self.sealed else data
        if at < begin or at > begin + self.size or n > begin + self.size - at:
            return -1
        return <Py_ssize_t>(at - begin)


cdef int check(int error) except -1:
    if error:
        raise refusals.failed(error)
    return 0
