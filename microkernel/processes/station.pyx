"""What the driver and the workers of a kernel have in common: a place in the control arena.

Each process of a kernel is a *station* with a number, a doorbell and a ring to every other. There
is no process in between and no lock: what one station writes to another lies in a ring that has
one writer and one reader. A task that another station has is an *entry* here until that station
has answered or died; the entry keeps the task's ``Ref``, which holds all that is needed to send
it again.

Reading an answer may run any Python code (unpickling, a hook), which may read the next answers
itself. So a message is taken apart before anything is called, and its room is given back in the
order of the ring.
"""
import time
from collections import deque

from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset

from microkernel.function cimport Function
from microkernel.ids cimport TaskId
from microkernel.mailbox cimport Method
from microkernel.objects.store cimport Block, ObjectStore
from microkernel.processes.function_table cimport function_table
from microkernel.processes.payload cimport Payloads
from microkernel.streams cimport Channel, channel_of
from microkernel.task cimport ENDING, STREAMS, Ref
from microkernel.values cimport Writer, write_raw

from microkernel.errors import KernelError, NotOverridden

cdef enum:
    PATIENCE_US = 50            # between looks at a full ring
    MOST_INLINE = 32768         # bytes of a payload in a ring; more goes into the object arena
    SLOT_BITS = 24              # of an entry's number; the rest is the station's epoch


cdef class Mapping:
    """The control arena in this process's memory, as long as anybody looks at it."""

    def __dealloc__(self):
        if self.at != NULL:
            srds_control_unmap(self.at)


cdef class Handler:
    """What handles the messages of one kind."""

    cdef int message(self, int sender, srds_message *message) except -1:
        raise NotOverridden

    cdef int station_ended(self, int station) except -1:
        """The process of a station is gone, with all that it had."""
        return 0


