"""The trace ring of a kernel: what ran, where, from when to when, and how it ended.

Every task leaves 64 bytes at its end, in every placement; there is nothing to turn on. The writing
is in ``trace.h`` (one time stamp, one cache line) and ``spill.h`` (what happens when a block is
full), modelled on Linux's ftrace and on LTTng: buffers of one writer each that a reader drains, and
records that name a thing by a number whose text is noted once. Here are the Python ends of it:
lanes and names, met for the first time, and reading.

The worker processes of a kernel write to the same memory and file, each to an area of its own, so
the trace is whole also for what a killed worker had run.
"""
import logging
import os
import sys
import threading

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy

from microkernel.task cimport DONE, Ref

from microkernel.errors import DeadlineMissed, KernelClosed, KernelError, TaskCancelled

cdef extern from "microkernel/tracing/spill.h":
    enum:
        SRDS_ENDINGS
        SRDS_NAMES_AT
        SRDS_STATS_BYTES
        SRDS_TRACE_BLOCK
        SRDS_TRACE_BLOCKS
        SRDS_TRACE_ENTRIES
        SRDS_TRACE_LANES
        SRDS_TRACE_ROWS
        SRDS_TRACE_STATIONS

    ctypedef struct Head "srds_trace_head":
        uint64_t number
        uint32_t count
        uint32_t station
        Moment opened

    void srds_trace_know(CTrace *t, uint64_t function) nogil
    void srds_trace_give_lane(CTrace *t, unsigned long thread, unsigned lane) nogil
    int srds_trace_open(CTrace *t, const char *folder, int memory, int file,
                        unsigned station) nogil
    int srds_trace_open_file(CTrace *t) nogil
    void srds_trace_stop_writer(CTrace *t) nogil
    int srds_trace_lost_more(CTrace *t) nogil
    void srds_trace_free(CTrace *t) nogil
    void srds_trace_note_name(CTrace *t, uint64_t hash, const char *name, uint32_t length) nogil
    int srds_watch_trace_forks() nogil
    long srds_area_at(unsigned station) nogil
    int64_t srds_wall_of_ticks_ns() nogil
    Moment srds_both_clocks(int counter) nogil

STATISTICS_BYTES = SRDS_STATS_BYTES

cdef extern from "microkernel/processes/control.h":
    enum:
        SRDS_STATIONS

    ctypedef struct Counters "srds_counters":
        uint64_t tasks
        uint64_t nested
        uint64_t stolen
        uint64_t sleeps
        uint64_t spins
        uint64_t spin_hits

    ctypedef struct StationRow "srds_station":
        uint32_t state
        uint32_t epoch
        int32_t pid
        Counters counters

    ctypedef struct Control "srds_control":
        uint64_t backlog
        uint64_t outstanding
        StationRow stations[64]

CONTROL_BYTES = sizeof(Control)

cdef object _log = logging.getLogger("microkernel")

cdef enum:
    LONGEST_NAME = 1024         # bytes of a function's name that are kept
    SWEPT_FROM = 32             # lanes; from here on those of threads that ended are used again


if srds_watch_trace_forks() != 0:
    raise MemoryError()


def seconds():
    """A clock that is no input of the decision it is read in."""
    return srds_wall_of_ticks_ns() / 1e9


def trace_folder():
    """Where blocks are spilled: ``$TMPDIR``, else ``/var/tmp``, which is rarely kept in memory."""
    for folder in (os.environ.get("TMPDIR"), "/var/tmp", "/tmp"):
        if folder and os.access(folder, os.W_OK | os.X_OK):
            return folder
    return "."


