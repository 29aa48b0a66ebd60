"""The writer of one log: the event sink that keeps what it is given.

``append`` copies an event into shared memory and returns: from then on the event survives the
death of the process (*acknowledged*). A thread that never takes the GIL (``flusher.h``) turns the
events into frames, writes them and syncs the file: from then on they survive a loss of power
(*durable*). A second thread signs the head of the log's tree from time to time.

The append path follows the ring-then-group-commit design of database logs; that the ring itself is
recovered after a kill is what lets an append return without a system call.
"""
from libc.errno cimport ENOSPC
from libc.stdint cimport UINT64_MAX, int64_t, uint8_t, uint16_t, uint64_t
from libc.stdlib cimport malloc
from libc.string cimport memcpy, memset
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals

import json
import os
import secrets
import threading
import weakref
from pathlib import Path

from microkernel import events
from microkernel.ids cimport TaskId
from timemachine.errors import (
    JournalClosed,
    JournalError,
    JournalForked,
    JournalTimeout,
    JournalWriteError,
)
from timemachine.journal.checkpoint import SignedHead, save_head, sign_head
from timemachine.journal.checkpointer import keep_signing
from timemachine.journal.header import header_prefix
from timemachine.journal.lock import LogLock
from timemachine.journal.log_directory import require_log_id
from timemachine.journal.recovery import recover
from timemachine.journal.ring_file import boot_id, name_ring, remove_ring
from timemachine.journal.frontier cimport LeafFrontier
from timemachine.journal.segment_writer cimport srds_segment_begin, srds_segment_free, \
    srds_segment_init
from timemachine.journal.settings import JournalSettings

cdef extern from *:
    """
    #define srds_swap64(x) __builtin_bswap64(x)
    """
    uint64_t srds_swap64(uint64_t x) nogil

cdef uint64_t WAIT_SLICE_NS = 100_000_000