cdef class Station(Remote):
    """One process's place among those of a kernel."""

    def __cinit__(self):
        self.handlers = [None] * SRDS_KINDS
        self.lent = deque()

    def __dealloc__(self):
        cdef uint32_t slot
        for slot in range(1, self.capacity):
            if self.entries[slot].task != NULL:
                Py_DECREF(<object>self.entries[slot].task)
                if self.entries[slot].held != NULL:
                    Py_DECREF(<object>self.entries[slot].held)
        free(self.entries)
        free(self.scratch.data)
        free(self.gathered.data)

    cdef int attach(self, int fd, int index) except -1:
        """Take the place ``index`` in the control arena behind ``fd``."""
        self.control = srds_control_map(fd)
        if self.control == NULL:
            raise KernelError(
                f"the control arena of {srds_control_bytes() >> 20} MiB could not be mapped",
                what="address space", expected="room for a sparse mapping",
                remedy="raise the limit on address space (ulimit -v)")
        self.mapping = Mapping.__new__(Mapping)
        self.mapping.at = self.control
        self.control_fd = fd
        self.index = index
        self.bell = &self.control.stations[index].bell
        return 0

    cdef int handle(self, int kind, Handler handler) except -1:
        """Have messages of this kind handled by ``handler``."""
        self.handlers[kind] = handler
        return 0

    cdef int open_payloads(self, ObjectStore objects) except -1:
        """From here on messages can be written and read."""
        cdef int station
        for station in range(SRDS_STATIONS):
            self.regions[station] = srds_functions_of(self.control, station)
        self.payloads = Payloads.__new__(Payloads)
        self.payloads.objects = objects
        self.payloads.functions = function_table(self.regions, SRDS_FUNCTION_BYTES, self.index)
        self.payloads.functions.memory = self.mapping
        return 0

    # Entries

    cdef Entry *entry(self, uint32_t slot) noexcept:
        """The entry of this number; NULL for one of a process that had this station before."""
        cdef uint32_t index = slot & ((1 << SLOT_BITS) - 1)
        if slot >> SLOT_BITS != self.epoch or index >= self.capacity:
            return NULL
        return &self.entries[index] if self.entries[index].task != NULL else NULL

    cdef uint32_t new_entry(self, Ref task, int station) except 0:
        cdef uint32_t index = self.free_entries
        cdef uint32_t capacity, i
        cdef Entry *entries
        cdef Entry *entry
        if index == 0:
            capacity = 2 * self.capacity if self.capacity else 1024
            if capacity > 1 << SLOT_BITS:
                raise KernelError(f"{self.capacity} tasks are with other processes",
                                  what="tasks", expected="fewer", remedy="wait for some of them")
            entries = <Entry *>realloc(self.entries, capacity * sizeof(Entry))
            if entries == NULL:
                raise MemoryError()
            self.entries = entries
            memset(entries + self.capacity, 0, (capacity - self.capacity) * sizeof(Entry))
            for i in range(max(1, self.capacity), capacity - 1):
                entries[i].after = i + 1
            index = max(1, self.capacity)
            self.capacity = capacity
        entry = &self.entries[index]
        self.free_entries = entry.after
        Py_INCREF(task)
        entry.task = <PyObject *>task
        entry.held = NULL
        entry.message = NULL
        entry.station = station
        entry.offered = -1
        entry.taken = 0
        entry.after = 0
        entry.before = self.last[station]
        if entry.before:
            self.entries[entry.before].after = index
        else:
            self.first[station] = index
        self.last[station] = index
        self.sent[station] += 1
        task.slot = self.epoch << SLOT_BITS | index
        return task.slot

    cdef int free_entry(self, uint32_t slot) except -1:
        cdef uint32_t index = slot & ((1 << SLOT_BITS) - 1)
        cdef Entry *entry = &self.entries[index]
        cdef PyObject *task = entry.task
        cdef PyObject *held = entry.held
        if entry.before:
            self.entries[entry.before].after = entry.after
        else:
            self.first[entry.station] = entry.after
        if entry.after:
            self.entries[entry.after].before = entry.before
        else:
            self.last[entry.station] = entry.before
        self.sent[entry.station] -= 1
        (<Ref>task).slot = 0
        entry.task = entry.held = NULL
        entry.message = NULL
        entry.after = self.free_entries
        self.free_entries = index
        if held != NULL:
            Py_DECREF(<object>held)
        Py_DECREF(<object>task)
        return 0

    cdef list take_entries_of(self, int station):
        """What a dead station had: [(task, whether it had begun)] in the order of sending."""
        cdef list found = []
        cdef Entry *entry
        cdef uint32_t index = self.first[station]
        while index:
            entry = &self.entries[index]
            begun = (entry.message != NULL
                     and srds_load32(&entry.message.claim) == 1 + <uint32_t>station)
            found.append((<Ref>entry.task, begun))
            index = entry.after
        for task, _ in found:
            self.free_entry((<Ref>task).slot)
        return found

    # Sending

    cdef Writer take_scratch(self) noexcept:
        """The spare buffer, or an empty one where another thread has it at the moment."""
        cdef Writer w = self.scratch
        self.scratch.data = NULL
        self.scratch.capacity = 0
        w.length = 0
        return w

    cdef void give_scratch(self, Writer w) noexcept:
        if self.scratch.data == NULL and w.capacity <= SRDS_RING_BYTES:
            self.scratch = w
        else:
            free(w.data)

    cdef uint32_t encode_call(self, Writer *w, Ref task, uint16_t *flags,
                              list held) except? 0xffffffff:
        """Write the payload of a task's message; returns the number of its function."""
        cdef uint32_t function = 0
        cdef uint32_t window
        if type(task.function) is Method:
            function = (<Method>task.function).number
            flags[0] |= SRDS_METHOD if function else 0
        if function == 0:
            function = self.payloads.functions.number(task.function)
        if task.scope is not None and task.scope.recorded:
            flags[0] |= SRDS_RECORDED
            write_raw(w, &task.scope.decision, sizeof(TaskId))
        if task.wants & STREAMS:
            flags[0] |= SRDS_STREAMING
            window = <uint32_t>channel_of(task).window
            write_raw(w, &window, sizeof(window))
        if function == 0:
            self.payloads.write_function(w, task.function, held)
        if len(<tuple>task.args) or task.kwargs is not None:
            self.payloads.write_arguments(w, <tuple>task.args, <dict>task.kwargs, held)
        return function

    cdef int keep_held(self, Entry *entry, list held) except -1:
        """Keep what a message names as long as its entry."""
        if held:
            Py_INCREF(held)
            entry.held = <PyObject *>held
        return 0

    cdef int fill(self, srds_task *m, Ref task, int kind, uint32_t slot, uint32_t function,
                  Writer *w, uint16_t flags) except -1:
        """Write the record of ``task`` and its payload; the claim is made last."""
        m.size = srds_message_size(sizeof(srds_task), w.length)
        m.kind = kind
        m.attempt = task.attempt
        m.flags = flags
        m.slot = slot
        m.payload = <uint32_t>w.length
        m.function = function
        m.id_hi = task.id.hi
        m.id_lo = task.id.lo
        m.parent_hi = task.parent.hi
        m.parent_lo = task.parent.lo
        m.deadline_ns = task.deadline_ns
        if w.length:
            memcpy(m + 1, w.data, w.length)
        srds_store32(&m.claim, SRDS_UNCLAIMED)
        return 0

    cdef int send_task(self, int to, int kind, Ref task) except -1:
        """Send a task; 0 when the ring has no room for it now."""
        cdef srds_ring *ring = srds_ring_between(self.control, self.index, to)
        cdef srds_task *m
        cdef uint32_t slot, function, size
        cdef uint16_t flags = 0
        cdef list held = []
        cdef Entry *entry
        cdef Writer w = self.take_scratch()
        try:
            function = self.encode_call(&w, task, &flags, held)
            if w.length > MOST_INLINE:
                self.move_to_block(&w, held)
                flags |= SRDS_IN_BLOCK
            size = srds_message_size(sizeof(srds_task), w.length)
            m = <srds_task *>srds_ring_reserve(ring, size)
            if m == NULL:
                return 0
            slot = self.new_entry(task, to)
            self.fill(m, task, kind, slot, function, &w, flags)
            entry = self.entry(slot)
            entry.message = m
            self.keep_held(entry, held)
        finally:
            self.give_scratch(w)
        srds_ring_publish(ring)
        srds_bell_notify(&self.control.stations[to].bell, ring, self.index)
        return 1

    cdef int move_to_block(self, Writer *w, list held) except -1:
        """Put a payload that is too long for a ring into the object arena; its handle and length
        are the payload then."""
        cdef Block block
        cdef uint64_t[2] where
        if self.payloads.objects is None:
            raise KernelError(f"a message of {w.length} bytes", what="arguments or result",
                              expected=f"at most {MOST_INLINE} bytes without an object arena",
                              remedy="send less at a time")
        block = self.payloads.objects.allocate(w.length)
        memcpy(block.data, w.data, w.length)
        block.seal()
        held.append(block)
        where[0] = block.handle
        where[1] = w.length
        memcpy(w.data, where, sizeof(where))
        w.length = sizeof(where)
        return 0

    cdef void *reserve(self, int to, uint32_t size) except NULL:
        """Room in the ring to a station, waiting for it; meanwhile what arrives is taken in, so
        that two who write to each other never wait for each other."""
        cdef srds_ring *ring = srds_ring_between(self.control, self.index, to)
        cdef void *room = srds_ring_reserve(ring, size)
        while room == NULL:
            if self.control.closing or self.control.stations[to].state == SRDS_FREE:
                raise KernelError("nobody reads any more", what=f"station {to}",
                                  expected="a running process", remedy="open a kernel again")
            self.poll()
            time.sleep(PATIENCE_US / 1e6)
            room = srds_ring_reserve(ring, size)
        return room

    cdef int publish(self, int to) except -1:
        cdef srds_ring *ring = srds_ring_between(self.control, self.index, to)
        srds_ring_publish(ring)
        srds_bell_notify(&self.control.stations[to].bell, ring, self.index)
        return 0

    cdef int send_message(self, int to, int kind, uint32_t slot, int64_t value, const void *payload,
                          size_t n) except -1:
        """A message that is no task, waiting for room."""
        cdef uint32_t size = srds_message_size(sizeof(srds_message), n)
        cdef srds_message *m = <srds_message *>self.reserve(to, size)
        memset(m, 0, sizeof(srds_message))
        m.size = size
        m.kind = kind
        m.slot = slot
        m.value = value
        m.payload = <uint32_t>n
        if n:
            memcpy(m + 1, payload, n)
        return self.publish(to)

    # Answering

    cdef int answer(self, int to, uint32_t slot, int status, object value, int64_t started_ns,
                    int64_t ended_ns) except -1:
        """Tell a station the end of a task that it sent. What cannot be sent becomes an error."""
        cdef Writer w = self.take_scratch()
        cdef list held = []
        cdef uint32_t length = <uint32_t>self.gathered.length
        cdef size_t start
        try:
            if length:
                write_raw(&w, &length, 4)
                write_raw(&w, self.gathered.data, length)
                self.gathered.length = 0
            start = w.length
            if status == SRDS_OK:
                try:
                    self.payloads.write_result(&w, value, held)
                except Exception as error:
                    w.length = start
                    held.clear()
                    status = SRDS_ERROR
                    value = error
            if status != SRDS_OK:
                self.payloads.write_error(&w, value)
            self.write_answer(to, SRDS_DONE, slot, status, SRDS_RECORDED if length else 0, &w, held,
                              started_ns, ended_ns)
        finally:
            self.give_scratch(w)
        return 0

    cdef int answer_item(self, int to, uint32_t slot, object value) except -1:
        """One item of a streaming generator."""
        cdef Writer w = self.take_scratch()
        cdef list held = []
        try:
            self.payloads.write_result(&w, value, held)
            self.write_answer(to, SRDS_ITEM, slot, SRDS_OK, 0, &w, held, 0, 0)
        finally:
            self.give_scratch(w)
        return 0

    cdef int write_answer(self, int to, int kind, uint32_t slot, int status, uint16_t flags,
                          Writer *w, list held, int64_t started_ns, int64_t ended_ns) except -1:
        cdef srds_completion *m
        cdef uint32_t size
        cdef srds_ring *ring = srds_ring_between(self.control, self.index, to)
        if w.length > MOST_INLINE:
            self.move_to_block(w, held)
            flags |= SRDS_IN_BLOCK
        size = srds_message_size(sizeof(srds_completion), w.length)
        m = <srds_completion *>self.reserve(to, size)
        m.size = size
        m.kind = kind
        m.status = status
        m.flags = flags
        m.slot = slot
        m.payload = <uint32_t>w.length
        m.started_ns = started_ns
        m.ended_ns = ended_ns
        if w.length:
            memcpy(m + 1, w.data, w.length)
        self.publish(to)
        if held:
            # The reader takes its own holds before it gives the message's room back.
            self.lent.append((to, ring.tail, held))
        if self.lent:
            self.let_go_of_read_answers()
        return 0

    cdef int let_go_of_read_answers(self) except -1:
        cdef srds_ring *ring
        while self.lent:
            to, end, _ = self.lent[0]
            ring = srds_ring_between(self.control, self.index, to)
            if self.control.stations[<int>to].state != SRDS_FREE and srds_load64(&ring.head) < end:
                return 0
            self.lent.popleft()
        return 0

    cdef int keep(self, Ref task, object value) except -1:
        return self.payloads.keep(task, value)

    def empty(self, shape, dtype):
        from microkernel.objects.arrays import empty

        return empty(self.payloads.objects, shape, dtype)

    def object_statistics(self):
        return self.payloads.objects.statistics()

    # Receiving

    cdef int poll(self) except -1:
        """Take in all that has arrived."""
        cdef uint64_t news = srds_bell_news(self.bell)
        cdef int sender
        while news:
            sender = srds_lowest_bit(news)
            news &= news - 1
            try:
                self.read(sender)
            except BaseException:
                # Whatever is unread is still news.
                srds_or64(&self.bell.inbox, news | <uint64_t>1 << sender)
                raise
        return 0

    cdef int read(self, int sender) except -1:
        """Take in what has arrived from one station."""
        cdef srds_ring *ring = srds_ring_between(self.control, sender, self.index)
        cdef srds_message *m
        while True:
            m = srds_ring_next(ring)
            if m == NULL:
                break
            self.received(sender, m)
        return self.give_back(sender, ring)

    cdef int give_back(self, int sender, srds_ring *ring) except -1:
        """What was read may be overwritten."""
        srds_ring_consume(ring)
        return 0

    cdef int received(self, int sender, srds_message *message) except -1:
        cdef Handler handler
        if message.kind == SRDS_DONE:
            return self.answered(sender, <srds_completion *>message)
        if message.kind == SRDS_ITEM:
            return self.item_arrived(<srds_completion *>message)
        if message.kind < SRDS_KINDS:
            handler = self.handlers[message.kind]
            if handler is None and message.kind == SRDS_FLOW:
                from microkernel.flows.ports import Ports

                handler = Ports(self)       # flows come to a process by their first message
                self.handle(SRDS_FLOW, handler)
            if handler is not None:
                return handler.message(sender, message)
        raise KernelError(f"a message of unknown kind {message.kind} from station {sender}",
                          what="message", expected="one of this version",
                          remedy="report this as a bug")

    cdef int answered(self, int sender, srds_completion *m) except -1:
        """The end of a task that this station had sent or offered."""
        cdef Ref task
        cdef uint32_t slot = m.slot
        cdef int status = m.status
        cdef srds_completion times = m[0]
        cdef Entry *entry = self.entry(slot)
        if entry == NULL:
            return 0        # asked for by the process that had this station before
        task = <Ref>entry.task
        try:
            value = self.read_answer(task, status, <const unsigned char *>(m + 1), m.payload,
                                     m.flags)
        except Exception as error:
            status = SRDS_ERROR
            value = error
        self.free_entry(slot)
        return self.ended(task, status, value, &times, sender)

    cdef int item_arrived(self, srds_completion *m) except -1:
        """One item of a stream whose generator runs elsewhere."""
        cdef Entry *entry = self.entry(m.slot)
        cdef Ref task
        cdef Channel channel
        if entry == NULL:
            return 0
        task = <Ref>entry.task
        item = self.read_answer(task, m.status, <const unsigned char *>(m + 1), m.payload, m.flags)
        channel = channel_of(task)
        return 0 if channel is None else channel.item_arrived(item)

    cdef int credit(self, Ref task, size_t items) except -1:
        cdef Entry *entry = self.entry(task.slot)
        cdef srds_station *maker
        if entry == NULL:
            return 0
        maker = &self.control.stations[entry.station]
        entry.taken += <uint32_t>items
        # The sum and not what is new, in one word: then a ring cannot fill with it.
        srds_store64(&maker.taken, <uint64_t>task.slot << 32 | entry.taken)
        srds_bell_ring(&maker.bell)
        return 0

    cdef object read_answer(self, Ref task, int status, const unsigned char *data, size_t n,
                            uint16_t flags):
        cdef Block block
        cdef uint32_t length
        cdef uint64_t[2] where
        if flags & SRDS_IN_BLOCK:
            memcpy(where, data, sizeof(where))
            block = self.payloads.objects.hold(where[0])
            data = block.pin()
            try:
                return self.read_answer(task, status, data, where[1], flags & ~SRDS_IN_BLOCK)
            finally:
                block.unpin()
        if flags & SRDS_RECORDED:
            memcpy(&length, data, 4)
            if task.state < ENDING and task.scope is not None:
                self.engine.append_gathered(task, data + 4, length)
            data += 4 + length
            n -= 4 + length
        if status == SRDS_OK:
            return self.payloads.read_result_lazily(data, n, False)
        return self.payloads.read_error(data, n)

    cdef int ended(self, Ref task, int status, object value, srds_completion *times,
                   int station) except -1:
        """A task of this station's has ended in another."""
        return self.engine.end_elsewhere(task, status == SRDS_OK, value)

    cdef tuple read_arguments(self, srds_task *message):
        """(Function, arguments, named arguments, window) of a task that another station sent."""
        cdef const unsigned char *data = <const unsigned char *>(message + 1)
        cdef size_t n = message.payload
        cdef Block block
        cdef uint64_t[2] where
        if not message.flags & SRDS_IN_BLOCK:
            return self.read_call(message.function, data, n, message.flags)
        memcpy(where, data, sizeof(where))
        block = self.payloads.objects.hold(where[0])
        data = block.pin()
        try:
            return self.read_call(message.function, data, where[1], message.flags)
        finally:
            block.unpin()

    cdef Function method(self, uint32_t number):
        """The method of this number of the actor that lives here."""
        raise KernelError(f"no actor lives in station {self.index}", what="call",
                          expected="a call of an actor", remedy="report this as a bug")

    cdef tuple read_call(self, uint32_t function, const unsigned char *data, size_t n,
                         uint16_t flags):
        cdef Function known
        cdef size_t function_bytes = 0
        cdef size_t taken = sizeof(TaskId) if flags & SRDS_RECORDED else 0
        cdef uint32_t window = 0
        if flags & SRDS_STREAMING:
            memcpy(&window, data + taken, sizeof(window))
            taken += sizeof(window)
        if flags & SRDS_METHOD:
            known = self.method(function)
        elif function:
            known = self.payloads.functions.function(function)
        else:
            known = self.payloads.read_function(data + taken, n - taken, &function_bytes)
            taken += function_bytes
        args, kwargs = self.payloads.read_arguments(data + taken, n - taken)
        return known, args, kwargs, window