cdef class TraceRing:
    """The trace of a kernel, or, in a worker process, that process's part of it."""

    def __cinit__(self):
        self.trace.memory = self.trace.file = -1
        self.lanes = {}
        self.names = {}

    def __init__(self, bytes run_id not None, str placement not None):
        """The trace of a new kernel."""
        self._open(-1, -1, 0)
        cdef Stats *stats = self.trace.stats
        memcpy(stats.run_id, <const char *>run_id, min(len(run_id), 16))
        copy_text(stats.program, program().encode(), sizeof(stats.program))
        copy_text(stats.placement, placement.encode(), sizeof(stats.placement))

    @staticmethod
    def attach(int memory, int file, int station):
        """In a process of the kernel: write to the trace that ``share`` gave the descriptors of."""
        cdef TraceRing ring = TraceRing.__new__(TraceRing)
        ring._open(os.dup(memory), os.dup(file), station)
        ring.trace.rows[0].depth = 0
        ring.trace.rows[0].running = 0
        ring.trace.rows[0].process = os.getpid()
        copy_text(ring.trace.rows[0].name, f"worker {station}".encode(), 48)
        return ring

    def _open(self, int memory, int file, int station):
        self.folder = trace_folder()
        cdef int error = srds_trace_open(&self.trace, os.fsencode(self.folder), memory, file,
                                         station)
        if error:
            raise KernelError(f"no memory for the trace: {os.strerror(error)}", what="trace",
                              expected="5 MiB of address space",
                              remedy="raise the limit (ulimit -v)")
        self.open = True

    def __dealloc__(self):
        with nogil:
            srds_trace_stop_writer(&self.trace)
        srds_trace_free(&self.trace)

    def share(self):
        """The descriptors (memory, file) that another process of the kernel is to ``attach``;
        (-1, -1) where there are none."""
        if self.trace.memory < 0 or srds_trace_open_file(&self.trace) < 0:
            _log.warning("tasks that workers submit leave no trace: no file in %s", self.folder)
            return -1, -1
        return self.trace.memory, self.trace.file

    def close(self):
        """Let the writing thread end; what was written can still be read."""
        if self.open and not self.trace.inherited:
            self.open = False
            self.gauged = srds_both_clocks(self.trace.counter)
            self.trace.stats.closed = 1
            with nogil:
                srds_trace_stop_writer(&self.trace)
            if srds_trace_lost_more(&self.trace):
                self.say_lost()

    # Writing

    cdef int new_lane(self, unsigned long thread) except -1:
        """The lane of a thread that is not in the small table of ``trace.h``."""
        cdef Row *row
        lane = self.lanes.get(thread)
        if lane is None:
            lane = len(self.lanes)
            if lane >= SWEPT_FROM:
                alive = sys._current_frames()
                for ended in self.lanes:
                    if ended not in alive:
                        lane = self.lanes.pop(ended)
                        break
            self.lanes[thread] = lane = min(lane, 0xffff)
            if lane < SRDS_TRACE_LANES and self.trace.station == 0:
                row = &self.trace.stats.rows[<int>lane]
                row.depth = 0
                row.running = 0
                name = next((one.name for one in threading.enumerate() if one.ident == thread),
                            f"thread {thread}")
                copy_text(row.name, name.encode(), sizeof(row.name))
                row.process = self.trace.stats.process
        srds_trace_give_lane(&self.trace, thread, lane)
        return lane

    cdef int note_name(self, Ref task) except -1:
        """The name of a function that is not in the small table of ``trace.h``."""
        cdef bytes name
        if task.function.hash in self.names:
            srds_trace_know(&self.trace, task.function.hash)
            return 0
        self.names[task.function.hash] = task.function.name
        name = task.function.name.encode(errors="replace")[:LONGEST_NAME]
        srds_trace_note_name(&self.trace, task.function.hash, name, len(name))
        return 0

    cdef int say_lost(self) except -1:
        code = self.trace.stats.spill_error
        _log.warning("the trace of %d tasks is lost so far: %s in %s", self.trace.stats.lost,
                     os.strerror(code) if code else "too slow a disk", self.folder)
        return 0

    cdef int append_slowly(self, Ref task, int state, object result, unsigned kind) except -1:
        """Any task's entry; the usual ones take a shorter way."""
        cdef unsigned status = status_of(state, result)
        cdef int lane = 0
        if not srds_trace_knows(&self.trace, task.function.hash):
            self.note_name(task)
        if task.started:
            lane = srds_trace_lane(&self.trace, task.thread)
            if lane < 0:
                lane = self.new_lane(task.thread)
        if kind == SRDS_KIND_COROUTINE:
            self.trace.places[task.place].left += 1
        if srds_trace_append(&self.trace, <void *>task, task.id.hi, task.id.lo, task.parent.hi,
                             task.parent.lo, task.function.hash, task.started, lane, task.place,
                             status, task.attempt, kind):
            self.say_lost()
        return 0

    cdef int append_remote(self, Ref task, unsigned station, int64_t started_ns,
                           int64_t ended_ns) except -1:
        """A task has run in another process, from ``started_ns`` to ``ended_ns`` (CLOCK_MONOTONIC):
        to be called right before it is completed, which appends its entry."""
        cdef CTrace *t = &self.trace
        if not srds_trace_knows(t, task.function.hash):
            self.note_name(task)
        t.staged = <void *>task
        t.staged_started = started_ns
        t.staged_ended = max(started_ns, ended_ns)
        t.staged_station = station
        t.staged_lane = 0
        t.staged_in_ns = SRDS_IN_NS
        return 0

    cdef int64_t ns_of(self, int64_t ticks) noexcept:
        """CLOCK_MONOTONIC at a recent time stamp."""
        cdef Moment opened = self.trace.stats.opened
        if not self.trace.counter:
            return ticks
        if ticks >= self.gauged_until:
            self.gauged = srds_both_clocks(self.trace.counter)
            self.rate = rate_between(opened, self.gauged)
            # At first soon again, for the rate is not known well; then every ten seconds.
            self.gauged_until = <int64_t>self.gauged.ticks + <int64_t>(
                min(self.gauged.ns - opened.ns, 10_000_000_000) / self.rate)
        return self.gauged.ns + <int64_t>(<double>(ticks - <int64_t>self.gauged.ticks) * self.rate)

    cdef int last_times(self, int64_t *started_ns, int64_t *ended_ns) noexcept:
        """From when to when the task ran that has just ended; 0, 0 when it did not run."""
        cdef CTrace *t = &self.trace
        started_ns[0] = ended_ns[0] = 0
        if t.staged_started == 0:
            return 0
        if t.staged_in_ns:
            started_ns[0], ended_ns[0] = t.staged_started, t.staged_ended
        else:
            ended_ns[0] = self.ns_of(t.staged_ended)
            started_ns[0] = self.ns_of(t.staged_started)
        return 0

    # Reading

    def statistics(self):
        """What ``read_statistics`` makes of this kernel's counters, as they are now."""
        self._check_ours()
        found = read_statistics((<char *>self.trace.stats)[:SRDS_STATS_BYTES])
        found["names"] = {**self.names, **found["names"]}
        return found

    def _check_ours(self):
        if self.trace.inherited:
            raise KernelClosed("the kernel belongs to the process that this one was forked from",
                               what="Kernel", expected="an open kernel",
                               remedy="look at it in that process")

    def blocks(self):
        """The blocks of entries, the oldest first, as (station, entries, ticks, ns, rate, before).

        ``entries`` are bytes; a time of ``t`` ticks in them is ``ns + (t - ticks) * rate``
        nanoseconds of CLOCK_MONOTONIC, with ``before`` for the rate where it is negative.
        """
        cdef Moment opened = self.trace.stats.opened
        cdef Moment now
        cdef double overall
        self._check_ours()
        # Once it is closed, its times are always worked out in the same way.
        now = srds_both_clocks(self.trace.counter) if self.open else self.gauged
        overall = rate_between(opened, now) if self.trace.counter else 1.0
        memory = self._blocks_in_memory()
        heads = self._heads_in_file(memory)
        heads += [(number, *head_of(block)) for number, block in memory.items()]
        heads.sort()
        following = {}
        rates = {}
        for number, _, station, ticks, ns in reversed(heads):
            later_ticks, later_ns = following.get(station, (now.ticks, now.ns))
            rates[number] = ((later_ns - ns) / (later_ticks - ticks)
                             if later_ns - ns > 1_000_000_000 and self.trace.counter else overall)
            following[station] = ticks, ns
        for number, count, station, ticks, ns in heads:
            block = memory.pop(number, None)
            if block is None:
                block = self._from_file(number, SRDS_TRACE_BLOCK)
                if head_number(block) != number:
                    continue        # overwritten meanwhile, and counted
            yield (station, block[sizeof(Head):sizeof(Head) * (1 + count)], ticks, ns,
                   rates[number], overall)

    def _blocks_in_memory(self):
        """Blocks that are not in the file yet, of all processes, by their number."""
        cdef bytes block
        cdef uint64_t number
        cdef Stats *stats = self.trace.stats
        found = {}
        for station in range(SRDS_TRACE_STATIONS):
            if station and stats.rows[SRDS_TRACE_LANES + <int>station].process == 0:
                continue
            for i in range(SRDS_TRACE_BLOCKS):
                block = self._in_memory(station, i, sizeof(Head))
                number = head_number(block)
                if number == 0:
                    continue
                block = self._in_memory(station, i, sizeof(Head) * (1 + head_of(block)[0]))
                # It may have been written meanwhile: then it is in the file.
                if (head_number(block) == number
                        and head_number(self._in_memory(station, i, sizeof(Head))) == number):
                    found[number] = block
        return found

    def _in_memory(self, unsigned station, int i, size_t n):
        if station == self.trace.station:
            return (<char *>self.trace.area + <size_t>i * SRDS_TRACE_BLOCK)[:n]
        return os.pread(self.trace.memory, n, srds_area_at(station) + i * SRDS_TRACE_BLOCK)

    def _heads_in_file(self, memory):
        cdef uint64_t number
        cdef uint64_t last = self.trace.stats.blocks
        cdef uint64_t kept = self.trace.stats.capacity
        heads = []
        if self.trace.file < 0:
            return heads
        if kept:
            kept += SRDS_TRACE_BLOCKS * SRDS_TRACE_STATIONS     # that may not be written yet
        for number in range(last - kept + 1 if kept and last > kept else 1, last + 1):
            if number in memory:
                continue
            head = self._from_file(number, sizeof(Head))
            if len(head) == sizeof(Head) and head_number(head) == number:
                heads.append((number, *head_of(head)))
        return heads

    def _from_file(self, uint64_t number, size_t n):
        cdef uint64_t capacity = self.trace.stats.capacity
        cdef uint64_t at = (number - 1) % capacity if capacity else number - 1
        return os.pread(self.trace.file, n, at * SRDS_TRACE_BLOCK)