cdef class Journal(EventSink):
    """The writer of one log; made by ``Journal.open``, used from any thread, closed by ``close``.

    ``log_id`` is the log's id (32 hexadecimal digits), ``run_id`` 16 random bytes that are new at
    each opening, ``recovery`` tells what the opening found. A process that exits without ``close``
    loses no acknowledged event: the next opening finds them in the ring.
    """

    def __cinit__(self):
        memset(&self.log, 0, sizeof(self.log))
        srds_segment_init(&self.log.segment)

    def __init__(self):
        raise TypeError("a journal is made by Journal.open or open_log")

    def __dealloc__(self):
        # In a forked child the flusher does not exist: there is nothing to stop.
        if self.log.running and self.log.generation == srds_forks:
            with nogil:
                srds_log_stop(&self.log)
        srds_ring_unmap(&self.log.ring)
        srds_segment_free(&self.log.segment)

    @staticmethod
    def open(directory, key, *, settings=None, fingerprint=None):
        """Open the log in ``directory`` for writing, after recovering it where its writer died.

        ``directory`` is made when it does not exist; its name is the log's id, 32 hexadecimal
        digits. ``key`` (an ``enclave.keys.SigningKey``) signs the checkpoints. ``fingerprint``
        describes the environment; it stands in each segment's header as JSON.

        Raises ``JournalLocked`` when another writer has the log, ``JournalDamaged`` when it is not
        as it was written, ``JournalFormatError`` for a newer format, and ``JournalError`` when the
        directory cannot be written.
        """
        path = Path(os.path.abspath(directory))
        log_id = require_log_id(path)
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise JournalError(
                f"the log {path} cannot be made: {error.strerror}",
                what=str(path),
                expected="a directory that this user may write to",
                remedy="open the store elsewhere, or change the rights of the directory",
            ) from error
        lock = LogLock(path)
        cdef Journal journal = Journal.__new__(Journal)
        try:
            journal._begin(path, log_id, key, settings or JournalSettings(), fingerprint or {},
                           lock)
        except BaseException as error:
            lock.release()
            if isinstance(error, OSError) and not isinstance(error, JournalError):
                raise write_error(path, error.errno or ENOSPC) from error
            raise
        return journal

    def _begin(self, directory, str log_id, key, settings, fingerprint, lock):
        state = recover(directory, [key.public])
        self.directory = directory
        self.log_id = log_id
        self.run_id = secrets.token_bytes(16)
        self.settings = settings
        self.recovery = state.recovery
        self.key = key
        self.fingerprint = dict(fingerprint)
        self.lock = lock
        self.declaring = threading.Lock()
        self.log.segment_bytes = settings.segment_bytes
        self.log.flush_bytes = settings.flush_bytes
        self.log.flush_ns = int(settings.flush_interval_ms * 1e6)
        self.log.ack = settings.durable == "ack"

        cdef LeafFrontier tree = state.tree
        cdef const uint8_t *headers = state.headers
        self.log.segment.tree = tree.tree
        self.log.segment.segments = state.segments
        self.log.segment.lamport = state.lamport
        memcpy(self.log.segment.headers, headers, 32)
        self.log.segment.directory = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._render_header(events.kinds())
        # A log is never without a checkpoint, so that a missing one is evidence.
        if state.signed is None:
            save_head(directory, sign_head(
                key, log_id, SignedHead(tree.size, tree.root, state.segments, state.headers)))
        else:
            self.signed_size = state.signed.size
        cdef int error
        with nogil:
            error = srds_segment_begin(&self.log.segment)
        if error:
            raise OSError(error, os.strerror(error))
        self._make_ring()
        error = srds_log_start(&self.log)
        if error:
            raise OSError(error, os.strerror(error))
        self.checkpointer = threading.Thread(
            target=keep_signing, args=(weakref.ref(self),), name=f"journal {log_id[:8]}",
            daemon=True)
        self.checkpointer.start()

    def _make_ring(self):
        """Make the shared memory, and name it in the log in place of its predecessor."""
        cdef bytes log = bytes.fromhex(self.log_id), token = secrets.token_bytes(16)
        cdef bytes boot = boot_id()
        cdef bytes run = self.run_id
        cdef int file, error = 0
        cdef uint64_t capacity = self.settings.ring_bytes
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        # A full /dev/shm (containers have 64 MiB of it) is no reason to fail: the log's own
        # directory does as well, only that its pages may be written back to the disk.
        for folder in ("/dev/shm", self.directory):
            path = Path(folder) / f"srds-{self.log_id}-{secrets.token_hex(8)}.ring"
            try:
                file = os.open(path, flags, 0o600)
            except OSError as refused:
                error = refused.errno
                continue
            error = srds_ring_create(&self.log.ring, file, capacity, log, run, token, boot)
            os.close(file)
            if not error:
                break
            path.unlink()
        if error:
            raise OSError(error, os.strerror(error), str(path))
        try:
            remove_ring(self.directory)
            name_ring(self.directory, path, token)
        except BaseException:
            path.unlink()
            raise

    def _render_header(self, kinds):
        cdef bytes text = header_prefix(
            self.log_id, self.run_id, kinds, self.fingerprint, self.key.name)
        cdef size_t n = len(text)
        cdef char *copy = <char *>malloc(n)
        if copy == NULL:
            raise MemoryError()
        memcpy(copy, PyBytes_AS_STRING(text), n)
        if self.log.running:
            with nogil:
                srds_set_header_prefix(&self.log, copy, n)
        else:
            self.log.segment.prefix = copy
            self.log.segment.prefix_n = n
        for kind in kinds:
            self.known[kind.number >> 3] |= 1 << (kind.number & 7)

    cdef int append(self, uint16_t kind, uint64_t flags, const TaskId *decision,
                    const void *data, size_t n) except -1 nogil:
        cdef uint64_t id[2]
        cdef int64_t code
        if not (self.known[kind >> 3] >> (kind & 7)) & 1:
            with gil:
                self.declare(kind)
        if decision != NULL:
            id[0] = srds_swap64(decision.hi)
            id[1] = srds_swap64(decision.lo)
        code = srds_append(&self.log, kind, flags, <const uint8_t *>id if decision else NULL,
                           NULL, 0, <const uint8_t *>data, n, 1)
        if code < 0:
            with gil:
                self.refuse(code)
        return 0

    def append_event(self, uint16_t kind, payload not None, *, bytes decision=None,
                     uint64_t flags=0, parents=()):
        """Append one event and return its position in the log; it is acknowledged on return.

        ``kind`` is a number that ``microkernel.events.register`` gave, ``payload`` at most 64 MiB
        of bytes, ``decision`` the 16 bytes of the decision's id, ``flags`` 64 bits for the caller,
        ``parents`` up to 65,535 causes in other logs: pairs of the first eight bytes of the log's
        id as a little-endian number, and the Lamport time there.

        Raises ``JournalWriteError`` while the disk refuses the journal (with ``durable="ack"`` the
        event may still be written later), ``JournalClosed`` after ``close``, ``JournalForked`` in
        a child of the process that opened it, and ``JournalError`` for an event that no frame can
        hold.
        """
        cdef const uint8_t[::1] view
        cdef const uint8_t *data = NULL
        cdef const uint8_t *who = NULL
        cdef const uint8_t *causes = NULL
        cdef uint64_t n
        cdef uint16_t n_parents = 0
        cdef int64_t code
        cdef bytes packed
        if PyBytes_CheckExact(payload):
            data = <const uint8_t *>PyBytes_AS_STRING(payload)
            n = PyBytes_GET_SIZE(payload)
        else:
            view = memoryview(payload).cast("B")
            n = view.shape[0]
            if n:
                data = &view[0]
        if decision is not None:
            if PyBytes_GET_SIZE(decision) != 16:
                raise JournalError(
                    f"a decision's id has 16 bytes, not {len(decision)}",
                    what="decision", expected="16 bytes",
                    remedy="give the id that the kernel gave the decision")
            who = <const uint8_t *>PyBytes_AS_STRING(decision)
        if parents:
            packed = pack_parents(parents)
            causes = packed
            n_parents = <uint16_t>(len(packed) // 16)
        if not (self.known[kind >> 3] >> (kind & 7)) & 1:
            self.declare(kind)
        code = srds_append(&self.log, kind, flags, who, causes, n_parents, data, n, 0)
        if code == SRDS_WOULD_WAIT:
            with nogil:
                code = srds_append(&self.log, kind, flags, who, causes, n_parents, data, n, 1)
        if code < 0:
            self.refuse(code)
        return code

    cdef int declare(self, uint16_t kind) except -1:
        """Tell readers of the running segment about a kind that its header does not have."""
        with self.declaring:
            if (self.known[kind >> 3] >> (kind & 7)) & 1:
                return 0
            kinds = events.kinds()
            for known in kinds:
                if known.number == kind:
                    break
            else:
                raise JournalError(
                    f"no event kind has the number {kind}",
                    what=f"kind {kind}",
                    expected="a number that microkernel.events.register gave",
                    remedy="register the kind before appending events of it")
            body = {"number": known.number, "name": known.name,
                    "columns": [list(column) for column in known.columns]}
            self.append_event(events.JOURNAL_KIND, json.dumps(body).encode())
            self.known[kind >> 3] |= 1 << (kind & 7)
            # Another kind may have been registered meanwhile: only what was declared may be known.
            self._render_header([k for k in kinds
                                 if (self.known[k.number >> 3] >> (k.number & 7)) & 1])
        return 0

    cdef int64_t refuse(self, int64_t code) except -1:
        """Raise what a negative code of the C append means."""
        if code == SRDS_FORKED:
            raise JournalForked(
                f"process {os.getpid()} was forked and cannot write to its parent's journal",
                what=f"log {self.log_id}",
                expected="the process that opened the log",
                remedy="open a log in the child, after the fork")
        if code == SRDS_CLOSED:
            raise JournalClosed(
                f"the journal {self.log_id} is closed",
                what=f"log {self.log_id}", expected="an open journal", remedy="open it again")
        if code == SRDS_TOO_LARGE:
            raise JournalError(
                "an event has at most 64 MiB",
                what="payload", expected="at most 67108864 bytes",
                remedy="store the value as an object and journal its hash")
        if code == SRDS_FAILED:
            raise write_error(self.directory, self.log.failed)
        raise AssertionError(f"append returned {code}")

    def sync(self, timeout=None):
        """Wait until everything appended so far is durable.

        ``timeout`` is in seconds; None waits without end. Raises ``JournalTimeout`` when it is
        over, and ``JournalWriteError`` while the disk refuses the journal.
        """
        cdef uint64_t size, left, slice
        cdef int code
        self._require_here()
        if self.log.closed:
            self.refuse(SRDS_CLOSED)
        size = srds_size(&self.log)
        left = UINT64_MAX if timeout is None else <uint64_t>(max(0.0, timeout) * 1e9)
        while True:
            slice = left if left < WAIT_SLICE_NS else WAIT_SLICE_NS
            with nogil:
                code = srds_wait_durable(&self.log, size, slice)
            if code == 0:
                return
            if code != SRDS_WOULD_WAIT:
                self.refuse(code)
            PyErr_CheckSignals()
            left -= slice
            if left == 0:
                raise JournalTimeout(
                    f"{size - self.log.durable} events are not durable after {timeout} s",
                    what=f"log {self.log_id}",
                    expected=f"{size} durable events",
                    remedy="wait longer, or find out what slows the disk down")

    def observe(self, uint64_t lamport):
        """Move the log's Lamport clock past a time that came from elsewhere."""
        self._require_here()
        with nogil:
            srds_observe(&self.log, lamport)

    @property
    def size(self):
        """The number of events appended so far, over all openings of the log."""
        self._require_here()
        return srds_size(&self.log)

    @property
    def durable_size(self):
        """The number of events that are synced to disk."""
        return self.log.durable

    @property
    def closed(self):
        """Whether ``close`` was called."""
        return bool(self.log.closed)

    def close(self):
        """Write and sync all events, sign the log's head, and let the next writer in.

        To close twice does nothing. Raises ``JournalWriteError`` when the disk refuses; the events
        stay in the ring then, and the next opening writes them.
        """
        cdef int error
        self._require_here()
        with self.declaring:
            if self.log.closed:
                return
            with nogil:
                error = srds_log_stop(&self.log)
        try:
            self.checkpointer.join()
            if error:
                raise write_error(self.directory, error)
            try:
                self._sign_head()
                remove_ring(self.directory)
            except OSError as refused:
                raise write_error(self.directory, refused.errno or ENOSPC) from refused
        finally:
            srds_segment_free(&self.log.segment)
            self.lock.release()

    def _await_checkpoint(self):
        """Wait until a checkpoint may be due; False once the journal is closed."""
        cdef uint64_t since = self.signed_size + self.signed_own
        cdef uint64_t count = self.settings.checkpoint_events
        cdef uint64_t ns = int(self.settings.checkpoint_seconds * 1e9)
        with nogil:
            srds_wait_checkpoint(&self.log, since, count, ns)
        return not self.log.closed

    def _checkpoint(self):
        """Sign the durable head if there are events since the last one, and journal the note."""
        note = self._sign_head()
        if note is not None:
            self.append_event(events.JOURNAL_CHECKPOINT, note)
            self.signed_own = 1

    def _sign_head(self):
        cdef srds_head head
        srds_get_head(&self.log, &head)
        # The event that carries the last checkpoint is no reason for another one, but at the end
        # everything is signed.
        if head.size <= self.signed_size + (0 if self.log.closed else self.signed_own):
            return None
        note = sign_head(self.key, self.log_id, SignedHead(
            head.size, <bytes>head.root[:32], head.segments, <bytes>head.headers[:32]))
        save_head(self.directory, note)
        self.signed_size = head.size
        self.signed_own = 0
        return note

    def _require_here(self):
        if self.log.generation != srds_forks:
            self.refuse(SRDS_FORKED)

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()


cdef bytes pack_parents(parents):
    if len(parents) > 65_535:
        raise JournalError(
            f"an event has at most 65535 parents, not {len(parents)}",
            what="parents", expected="at most 65535", remedy="name the nearest causes only")
    return b"".join(
        [int(log).to_bytes(8, "little") + int(lamport).to_bytes(8, "little")
         for log, lamport in parents])


cdef write_error(directory, int error):
    return JournalWriteError(
        f"the journal in {directory} cannot be written: {os.strerror(error)}",
        what=str(directory),
        expected="room and rights to write",
        remedy="make room, or mend the disk: acknowledged events are kept and written then")