cdef double rate_between(Moment earlier, Moment later) noexcept:
    """Nanoseconds per tick."""
    if later.ticks <= earlier.ticks or later.ns <= earlier.ns:
        return 1.0
    return <double>(later.ns - earlier.ns) / <double>(later.ticks - earlier.ticks)


cdef uint64_t head_number(bytes block):
    return (<Head *><char *>block).number if len(block) >= sizeof(Head) else 0


cdef tuple head_of(bytes block):
    cdef Head *head = <Head *><char *>block
    return head.count, head.station, head.opened.ticks, head.opened.ns


cdef unsigned status_of(int state, object result) except? 255:
    if state == DONE:
        return SRDS_ENDED_OK
    error = result[0] if type(result) is tuple else result
    if isinstance(error, TaskCancelled):
        return SRDS_ENDED_CANCELLED
    return SRDS_ENDED_MISSED if isinstance(error, DeadlineMissed) else SRDS_ENDED_ERROR


cdef copy_text(char *to, bytes text, size_t room):
    cdef size_t n = min(<size_t>len(text), room - 1)
    memcpy(to, <const char *>text, n)
    to[n] = 0


cdef str text_of(const char *text, size_t room):
    return text[:room].partition(b"\0")[0].decode(errors="replace")


def program():
    """What this process is called in a list of processes: the program, without its folder."""
    arguments = getattr(sys, "argv", None) or [""]
    return os.path.basename(arguments[0]) or "python"


def read_statistics(bytes page not None):
    """The counters of a kernel from the memory that it keeps them in; None where it is none.

    A dictionary: process, program, placement, run_id, closed, opened (Unix time, s), age (s),
    places {name: counts}, workers [row], names {hash: name}, and what became of the trace.
    """
    cdef Stats *stats
    cdef Row *row
    cdef Moment now
    cdef PlaceCounts *counts
    cdef double rate = 1.0
    cdef int i, j
    if len(page) < SRDS_STATS_BYTES or page[:8] != b"srdstat1":
        return None
    stats = <Stats *><char *>page
    if stats.version != sizeof(Stats):
        return None     # of another version of this package
    now = srds_both_clocks(stats.counter)
    if stats.counter:
        rate = rate_between(stats.opened, now)
    places = {}
    for j, place in enumerate(("inline", "thread", "process")):
        sums = [0] * 8
        for i in range(3 * SRDS_TRACE_STATIONS):
            # What a worker process runs itself, is in a process.
            if j != (2 if i >= 3 else i):
                continue
            counts = &stats.places[i // 3][i % 3]
            for k, one in enumerate((counts.submitted, counts.begun, counts.left, counts.ended[0],
                                     counts.ended[1], counts.ended[2], counts.ended[3],
                                     counts.retried)):
                sums[k] += one
        places[place] = dict(zip(("submitted", "begun", "left", "finished", "failed", "cancelled",
                                  "missed", "retried"), sums))
    names = names_of(page)
    workers = []
    for i in range(SRDS_TRACE_ROWS):
        row = &stats.rows[i]
        if row.process == 0:
            continue
        remote = i >= SRDS_TRACE_LANES
        workers.append({
            "name": text_of(row.name, sizeof(row.name)),
            "process": row.process,
            "station": i - SRDS_TRACE_LANES if remote else 0,
            "lane": 0 if remote else i,
            "tasks": row.tasks,
            "busy": row.busy * rate / 1e9,
            "running": (names.get(row.running, f"{row.running:016x}") if row.running else None),
            "since": max(0.0, (<int64_t>(now.ticks - row.since)) * rate / 1e9) if row.running
            else 0.0,
        })
    return {
        "process": stats.process,
        "program": text_of(stats.program, sizeof(stats.program)),
        "placement": text_of(stats.placement, sizeof(stats.placement)),
        "run_id": (<char *>stats.run_id)[:16],
        "closed": bool(stats.closed),
        "opened": stats.opened_unix_ns / 1e9,
        "opened_ns": stats.opened.ns,
        "age": (now.ns - stats.opened.ns) / 1e9,
        "places": places,
        "workers": workers,
        "names": names,
        "trace_lost": stats.lost,
        "trace_overwritten": stats.overwritten,
        "trace_blocks": stats.blocks,
    }


def names_of(bytes page not None):
    """The names of functions by their hash."""
    cdef const char *p = <const char *>page + SRDS_NAMES_AT
    cdef uint64_t used = (<Stats *><char *>page).names_used
    cdef uint64_t at = 0, hash
    cdef uint32_t length
    used = min(used, <uint64_t>(SRDS_STATS_BYTES - SRDS_NAMES_AT))
    names = {}
    while at + 16 <= used:
        memcpy(&hash, p + at, 8)
        memcpy(&length, p + at + 8, 4)
        if length == 0 or at + 15 + length > used:
            break       # its writer is at it, or died over it
        names[hash] = p[at + 16:at + 15 + length].decode(errors="replace")
        at += (15 + <uint64_t>length + 7) & ~<uint64_t>7
    return names


def read_control(bytes page not None):
    """What waiting counts, summed over the stations of a control arena; see ``control.h``."""
    cdef Control *control = <Control *><char *>page
    cdef Counters *one
    cdef int i
    if len(page) < sizeof(Control):
        return {}
    sums = [0] * 5
    for i in range(SRDS_STATIONS):
        one = &control.stations[i].counters
        for k, n in enumerate((one.sleeps, one.spins, one.spin_hits, one.stolen, one.nested)):
            sums[k] += n
    return dict(zip(("sleeps", "spins", "spin_hits", "stolen", "nested"), sums))
